"""Utterances of videos and their scores; and what `clipmsa predict --json` printed, read back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval
from pydantic import TypeAdapter

from clipmsa.cache.checked import LARGEST, Number, one_line
from clipmsa.cache.errors import TableError
from clipmsa.cache.frames import Framed
from clipmsa.cache.spec import MODALITIES
from clipmsa.cache.texts import read_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ScoredUtterance:
    """One utterance of a video and what models say of it; or the error that prevented it.

    Times are in seconds of the file; `scores.Prediction` says what the score's parts are.
    """

    file: str
    start: Annotated[float, Interval(ge=0, le=LARGEST)]
    end: Number  # None where only text was asked for
    text: str
    score: Number = None  # in [-3, 3] like the labels, as predicted: it may lie beyond
    word: str | None = None
    spread: Number = None  # over the seeds' models; None of one model
    contributions: dict[str, Annotated[float, Interval(ge=-LARGEST, le=LARGEST)]] | None = (
        None  # by modality
    )
    missing: tuple[str, ...] = ()  # modalities
    faces: int | None = None  # pictures with a face, of
    frames: int | None = None  # so many that were looked at
    untrained: tuple[str, ...] = ()  # streams whose encoders have random weights
    error: str | None = None


class Scores(list[ScoredUtterance], Framed):
    """Scored utterances, in order."""

    def __repr__(self) -> str:
        failed = sum(row.error is not None for row in self)
        utterances = "1 utterance" if len(self) == 1 else f"{len(self)} utterances"
        return f"Scores({utterances}{f', {failed} failed' if failed else ''})"

    def to_frame(self) -> pd.DataFrame:
        """A row an utterance; what each modality gave is `contribution_<modality>`."""
        import pandas as pd

        rows = []
        for values in map(asdict, self):
            given = values.pop("contributions") or {}
            rows.append(values | {f"contribution_{m}": given.get(m) for m in MODALITIES})
        return pd.DataFrame(rows)


_ROW = TypeAdapter(ScoredUtterance)
_KNOWN = {field.name for field in fields(ScoredUtterance)}


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
                **{key: value for key, value in values.items() if key in _KNOWN},
                "end": values.get("end"),
                "text": values.get("text") or "",
                "missing": values.get("missing") or (),
                "untrained": values.get("untrained") or (),
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TableError(
            f"{path}: line {number}: not a row of `clipmsa predict --json` ({one_line(error)})"
        ) from None
