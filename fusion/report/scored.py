"""Scored videos, as `clipmsa predict --json` writes them, and the chart of each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from clipmsa.cache.errors import TableError

from .chart import CLASSES, GREY, INK, RED, TEAL, Chart, hover_text, plane, signed


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


@dataclass(frozen=True)
class ScoredVideo:
    """A file's utterances in order of time; `source` is its address from the page, None if gone."""

    file: str
    source: str | None
    utterances: list[ScoredUtterance]
    charts: list[Chart]
    summary: str


@dataclass(frozen=True)
class ScoredVideos:
    """All that a page on predictions shows."""

    path: Path
    videos: list[ScoredVideo]
    untrained: list[str]


def scored_videos(path: Path, source: Callable[[str], str | None]) -> ScoredVideos:
    """Read a file of JSON lines.

    Args:
        path: what `clipmsa predict --json` printed.
        source: gives the address under which the page finds a video file, None if it is not there.

    Raises:
        TableError: a line is no such row; the message names it.
    """
    by_file: dict[str, list[ScoredUtterance]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            row = _row(path, number, line)
            by_file.setdefault(row.file, []).append(row)
    if not by_file:
        raise TableError(f"{path}: holds no row; `clipmsa predict --json` writes them")
    videos = []
    for file, rows in by_file.items():
        rows.sort(key=lambda row: row.start)
        there = source(file)
        shown = [row for row in rows if row.score is not None and row.end is not None]
        charts = [timeline(shown)] if shown else []
        videos.append(ScoredVideo(file, there, rows, charts, _summary(rows)))
    untrained = {name for rows in by_file.values() for row in rows for name in row.untrained}
    return ScoredVideos(path, videos, sorted(untrained))


def timeline(rows: list[ScoredUtterance]) -> Chart:
    """Score over time, a bar an utterance as wide as it is long; a line shows where the video is.

    The bars' customdata is where they start, in seconds.
    """
    spans = [(row.start, row.start if row.end is None else row.end) for row in rows]
    scores = [math.nan if row.score is None else row.score for row in rows]
    bars = go.Bar(
        x=[(start + end) / 2 for start, end in spans],
        width=[0.97 * (end - start) for start, end in spans],
        y=scores,
        error_y={
            "array": [row.spread or 0.0 for row in rows],
            "color": INK,
            "thickness": 1.5,
            "width": 4,
        },
        # As the classes are named: from -0.5 to 0.5 is neutral.
        marker={
            "color": [RED if s < -0.5 else TEAL if s > 0.5 else GREY for s in scores],
            "opacity": 0.85,
        },
        customdata=[start for start, _ in spans],
        hovertext=[
            hover_text(f"{signed(score)} {row.word}", row.text)
            for row, score in zip(rows, scores, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    length = max(end for _, end in spans)
    figure = plane([bars], "", "score")
    ticks = clock_ticks(length)
    figure.update_xaxes(range=[0, length], tickvals=ticks, ticktext=[clock(t) for t in ticks])
    figure.update_yaxes(range=[-3.3, 3.3], tickvals=CLASSES, zeroline=True)
    figure.add_vline(x=0, line={"color": GREY, "width": 2})
    return Chart("Score over time", "A click on a bar goes there in the video.", figure, 240)


def clock(seconds: float) -> str:
    """
    >>> clock(0), clock(75), clock(3675)
    ('0:00', '1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def clock_ticks(length: float) -> list[int]:
    """Round times from 0 to `length` seconds, seven at most.

    >>> clock_ticks(19.2), clock_ticks(400)
    ([0, 5, 10, 15], [0, 60, 120, 180, 240, 300, 360])
    """
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
    step = next((s for s in steps if length / s < 7), 3600 * math.ceil(length / 3600 / 7))
    return list(range(0, math.floor(length) + 1, step))


def _summary(rows: list[ScoredUtterance]) -> str:
    scores = [row.score for row in rows if row.score is not None]
    failed = len(rows) - len(scores)
    said = f"{len(rows)} utterance{'s' if len(rows) > 1 else ''}"
    if len(scores) > 1:
        mean = signed(sum(scores) / len(scores))
        said += f", {mean} on average, from {signed(min(scores))} to {signed(max(scores))}"
    return f"{said}, {failed} failed" if failed else said


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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(
            f"{path}: line {number}: not a row of `clipmsa predict --json` ({error!r})"
        ) from None


def _number(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return None if math.isnan(number) else number
