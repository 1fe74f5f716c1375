"""The page of `clipmsa app`, in Gradio; apart because Gradio need not be installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio
from plotly.graph_objects import Figure

from clipmsa.cache.errors import ClipmsaError
from clipmsa.extract.transcripts.cut import Script
from clipmsa.extract.transcripts.subtitles import SUFFIXES, read_subtitles
from clipmsa.fusion.analysis.scored import ScoredUtterance
from clipmsa.scoring import Scorer

from .app_rows import COLUMNS, cells, draw, in_markdown, notes, told


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
            headers=list(COLUMNS),
            column_widths=list(COLUMNS.values()),
            label="Utterances; choose one to see it",
            interactive=False,
            wrap=True,
        )
        outputs = [plot, table, remarks]
        button.click(score, [video, text, subtitles, transcribe], outputs, api_name="score")
        table.select(seek, table, video, api_visibility="private")
    return page
