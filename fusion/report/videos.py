"""What a page on scored videos shows; page.py makes HTML of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clipmsa.fusion.analysis.scored import ScoredUtterance, read_scored

from .chart import Chart
from .charts_timeline import timeline
from .numerals import signed


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
    """Read a file of JSON lines and compute what a page on it shows.

    Args:
        path: what `clipmsa predict --json` printed.
        source: gives the address under which the page finds a video file, None if it is not there.

    Raises:
        TableError: a line is no such row; the message names it.
    """
    by_file = read_scored(path)
    videos = []
    for file, rows in by_file.items():
        there = source(file)
        shown = [row for row in rows if row.score is not None]
        charts = [timeline(shown)] if shown else []
        videos.append(ScoredVideo(file, there, rows, charts, _summary(rows)))
    untrained = {name for rows in by_file.values() for row in rows for name in row.untrained}
    return ScoredVideos(path, videos, sorted(untrained))


def _summary(rows: list[ScoredUtterance]) -> str:
    scores = [row.score for row in rows if row.score is not None]
    failed = len(rows) - len(scores)
    said = f"{len(rows)} utterance{'s' if len(rows) > 1 else ''}"
    if len(scores) > 1:
        mean = signed(sum(scores) / len(scores))
        said += f", {mean} on average, from {signed(min(scores))} to {signed(max(scores))}"
    return f"{said}, {failed} failed" if failed else said
