"""MMSA's layout, in which MOSI, MOSEI and CH-SIMS are usually passed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

from clipmsa.cache import Utterance

from .clips import Clip, Manifest, Published
from .cmu import CmuMosei, CmuMosi
from .layout import Layout
from .tables import MediaFinder, Row, file_name, label_of, read_clips, split_of

TABLE = "label.csv"
COLUMNS = ("video_id", "clip_id", "text", "label", "mode")


class MmsaLayout(Layout):
    """Any dataset in MMSA's layout; which it is says its folder's name, or the user."""

    name = "mmsa"
    looks_like = f"{TABLE} ({','.join(COLUMNS)}) beside Raw/<video_id>/<clip_id>.mp4"
    published: ClassVar[Mapping[str, Sequence[Published]]] = {
        **CmuMosi.published,
        **CmuMosei.published,
        "sims": (Published("clips", "CH-SIMS paper", (1368, 456, 457)),),
    }

    def recognises(self, root: Path) -> bool:
        return (root / TABLE).is_file()

    def read(self, root: Path) -> Manifest:
        return read_mmsa(root, (root if root.name.strip(".") else root.resolve()).name)


def read_mmsa(root: Path, dataset: str) -> Manifest:
    """`label.csv` beside `Raw/<video_id>/<clip_id>.mp4`; labels are kept as they are.

    Raises:
        TableError: a column is missing, or rows are faulty; names file and row.
    """

    media = MediaFinder()

    def clip(row: Row) -> Clip:
        video_id, clip_id = row["video_id"], row["clip_id"]
        for key in ("video_id", "clip_id"):
            file_name(key, row[key])
        utterance = Utterance(
            video_id, clip_id, split_of(row["mode"]), label_of(row["label"]), row["text"]
        )
        return Clip(utterance, media.find(root / "Raw" / video_id, clip_id))

    clips = read_clips(root / TABLE, COLUMNS, clip)
    splits = f"column mode of {TABLE}"
    return Manifest(dataset, clips, "MMSA layout", splits, media=(root / "Raw",))


def video_id(path: str) -> str:
    """The id of a manifest's video that gives none: its path without the suffix."""
    return str(PurePosixPath(path).with_suffix(""))
