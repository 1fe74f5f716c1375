"""Charts of what moved scores: modalities, frames, and co-attention maps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from clipmsa.fusion.metrics.bootstrap import Difference
from clipmsa.fusion.networks.coattention import CoAttentionMap

from .chart import (
    BLUE,
    CLASSES,
    ORANGE,
    RED,
    TEAL,
    Chart,
    Floats,
    changes,
    colour_bar,
    label_classes,
    listed,
    plane,
    signed_axis,
)
from .numerals import signed

# Ticks of a map's scale, where 1 is as often as attending to all elements alike.
_TIMES = (
    *(2.0**-n for n in range(8, 0, -1)),
    0.7,
    0.85,
    1,
    1.2,
    1.5,
    *(2.0**n for n in range(1, 9)),
)
COLOURS = {"text": BLUE, "audio": ORANGE, "vision": TEAL}


def withheld_mae(rises: Mapping[str, Difference]) -> Chart:
    """How much the test MAE rises when a modality is withheld."""
    modalities = list(rises)
    marker = {"color": [COLOURS[modality] for modality in modalities], "opacity": 0.85}
    bars = go.Bar(orientation="h", marker=marker, **changes(list(rises.values())))
    figure = listed([bars], modalities)
    signed_axis(figure)
    return Chart(
        "Rise of the test MAE without a modality",
        "Withheld from the trained models; whiskers are 95 % intervals, paired over utterances.",
        figure,
        300,
    )


def contributions_by_label(labels: Floats, moved: Mapping[str, Floats]) -> Chart:
    """How far each modality moves the score, averaged over the utterances of a label class."""
    classes = label_classes(labels)
    there = [c for c in CLASSES if (classes == c).any()]
    lines = [
        go.Scatter(
            x=there,
            y=[float(moves[classes == c].mean()) for c in there],
            name=modality,
            mode="lines+markers",
            line={"color": COLOURS[modality], "width": 2},
            marker={"size": 8},
            hovertemplate="label %{x:+d}: moved by %{y:+.2f}",
        )
        for modality, moves in moved.items()
    ]
    figure = plane(lines, "label, rounded", "mean contribution", legend=True)
    figure.update_xaxes(range=[-3.3, 3.3], tickvals=CLASSES)
    figure.update_yaxes(zeroline=True)
    return Chart(
        "Contribution by label",
        "Score minus the score without the modality. What rises with the label moves scores the "
        "right way.",
        figure,
        300,
    )


def utterance_contributions(moved: Mapping[str, float]) -> Chart:
    """One utterance: how far each modality moves its score."""
    bars = go.Bar(
        y=list(range(len(moved))),
        x=list(moved.values()),
        orientation="h",
        marker={"color": [COLOURS[modality] for modality in moved], "opacity": 0.85},
        hovertemplate="moves the score by %{x:+.2f}<extra></extra>",
    )
    figure = listed([bars], list(moved))
    signed_axis(figure)
    return Chart("Modalities", "How far each moves the score.", figure, 220)


def frame_contributions(stream: str, moved: Floats, reach: float) -> Chart:
    """One utterance and stream: how far each frame moves the score, on an axis to +-`reach`."""
    bars = go.Bar(
        x=list(range(1, len(moved) + 1)),
        y=moved,
        marker={"color": [TEAL if change > 0 else RED for change in moved], "opacity": 0.85},
        hovertemplate="frame %{x} moves the score by %{y:+.4f}<extra></extra>",
    )
    figure = plane([bars], "frame", "")
    figure.update_yaxes(zeroline=True, range=[-reach, reach], tickformat="+.2~f")
    return Chart(f"Frames of {stream}", "How far each frame moves the score.", figure, 220)


def attention(found: CoAttentionMap) -> Chart:
    """A CT unit's map, mean over heads, elements sorted by value, on a logarithmic scale.

    Elements of a learned vector have no order of their own. A weight depends on the two values
    alone, so sorted by value a map is smooth, and shows at which values the unit looks.
    """
    rows, columns = found.x_1.argsort(), found.x_2.argsort()
    d = len(found.x_1)
    times = (found.weights.mean(0)[rows][:, columns] * d).numpy().astype(np.float32)
    doublings = np.log2(times)
    shown = [t for t in _TIMES if doublings.min() <= np.log2(t) <= doublings.max()]
    cells = go.Heatmap(
        z=doublings,
        colorscale="Viridis",
        colorbar={
            **colour_bar(""),
            "tickvals": [float(np.log2(t)) for t in shown],
            "ticktext": [f"× {t:g}" for t in shown],
        },
        text=times,
        hovertemplate="%{text:.2f} times as often as alike<extra></extra>",
    )
    asking, asked = (name.replace("+", " with ") for name in (found.asking, found.asked))
    figure = plane([cells], f"element of {asked}, by value", f"element of {asking}, by value")
    ends = [0, d // 2, d - 1]
    for axis, values in (
        (figure.layout.xaxis, found.x_2[columns]),
        (figure.layout.yaxis, found.x_1[rows]),
    ):
        ticks = [signed(float(values[end]), 1) for end in ends]
        axis.update(tickvals=ends, ticktext=ticks, showgrid=False)
    return Chart(f"{asking.capitalize()} attends to {asked}", "", figure, 340)
