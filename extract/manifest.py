"""Tables of clips: the MMSA layout and CSV manifests, read whole and checked before any work."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from clipmsa.cache import Utterance
from clipmsa.cache.errors import TableError
from clipmsa.cache.store import SPLITS

MEDIA_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".wav", ".mp3", ".flac", ".m4a")
_MMSA_COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
_CSV_COLUMNS = ("path", "text", "label", "split")
_LARGEST = float(np.finfo(np.float32).max)  # what the store can hold


@dataclass(frozen=True)
class Clip:
    """One row of a table: what is known of an utterance, and the file it is in."""

    utterance: Utterance
    path: Path


@dataclass(frozen=True)
class Manifest:
    """A dataset by name, its clips in the table's order."""

    dataset: str
    clips: list[Clip]

    def shard(self, index: int, count: int) -> Manifest:
        """Block `index`, counted from 0, of `count` nearly equal blocks of the table.

        >>> table = Manifest("d", list(range(10)))
        >>> [table.shard(i, 3).clips for i in range(3)]
        [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
        """
        start, end = (len(self.clips) * i // count for i in (index, index + 1))
        return replace(self, clips=self.clips[start:end])

    def first(self, count: int) -> Manifest:
        """The first clips of the table, for a try."""
        return replace(self, clips=self.clips[:count])


def read_dataset(name: str, root: Path | None = None) -> Manifest:
    """Read a dataset by name, folder or CSV file.

    `name` is a CSV manifest (`path,text,label,split`, paths relative to its folder or to `root`),
    a folder in the MMSA layout (`label.csv` and `Raw/<video_id>/<clip_id>.mp4`), or a plain name
    such as `mosi`, looked for in `root` or else in `data/<name>`.

    Raises:
        TableError: nothing there, a column is missing, or rows are faulty; names file and row.
    """
    path = Path(name)
    if path.suffix.lower() == ".csv":
        if not path.is_file():
            raise TableError(f"{path}: no such manifest")
        return Manifest(path.stem, _read(path, _CSV_COLUMNS, _csv_row(root or path.parent)))
    if root is None:
        root = path if path.is_dir() else Path("data") / name
    if not root.is_dir():
        raise TableError(
            f"{root}: no such folder; --dataset {name} looks for label.csv and Raw/ there: "
            f"put the dataset there, or say --root DIR where it is"
        )
    table = root / "label.csv"
    if not table.is_file():
        raise TableError(
            f"{table}: no such table; the MMSA layout is label.csv "
            f"({','.join(_MMSA_COLUMNS)}) beside Raw/<video_id>/<clip_id>.mp4"
        )
    named = path if path.name.strip(".") else path.resolve()  # "." is the folder we are in
    return Manifest(named.name, _read(table, _MMSA_COLUMNS, _mmsa_row(root)))


Row = dict[str, str]


def _mmsa_row(root: Path) -> Callable[[Row], Clip]:
    def clip(row: Row) -> Clip:
        video_id, clip_id = row["video_id"], row["clip_id"]
        for key, part in (("video_id", video_id), ("clip_id", clip_id)):
            if PureWindowsPath(part).name != part or not part.strip(" ."):
                raise ValueError(f"{key} '{part}' is not the name of a file or folder")
        utterance = Utterance(
            video_id, clip_id, _split(row["mode"]), _label(row["label"]), row["text"]
        )
        return Clip(utterance, _media_file(root / "Raw" / video_id, clip_id))

    return clip


def _csv_row(root: Path) -> Callable[[Row], Clip]:
    def clip(row: Row) -> Clip:
        cell = row["path"]
        path = PurePosixPath(cell.replace("\\", "/"))
        if path.is_absolute() or PureWindowsPath(cell).drive or ".." in path.parts:
            raise ValueError(f"path '{cell}' must be relative and stay below {root}, without '..'")
        if not path.name.strip():
            raise ValueError(f"path '{cell}' is not the name of a file")
        utterance = Utterance(
            row.get("video_id") or str(path.with_suffix("")),
            row.get("clip_id") or "0",
            _split(row["split"]),
            _label(row["label"]),
            row["text"],
        )
        return Clip(utterance, root / path)

    return clip


def _read(table: Path, columns: tuple[str, ...], parse: Callable[[Row], Clip]) -> list[Clip]:
    """Parse every row; all faults are found, the first is shown in full and the rest counted."""
    clips: list[Clip] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    records = _records(table)
    _, header = next(records, (1, []))
    header = [name.strip() for name in header]
    for column in columns:
        if header.count(column) != 1:
            raise TableError(
                f"{table}: {'two columns' if column in header else 'no column'} '{column}'; "
                f"there are {', '.join(header) or 'none'}"
            )
    for line, cells in records:
        try:
            if len(cells) != len(header):
                raise ValueError(
                    f"{len(cells)} cells under a header of {len(header)}; "
                    f"quote cells that hold commas"
                )
            clip = parse(dict(zip(header, cells, strict=True)))
            if clip.utterance.id in seen:
                raise ValueError(
                    f"'{clip.utterance.id}' is already in row {seen[clip.utterance.id]}"
                )
        except ValueError as error:
            faults.append(f"row {line}: {error}")
            continue
        seen[clip.utterance.id] = line
        clips.append(clip)
    if faults:
        more = f" (and {len(faults) - 1} more faulty rows)" if len(faults) > 1 else ""
        raise TableError(f"{table}: {faults[0]}{more}")
    if not clips:
        raise TableError(f"{table}: no rows under the header")
    return clips


def _records(table: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each record, and the line it starts on as an editor counts them, from 1."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TableError(f"{table}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = len((error.object[: error.start] + b".").splitlines())
        raise TableError(f"{table}: row {line}: not UTF-8; save the table as CSV UTF-8") from None
    # Strict: else a quote that is never closed takes the rows below it into its cell, in silence.
    reader = csv.reader(io.StringIO(text.replace("\0", ""), newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TableError(f"{table}: row {line}: not CSV ({error}); check its quotes") from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):  # spreadsheets leave rows of commas at the end
            yield line, cells


def _label(cell: str) -> float:
    """A number, or NaN where the cell is empty: an utterance to predict, not to learn from."""
    if not cell.strip():
        return math.nan
    try:
        label = float(cell.replace("_", "?"))  # to Python, 1_5 is 15
    except ValueError:
        raise ValueError(f"label '{cell}' is no number, such as -1.5") from None
    if not abs(label) <= _LARGEST:
        raise ValueError(f"label '{cell}' must be finite; leave it empty where it is unknown")
    return label


def _split(cell: str) -> str:
    if cell not in SPLITS:
        raise ValueError(f"split '{cell}' must be one of {', '.join(SPLITS)}")
    return cell


def _media_file(folder: Path, stem: str) -> Path:
    """`<stem>.mp4`, or where that is missing the file of that stem with another media suffix."""
    candidates = [folder / f"{stem}{suffix}" for suffix in MEDIA_SUFFIXES]
    try:
        return next((path for path in candidates if path.is_file()), candidates[0])
    except OSError:  # a folder out of bounds, or a name too long: the clip's fault, not the table's
        return candidates[0]
