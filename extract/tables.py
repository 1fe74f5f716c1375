"""Tables as people write them: every row is checked before any work, and faults are told by row."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PureWindowsPath
from typing import TypeVar

import numpy as np

from clipmsa.cache.errors import TableError
from clipmsa.cache.store import SPLITS

from .clips import Clip

MEDIA_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".wav", ".mp3", ".flac", ".m4a")
_LARGEST = float(np.finfo(np.float32).max)  # what the store can hold

Row = dict[str, str]
Parsed = TypeVar("Parsed")


def read_clips(table: Path, columns: tuple[str, ...], parse: Callable[[Row], Clip]) -> list[Clip]:
    """The clips of a table with a header that has these columns, and maybe others.

    Raises:
        TableError: a column is missing, or rows are faulty; names file and row.
    """
    lines = records(table)
    _, header = next(lines, (1, []))
    header = [name.strip() for name in header]
    for column in columns:
        if header.count(column) != 1:
            raise TableError(
                f"{table}: {'two columns' if column in header else 'no column'} '{column}'; "
                f"there are {', '.join(header) or 'none'}"
            )
    seen: dict[str, int] = {}

    def clip_of(line: int, cells: list[str]) -> Clip:
        if len(cells) != len(header):
            raise ValueError(
                f"{len(cells)} cells under a header of {len(header)}; quote cells that hold commas"
            )
        clip = parse(dict(zip(header, cells, strict=True)))
        id_ = clip.utterance.id
        if seen.setdefault(id_, line) != line:
            raise ValueError(f"'{id_}' is already in row {seen[id_]}")
        return clip

    clips = parsed(table, lines, clip_of)
    if not clips:
        raise TableError(f"{table}: no rows under the header")
    return clips


def parsed(
    table: Path,
    lines: Iterable[tuple[int, list[str]]],
    parse: Callable[[int, list[str]], Parsed],
) -> list[Parsed]:
    """Parse every row; all faults are found, the first is shown in full and the rest counted."""
    rows: list[Parsed] = []
    faults: list[str] = []
    for line, cells in lines:
        try:
            rows.append(parse(line, cells))
        except ValueError as error:
            faults.append(f"row {line}: {error}")
    if faults:
        more = f" (and {len(faults) - 1} more faulty rows)" if len(faults) > 1 else ""
        raise TableError(f"{table}: {faults[0]}{more}")
    return rows


def records(table: Path) -> Iterator[tuple[int, list[str]]]:
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


def label_of(cell: str) -> float:
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


def seconds_of(key: str, cell: str) -> float:
    """A time that is a finite number; negative ones are there in MOSEI, a bit before the start."""
    try:
        seconds = float(cell.replace("_", "?"))
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"{key} '{cell}' is no number of seconds, such as 3.25")
    return seconds


def split_of(cell: str) -> str:
    if cell not in SPLITS:
        raise ValueError(f"split '{cell}' must be one of {', '.join(SPLITS)}")
    return cell


def file_name(key: str, part: str) -> str:
    """An id that is to be (a part of) the name of a file or folder, and leads nowhere else."""
    if PureWindowsPath(part).name != part or not part.strip(" ."):
        raise ValueError(f"{key} '{part}' is not the name of a file or folder")
    return part


def media_file(folder: Path, stem: str) -> Path:
    """`<stem>.mp4`, or where that is missing the file of that stem with another media suffix."""
    candidates = [folder / f"{stem}{suffix}" for suffix in MEDIA_SUFFIXES]
    try:
        return next((path for path in candidates if path.is_file()), candidates[0])
    except OSError:  # a folder out of bounds, or a name too long: the clip's fault, not the table's
        return candidates[0]
