"""MMSA's layout, in which MOSI, MOSEI and CH-SIMS are usually passed on, and CSV manifests."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from clipmsa.cache import Utterance
from clipmsa.cache.csvtext import unguarded

from .clips import Clip, Manifest
from .tables import MediaFinder, Row, file_name, label_of, read_clips, seconds_of, split_of

TABLE = "label.csv"
COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
CSV_COLUMNS = ("path", "text", "label", "split")


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


def read_csv(table: Path, root: Path) -> Manifest:
    """A CSV manifest; `start` and `end` (seconds) cut clips out of longer files.

    Raises:
        TableError: a column is missing, or rows are faulty; names file and row.
    """
    clips = read_clips(table, CSV_COLUMNS, _csv_row(root))
    return Manifest(table.stem, clips, "CSV manifest", f"column split of {table.name}")


def video_id(path: str) -> str:
    """The id of a manifest's video that gives none: its path without the suffix."""
    return str(PurePosixPath(path).with_suffix(""))


def _csv_row(root: Path) -> Callable[[Row], Clip]:
    def clip(row: Row) -> Clip:
        row = {column: unguarded(cell) for column, cell in row.items()}  # as `cut` writes them
        cell = row["path"]
        path = PurePosixPath(cell.replace("\\", "/"))
        if path.is_absolute() or PureWindowsPath(cell).drive or ".." in path.parts:
            raise ValueError(f"path '{cell}' must be relative and stay below {root}, without '..'")
        if not path.name.strip():
            raise ValueError(f"path '{cell}' is not the name of a file")
        start = seconds_of("start", row["start"]) if row.get("start", "").strip() else 0.0
        end = seconds_of("end", row["end"]) if row.get("end", "").strip() else math.inf
        if not 0 <= start < end:
            raise ValueError(f"start {start:g} and end {end:g}: no clip lies between")
        utterance = Utterance(
            row.get("video_id") or video_id(str(path)),
            row.get("clip_id") or "0",
            split_of(row["split"]),
            label_of(row["label"]),
            row["text"],
            start=start,
            end=end,
        )
        return Clip(utterance, root / path)

    return clip
