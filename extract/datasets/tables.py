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
from clipmsa.cache.spec import SPLITS
from clipmsa.cache.texts import read_text

from .clips import Clip

# What is taken for a clip wherever files are looked for, in any case; the first before the others.
MEDIA_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf", ".vob"),
    *(".wav", ".mp3", ".flac", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aif", ".aiff"),
    *(".amr", ".mka", ".weba"),
)
TABLE_SUFFIXES = (".csv", ".tsv")  # of manifests
_DELIMITERS = (",", ";", "\t")
_LONGEST_HEADER = 1 << 20  # letters
_LARGEST = float(np.finfo(np.float32).max)  # what the store can hold

Row = dict[str, str]
Parsed = TypeVar("Parsed")


def read_clips(table: Path, columns: tuple[str, ...], parse: Callable[[Row], Clip]) -> list[Clip]:
    """The clips of a table with a header that has these columns, and maybe others.

    Raises:
        TableError: a column is missing, or rows are faulty; names file and row.
    """
    lines = records(table, lambda names: set(columns) <= {name.strip() for name in names})
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
                f"{len(cells)} cells under a header of {len(header)}; quote cells that hold the "
                f"delimiter"
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


def records(table: Path, fits: Callable[[list[str]], bool]) -> Iterator[tuple[int, list[str]]]:
    """The cells of each record, and the line it starts on as an editor counts them, from 1.

    Cells are parted by commas; or by semicolons or tabs, as spreadsheets do where a comma is the
    decimal sign, if the first record `fits` so.

    Raises:
        TableError: the table cannot be read, is of another kind, or its quotes do not close.
    """
    text = read_text(table, TableError, "a table in CSV", "row").replace("\0", "")
    for line, cells in _records(table, text, _delimiter(table, text, fits)):
        if any(cell.strip() for cell in cells):  # spreadsheets leave rows of commas at the end
            yield line, cells


def _delimiter(table: Path, text: str, fits: Callable[[list[str]], bool]) -> str:
    """What parts the cells: the sign by which the first record fits; a comma where none does."""
    fitting = []
    for delimiter in _DELIMITERS:
        try:
            records = _records(table, text[:_LONGEST_HEADER], delimiter)
            first = next((cells for _, cells in records if any(map(str.strip, cells))), [])
        except TableError:  # which is told with its row when all is read
            continue
        if fits(first):
            fitting.append(delimiter)
    if len(fitting) > 1:
        raise TableError(
            f"{table}: row 1: parted by {' or '.join(map(repr, fitting))}; save it with one"
        )
    return fitting[0] if fitting else _DELIMITERS[0]


def _records(table: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # Strict: else a quote that is never closed takes the rows below it into its cell, in silence.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TableError(f"{table}: row {line}: not CSV ({error}); check its quotes") from None
        if cells is None:
            return
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


def is_media(name: str | Path) -> bool:
    """Whether a file's name is that of a video or a sound."""
    return Path(name).suffix.lower() in MEDIA_SUFFIXES


def is_file(path: Path) -> bool:
    """Whether there is such a file; none has a name that is too long, as a table may make it."""
    try:
        return path.is_file()
    except OSError:
        return False


class MediaFinder:
    """Finds the media files of clips by their names without a suffix; lists a folder once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def find(self, folder: Path, stem: str) -> Path:
        """`<stem>.mp4`, or where that is missing the file of that stem with another media suffix.

        The case of a suffix does not matter: `<stem>.MP4` is such a file too.
        """
        wanted = folder / f"{stem}{MEDIA_SUFFIXES[0]}"
        if is_file(wanted):
            return wanted
        try:
            names = self._names(folder).get(stem, ())
        except OSError:  # no folder: the clip's fault, not the table's
            return wanted
        return next((file for name in names if is_file(file := folder / name)), wanted)

    def _names(self, folder: Path) -> dict[str, list[str]]:
        """The names of a folder's media files by stem, the likeliest first."""
        if folder not in self._listed:
            found: dict[str, list[str]] = {}
            for name in sorted(file.name for file in folder.iterdir() if is_media(file)):
                found.setdefault(Path(name).stem, []).append(name)
            for names in found.values():
                names.sort(key=lambda name: MEDIA_SUFFIXES.index(Path(name).suffix.lower()))
            self._listed[folder] = found
        return self._listed[folder]
