"""A table of one's own clips: path, text, label, split."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from clipmsa.cache import Utterance
from clipmsa.cache.csvtext import unguarded

from .clips import Clip, Manifest
from .mmsa_layout import video_id
from .tables import Row, label_of, read_clips, seconds_of, split_of

CSV_COLUMNS = ("path", "text", "label", "split")


def read_csv(table: Path, root: Path) -> Manifest:
    """A CSV manifest; `start` and `end` (seconds) cut clips out of longer files.

    Raises:
        TableError: a column is missing, or rows are faulty; names file and row.
    """
    clips = read_clips(table, CSV_COLUMNS, _csv_row(root))
    return Manifest(table.stem, clips, "CSV manifest", f"column split of {table.name}")


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
