"""What the report's charts share: colours, axes, whiskers, and escaping.

Colours read on light and on dark; the page's style sheet sets the ink of texts. Plotly reads tags
in labels as markup, so every text that comes from data goes through `escape` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from clipmsa.fusion.metrics.bootstrap import Difference

Floats = NDArray[np.float64]

BLUE, ORANGE, TEAL = "#3b82f6", "#e0761a", "#129a8a"
VIOLET, RED, GREY = "#8b5cf6", "#e5484d", "#868d98"
SERIES = (BLUE, ORANGE, TEAL, VIOLET, RED)
TO_BLUE = ((0, "rgba(59,130,246,0)"), (1, "rgba(59,130,246,0.8)"))
CLASSES = tuple(range(-3, 4))
CLASS_TICKS = {"tickvals": CLASSES, "ticktext": [f"{c:+d}" if c else "0" for c in CLASSES]}
# Where no style sheet reaches, in pictures saved from a chart, a grey that reads on both.
INK, _LINE = "#6b7280", "rgba(128,134,145,0.22)"


@dataclass(frozen=True)
class Chart:
    """A figure with its heading, a sentence on how to read it, and its height in pixels."""

    title: str
    note: str
    figure: go.Figure
    height: int = 320


def plane(traces: Sequence[Any], x: str, y: str, legend: bool = False) -> go.Figure:
    """A figure with two titled axes, on no background, that a scrolling finger cannot zoom."""
    axis = {
        "gridcolor": _LINE,
        "linecolor": _LINE,
        "zerolinecolor": _LINE,
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
    }
    return go.Figure(
        list(traces),
        {
            "template": None,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "xaxis": {**axis, "title": {"text": x, "standoff": 8} if x else None},
            "yaxis": {**axis, "title": {"text": y, "standoff": 8} if y else None},
            "showlegend": legend,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "hoverlabel": {"align": "left"},
            "bargap": 0.3,
        },
    )


def listed(traces: Sequence[Any], names: Sequence[str]) -> go.Figure:
    """Horizontal bars or dots at 0, 1, ..., with their names at the left, the first on top."""
    figure = plane(traces, "", "")
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[escape(name) for name in names],
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
    )
    return figure


def listed_height(names: Sequence[str]) -> int:
    """Pixels for that many names."""
    return 64 + 34 * len(names)


def signed_axis(figure: go.Figure) -> None:
    """Values along x are differences: show their sign, and where 0 is."""
    figure.update_xaxes(zeroline=True, zerolinewidth=2, tickformat="+.2f")


def whiskers(
    middle: Sequence[float], low: Sequence[float], high: Sequence[float]
) -> dict[str, Any]:
    """Intervals along x."""
    return {
        "type": "data",
        "array": np.subtract(high, middle),
        "arrayminus": np.subtract(middle, low),
        "color": INK,
        "thickness": 1.5,
        "width": 4,
    }


def changes(found: Sequence[Difference]) -> dict[str, Any]:
    """Differences along x, one below the other: places, intervals, and what hovering tells."""
    mean, low, high, p = zip(*found, strict=True)
    return {
        "x": mean,
        "y": list(range(len(found))),
        "error_x": whiskers(mean, low, high),
        "customdata": np.stack([low, high, p], axis=1),
        "hovertemplate": "%{x:+.3f}, 95 % %{customdata[0]:+.3f} .. %{customdata[1]:+.3f}, "
        "p = %{customdata[2]:.3f}<extra></extra>",
    }


def colour_bar(title: str) -> dict[str, Any]:
    """A colour scale beside the chart."""
    return {"thickness": 8, "outlinewidth": 0, "title": {"text": title, "side": "right"}}


def label_classes(labels: Floats) -> NDArray[np.int64]:
    """The seven classes of Acc-7: rounded, halves to even."""
    classes: NDArray[np.int64] = np.round(np.clip(labels, -3, 3)).astype(np.int64)
    return classes


def hover_text(id_: str, text: str) -> str:
    """An utterance in a few short lines, with what would be markup escaped."""
    lines = wrap(text, 48, max_lines=4, placeholder=" ...")
    return "<br>".join([f"<b>{escape(id_)}</b>", *map(escape, lines)])
