"""Tables of clips: the MMSA layout and CSV manifests, read whole and checked before any work."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from clipmsa.cache import Utterance
from clipmsa.cache.errors import TableError
from clipmsa.cache.store import SPLITS

MEDIA_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".wav", ".mp3", ".flac", ".m4a")
_MMSA_COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
_CSV_COLUMNS = ("path", "text", "label", "split")


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
    return Manifest(path.name, _read(table, _MMSA_COLUMNS, _mmsa_row(root)))


Row = dict[str, str]


def _mmsa_row(root: Path) -> Callable[[Row], Clip]:
    def clip(row: Row) -> Clip:
        video_id, clip_id = row["video_id"], row["clip_id"]
        for key, part in (("video_id", video_id), ("clip_id", clip_id)):
            if PurePosixPath(part).name != part or "\\" in part or part in ("", "..", "."):
                raise ValueError(f"{key} '{part}' is not the name of a file or folder")
        utterance = Utterance(
            video_id, clip_id, _split(row["mode"]), _label(row["label"]), row["text"]
        )
        return Clip(utterance, _media_file(root / "Raw" / video_id, clip_id))

    return clip


def _csv_row(root: Path) -> Callable[[Row], Clip]:
    def clip(row: Row) -> Clip:
        path = PurePosixPath(row["path"].replace("\\", "/"))
        if not row["path"] or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise ValueError(
                f"path '{row['path']}' must be relative and stay below {root}, without '..'"
            )
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
    for line, row in _rows(table, columns):
        try:
            clip = parse(row)
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


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    """Line number (the header is 1) and values of each row; strings throughout."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [key for key in columns if key not in (reader.fieldnames or ())]
            if missing:
                raise TableError(
                    f"{table}: no column '{missing[0]}'; there are "
                    f"{', '.join(reader.fieldnames or ()) or 'none'}"
                )
            for row in reader:
                values = {key: value for key, value in row.items() if key is not None}
                if None in row or None in values.values():
                    raise TableError(
                        f"{table}: row {reader.line_num}: not as many cells as the header has; "
                        f"quote cells that hold commas"
                    )
                yield reader.line_num, {k: v.replace("\0", "") for k, v in values.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{table}: not a UTF-8 CSV file ({error})") from None


def _label(cell: str) -> float:
    """A number, or NaN where the cell is empty: an utterance to predict, not to learn from."""
    if not cell.strip():
        return math.nan
    try:
        label = float(cell)
    except ValueError:
        raise ValueError(f"label '{cell}' is no number") from None
    if not math.isfinite(label):
        raise ValueError(f"label '{cell}' must be finite; leave it empty where it is unknown")
    return label


def _split(cell: str) -> str:
    if cell not in SPLITS:
        raise ValueError(f"split '{cell}' must be one of {', '.join(SPLITS)}")
    return cell


def _media_file(folder: Path, stem: str) -> Path:
    """`<stem>.mp4`, or where that is missing the file of that stem with another media suffix."""
    candidates = [folder / f"{stem}{suffix}" for suffix in MEDIA_SUFFIXES]
    return next((path for path in candidates if path.exists()), candidates[0])
