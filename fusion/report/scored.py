"""What `clipmsa predict --json` printed, read back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipmsa.cache.errors import TableError
from clipmsa.cache.texts import read_text


@dataclass(frozen=True)
class ScoredUtterance:
    """A row: times in seconds, and the score, or the error in its place."""

    file: str
    start: float
    end: float | None
    text: str
    score: float | None
    word: str | None
    spread: float | None  # over the seeds' models
    moved: dict[str, float]  # contribution by modality
    missing: tuple[str, ...]  # modalities
    untrained: tuple[str, ...]  # streams
    error: str | None


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
        return ScoredUtterance(
            file=str(values["file"]),
            start=float(values["start"]),
            end=_number(values.get("end")),
            text=str(values.get("text") or ""),
            score=_number(values.get("score")),
            word=values.get("word"),
            spread=_number(values.get("spread")),
            moved={key: float(v) for key, v in (values.get("contributions") or {}).items()},
            missing=tuple(values.get("missing") or ()),
            untrained=tuple(values.get("untrained") or ()),
            error=values.get("error"),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TableError(
            f"{path}: line {number}: not a row of `clipmsa predict --json` ({error!r})"
        ) from None


def _number(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return None if math.isnan(number) else number
