"""What `clipmsa predict --json` printed, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval
from pydantic import TypeAdapter

from clipmsa.cache.checked import LARGEST, Number, one_line
from clipmsa.cache.errors import TableError
from clipmsa.cache.texts import read_text


@dataclass(frozen=True)
class ScoredUtterance:
    """A row: times in seconds, and the score, or the error in its place."""

    file: str
    start: Annotated[float, Interval(ge=0, le=LARGEST)]
    end: Number
    text: str
    score: Number
    word: str | None
    spread: Number  # over the seeds' models
    moved: dict[str, Annotated[float, Interval(ge=-LARGEST, le=LARGEST)]]  # by modality
    missing: tuple[str, ...]  # modalities
    untrained: tuple[str, ...]  # streams
    error: str | None


_ROW = TypeAdapter(ScoredUtterance)


def read_scored(path: Path) -> dict[str, list[ScoredUtterance]]:
    """The utterances of each file, in order of time.

    Raises:
        TableError: a line is no such row; the message names it.
    """
    by_file: dict[str, list[ScoredUtterance]] = {}
    text = read_text(path, TableError, "the rows that `clipmsa predict --json` prints")
    for number, line in enumerate(text.split("\n"), 1):  # JSON may hold what else ends a line
        if line.strip():
            row = _row(path, number, line)
            by_file.setdefault(row.file, []).append(row)
    if not by_file:
        raise TableError(f"{path}: holds no row; `clipmsa predict --json` writes them")
    for rows in by_file.values():
        rows.sort(key=lambda row: row.start)
    return by_file


def _row(path: Path, number: int, line: str) -> ScoredUtterance:
    try:
        values: dict[str, Any] = json.loads(line)
        return _ROW.validate_python(
            {
                **{key: values.get(key) for key in ("end", "score", "word", "spread", "error")},
                "file": values["file"],
                "start": values["start"],
                "text": values.get("text") or "",
                "moved": values.get("contributions") or {},
                "missing": values.get("missing") or (),
                "untrained": values.get("untrained") or (),
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TableError(
            f"{path}: line {number}: not a row of `clipmsa predict --json` ({one_line(error)})"
        ) from None
