"""What the page of `clipmsa app` shows of scores and errors: plain values, without Gradio."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plotly.graph_objects import Figure

from clipmsa.cache.errors import ClipmsaError, MediaError, SubtitleError
from clipmsa.fusion.analysis.scored import ScoredUtterance
from clipmsa.fusion.report.charts_timeline import timeline
from clipmsa.terminal import note

COLUMNS = {  # and how wide they are
    **{"from": 70, "to": 70, "text": 340, "score": 75, "±": 65, "in words": 150},
    **{"text gave": 85, "audio gave": 85, "vision gave": 85, "faces": 85},
}


def draw(rows: Sequence[ScoredUtterance]) -> Figure:
    """The report's timeline of the rows; the chart of none where there is no score."""
    chart = timeline([row for row in rows if row.score is not None])
    return chart.figure.update_layout(height=chart.height)


def cells(row: ScoredUtterance) -> list[Any]:
    """A row of the table, under `COLUMNS`."""
    if row.error is not None:
        return [row.start, row.end, _without_folders(row.error, row.file), *[None] * 7]
    given = row.contributions or {}
    return [
        row.start,
        row.end,
        row.text,
        _rounded(row.score),
        _rounded(row.spread),
        row.word,
        *(_rounded(given.get(modality)) for modality in ("text", "audio", "vision")),
        "" if row.faces is None else f"{row.faces}/{row.frames}",
    ]


def notes(rows: Sequence[ScoredUtterance]) -> str:
    """What to know of the table, in Markdown."""
    said = []
    if wordless := sum("text" in row.missing for row in rows):
        said.append(f"{wordless} of {len(rows)} scored without text, from sound and picture alone.")
    if untrained := sorted({stream for row in rows for stream in row.untrained}):
        names = in_markdown(", ".join(untrained))
        said.append(f"**Untrained encoders** ({names}): these scores say nothing.")
    return "  \n".join(said)


def told(error: ClipmsaError, *files: str | None) -> str:
    """An error for the page, as HTML: of the files that were sent, by their names alone.

    What it says of this machine, as where weights are missing, is for the terminal.
    """
    if not isinstance(error, MediaError | SubtitleError):
        note("[bold red]error:[/] {}", error)
        return "It cannot be done here; the terminal that serves this page says why."
    return html.escape(_without_folders(str(error), *files))


def in_markdown(text: str) -> str:
    """Text that stands for itself in Markdown, and in the HTML that Markdown may hold."""
    return re.sub(r"([^\w\s&;]|_)", r"\\\1", html.escape(text, quote=False))


def _without_folders(text: str, *files: str | None) -> str:
    for file in filter(None, files):
        text = text.replace(file, Path(file).name)
    return text


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
