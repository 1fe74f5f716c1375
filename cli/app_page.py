"""The page of `clipmsa app`, in Gradio; apart because Gradio need not be installed."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio
from plotly.graph_objects import Figure

from clipmsa.cache.errors import ClipmsaError, MediaError, SubtitleError
from clipmsa.extract.transcripts.cut import Script
from clipmsa.extract.transcripts.subtitles import SUFFIXES, read_subtitles
from clipmsa.fusion.analysis.scored import ScoredUtterance
from clipmsa.fusion.report.charts_timeline import timeline
from clipmsa.scoring import Scorer
from clipmsa.terminal import note

_COLUMNS = {  # and how wide they are
    **{"from": 70, "to": 70, "text": 340, "score": 75, "±": 65, "in words": 150},
    **{"text gave": 85, "audio gave": 85, "vision gave": 85, "faces": 85},
}


def build(scorer: Scorer) -> gradio.Blocks:
    """The page, a Gradio Blocks: one form, one timeline, one table; its API is `/score`."""

    def score(
        video: str | None, text: str, subtitles: str | None, transcribe: bool
    ) -> Iterator[tuple[Figure, list[list[Any]], str]]:
        if video is None:
            raise gradio.Error("Choose a video first.", print_exception=False)
        try:
            read = None if subtitles is None else read_subtitles(Path(subtitles))
            given = text.strip() or None if read is None else None
            heard = transcribe and not given and read is None
            rows: list[ScoredUtterance] = []
            for row in scorer.stream(Path(video), Script(given, read), transcribe=heard):
                rows.append(row)
                yield draw(rows), [cells(row) for row in rows], notes(rows)
        except ClipmsaError as error:
            raise gradio.Error(told(error, video, subtitles), print_exception=False) from None

    def seek(table: Any, event: gradio.SelectData) -> Any:
        return gradio.Video(playback_position=float(event.row_value[0]))

    page: gradio.Blocks = gradio.Blocks(title="clipmsa", fill_width=True, delete_cache=(3600, 3600))
    with page:
        name = scorer.models.path.resolve().name
        gradio.Markdown(f"## Sentiment of a video\nModel: {in_markdown(name)}")
        with gradio.Row():
            with gradio.Column(scale=2):
                video = gradio.Video(label="Video", sources=["upload", "webcam"])
                text = gradio.Textbox(label="What is said in it", lines=2)
                subtitles = gradio.File(
                    label="or its subtitles", file_types=list(SUFFIXES), height=140
                )
                transcribe = gradio.Checkbox(label="or hear it (English, wav2vec 2.0)")
                button = gradio.Button("Score", variant="primary")
            with gradio.Column(scale=3):
                plot = gradio.Plot(show_label=False)
                remarks = gradio.Markdown()
        table = gradio.Dataframe(
            headers=list(_COLUMNS),
            column_widths=list(_COLUMNS.values()),
            label="Utterances; choose one to see it",
            interactive=False,
            wrap=True,
        )
        outputs = [plot, table, remarks]
        button.click(score, [video, text, subtitles, transcribe], outputs, api_name="score")
        table.select(seek, table, video, api_visibility="private")
    return page


def draw(rows: Sequence[ScoredUtterance]) -> Figure:
    """The report's timeline of the rows; the chart of none where there is no score."""
    chart = timeline([row for row in rows if row.score is not None])
    return chart.figure.update_layout(height=chart.height)


def cells(row: ScoredUtterance) -> list[Any]:
    """A row of the table, under `_COLUMNS`."""
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
