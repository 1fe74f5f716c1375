"""What the page of `clipmsa app` shows of scores and errors: plain values, without Gradio."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from clipmsa.cache.errors import ClipmsaError, MediaError, SubtitleError
from clipmsa.scoring import Row

from .console import note

COLUMNS = {  # and how wide they are
    **{"from": 70, "to": 70, "text": 340, "score": 75, "±": 65, "in words": 150},
    **{"text gave": 85, "audio gave": 85, "vision gave": 85, "faces": 85},
}


def draw(rows: Sequence[Row]) -> Figure:
    """Scores over time: a bar an utterance, as long as it lasts, with the spread over the seeds."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if row.score is not None:
            end = row.start + 1 if row.end is None else row.end
            colour = "#2f7d4f" if row.score >= 0 else "#b3423a"
            axes.bar(
                row.start,
                row.score,
                end - row.start,
                align="edge",
                color=colour,
                yerr=row.spread,
                ecolor="#555555",
                capsize=3,
            )
    axes.axhline(0, color="#555555", linewidth=0.8)
    reach = max([3.0, *(abs(row.score) + (row.spread or 0) for row in rows if row.score)])
    axes.set(xlabel="seconds", ylabel="score", ylim=(-reach, reach))
    return figure


def cells(row: Row) -> list[Any]:
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


def notes(rows: Sequence[Row]) -> str:
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
