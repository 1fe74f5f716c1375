"""The chart of a scored video: its utterances over time."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from clipmsa.fusion.analysis.scored import ScoredUtterance

from .chart import CLASSES, GREY, INK, RED, TEAL, Chart, hover_text, plane
from .numerals import clock, signed


def timeline(rows: list[ScoredUtterance]) -> Chart:
    """Score over time, a bar an utterance as wide as it is long; a line shows where the video is.

    The bars' customdata is where they start, in seconds.
    """
    # Of unknown length, where only text was asked for: a second.
    spans = [(row.start, row.start + 1 if row.end is None else row.end) for row in rows]
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
    length = max((end for _, end in spans), default=1.0)
    reach = max([3.0, *(abs(s) + (row.spread or 0) for s, row in zip(scores, rows, strict=True))])
    figure = plane([bars], "", "score")
    ticks = clock_ticks(length)
    figure.update_xaxes(range=[0, length], tickvals=ticks, ticktext=[clock(t) for t in ticks])
    figure.update_yaxes(range=[-1.1 * reach, 1.1 * reach], tickvals=CLASSES, zeroline=True)
    figure.add_vline(x=0, line={"color": GREY, "width": 2})
    return Chart("Score over time", "A click on a bar goes there in the video.", figure, 240)


def clock_ticks(length: float) -> list[int]:
    """Round times from 0 to `length` seconds, seven at most.

    >>> clock_ticks(19.2), clock_ticks(400)
    ([0, 5, 10, 15], [0, 60, 120, 180, 240, 300, 360])
    """
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
    step = next((s for s in steps if length / s < 7), 3600 * math.ceil(length / 3600 / 7))
    return list(range(0, math.floor(length) + 1, step))
