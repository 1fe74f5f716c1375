"""Charts of runs: how they learnt, what they predict, and how they compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from clipmsa.fusion.experiments.run_folder import Curve, RunRecord
from clipmsa.fusion.metrics.bootstrap import Difference
from clipmsa.fusion.metrics.regression import LOWER_IS_BETTER, METRICS

from .chart import (
    BLUE,
    CLASS_TICKS,
    CLASSES,
    GREY,
    ORANGE,
    RED,
    SERIES,
    TEAL,
    TO_BLUE,
    Chart,
    Floats,
    changes,
    colour_bar,
    hover_text,
    label_classes,
    listed,
    listed_height,
    plane,
    signed_axis,
    whiskers,
)
from .numerals import signed


def learning_curves(curves: Sequence[Curve]) -> list[Chart]:
    """Training loss and validation MAE over epochs, a line a seed, the kept epoch marked."""
    losses, maes = [], []
    for place, curve in enumerate(curves):
        colour, name = SERIES[place % len(SERIES)], f"seed {curve.seed}"
        common = {
            "x": curve.epochs,
            "mode": "lines",
            "line": {"color": colour, "width": 2},
            "name": name,
            "legendgroup": name,
            "hovertemplate": "epoch %{x}: %{y:.3f}",
        }
        kept = go.Scatter(
            x=[curve.epochs[curve.best]],
            y=[curve.valid_mae[curve.best]],
            name=name,
            legendgroup=name,
            showlegend=False,
            mode="markers",
            marker={"size": 10, "color": colour},
            hovertemplate="kept: epoch %{x}, MAE %{y:.3f}",
        )
        losses.append(go.Scatter(y=curve.train_loss, **common))
        maes += [go.Scatter(y=curve.valid_mae, **common), kept]
    return [
        Chart(
            "Training loss",
            "SmoothL1 on the training split.",
            plane(losses, "epoch", "loss", legend=True),
        ),
        Chart(
            "Validation MAE",
            "A dot is the epoch that was kept: the lowest of its seed.",
            plane(maes, "epoch", "MAE", legend=True),
        ),
    ]


def predicted_against_true(
    ids: Sequence[str], texts: Sequence[str], labels: Floats, predictions: Floats
) -> Chart:
    """A point an utterance, coloured by how far off it is; its customdata is the id."""
    error = np.abs(predictions - labels)
    points = go.Scatter(
        x=labels,
        y=predictions,
        mode="markers",
        marker={
            "size": 9 if len(ids) < 1000 else 5,
            "opacity": 0.8,
            "color": error,
            "colorscale": ((0, BLUE), (1, RED)),
            "cmin": 0,
            "cmax": max(2.0, float(error.max())),
            "colorbar": colour_bar("error"),
        },
        customdata=list(ids),
        text=[hover_text(id_, text) for id_, text in zip(ids, texts, strict=True)],
        hovertemplate="%{text}<br>label %{x:.2f}, predicted %{y:.2f}<extra></extra>",
    )
    figure = plane([_identity(), points], "label", "predicted")
    figure.update_xaxes(range=[-3.3, 3.3], tickvals=CLASSES)
    low, high = float(min(predictions.min(), -3)), float(max(predictions.max(), 3))
    figure.update_yaxes(range=[low - 0.3, high + 0.3])
    return Chart(
        "Predicted against true",
        "Mean over seeds. On the dotted line a prediction is right; a click finds the utterance "
        "in the table below.",
        figure,
        380,
    )


def residuals(labels: Floats, predictions: Floats) -> Chart:
    """How often predictions are too low or too high, and by how much."""
    error = predictions - labels
    reach = max(1.0, float(np.ceil(2 * np.abs(error).max()) / 2))
    counts, edges = np.histogram(error, np.linspace(-reach, reach, 25))
    bars = go.Bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=counts,
        width=np.diff(edges) * 0.92,
        marker={"color": BLUE, "opacity": 0.8},
        hovertemplate="off by about %{x:.2f}: %{y}<extra></extra>",
    )
    figure = plane([bars], "predicted minus label", "utterances")
    figure.update_xaxes(zeroline=True, zerolinewidth=2)
    figure.update_yaxes(dtick=1 if counts.max() < 6 else None)  # no half utterances
    figure.add_vline(x=float(error.mean()), line={"color": ORANGE, "width": 2, "dash": "dot"})
    return Chart(
        "Residuals",
        f"Left of 0 too negative, right of it too positive. The dotted line is the mean, "
        f"{signed(float(error.mean()), 3)}.",
        figure,
        380,
    )


def confusion(labels: Floats, predictions: Floats) -> Chart:
    """Seven classes, as Acc-7 rounds: counts, shaded by the share of the true class."""
    counts = np.zeros((7, 7), int)
    np.add.at(counts, (label_classes(labels) + 3, label_classes(predictions) + 3), 1)
    cells = go.Heatmap(
        z=counts / np.maximum(counts.sum(axis=1, keepdims=True), 1),
        x=CLASSES,
        y=CLASSES,
        text=np.where(counts > 0, counts.astype(str), ""),
        texttemplate="%{text}",
        colorscale=TO_BLUE,
        zmin=0,
        zmax=1,
        xgap=2,
        ygap=2,
        showscale=False,
        hovertemplate="true %{y}, predicted %{x}: %{text} (%{z:.0%} of the class)<extra></extra>",
    )
    figure = plane([cells], "predicted class", "true class")
    figure.update_xaxes(showgrid=False, **CLASS_TICKS)
    figure.update_yaxes(showgrid=False, autorange="reversed", **CLASS_TICKS)
    return Chart(
        "Confusion of the seven classes",
        "From -3, strongly negative, to +3, strongly positive. Numbers are utterances, shade is "
        "the share of the row.",
        figure,
        380,
    )


def calibration(labels: Floats, predictions: Floats) -> Chart:
    """Mean prediction of the utterances of each label class, with a 95 % interval."""
    classes = label_classes(labels)
    groups = [classes == c for c in CLASSES if (classes == c).any()]
    parts = [predictions[group] for group in groups]
    half = [1.96 * p.std(ddof=1) / np.sqrt(len(p)) if len(p) > 1 else None for p in parts]
    means = go.Scatter(
        x=[float(labels[group].mean()) for group in groups],
        y=[float(part.mean()) for part in parts],
        error_y={"array": half, "color": BLUE, "thickness": 2, "width": 4},
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={"size": 9},
        text=[str(len(part)) for part in parts],
        hovertemplate="mean label %{x:.2f}, mean prediction %{y:.2f}, %{text} utterances"
        "<extra></extra>",
    )
    figure = plane([_identity(), means], "mean label of the class", "mean prediction")
    figure.update_xaxes(range=[-3.3, 3.3], tickvals=CLASSES)
    return Chart(
        "Calibration",
        "Flatter than the dotted line: predictions keep too close to neutral. Whiskers are 95 % "
        "intervals of the mean.",
        figure,
        380,
    )


def comparison(records: Sequence[RunRecord], names: Sequence[str], key: str) -> Chart:
    """One metric of several runs: mean over seeds, and its interval over utterances."""
    found = [record.score(key) for record in records]
    bars = go.Bar(
        y=list(range(len(records))),
        x=[score.mean for score in found],
        orientation="h",
        marker={"color": [BLUE, *[GREY] * (len(records) - 1)], "opacity": 0.6},
        error_x=whiskers(*zip(*((score.mean, *score.ci95) for score in found), strict=True)),
        customdata=[[score.std, *score.ci95] for score in found],
        hovertemplate="%{x:.3f} ± %{customdata[0]:.3f}, "
        "95 % %{customdata[1]:.3f} .. %{customdata[2]:.3f}<extra></extra>",
    )
    better = "Lower is better." if key in LOWER_IS_BETTER else "Higher is better."
    return Chart(METRICS[key], better, listed([bars], names), listed_height(names))


def differences(names: Sequence[str], found: Sequence[Difference]) -> Chart:
    """MAE of other runs minus that of the first."""
    colours = [RED if d.low > 0 else TEAL if d.high < 0 else GREY for d in found]
    marker = {"size": 10, "color": colours}
    points = go.Scatter(mode="markers", marker=marker, **changes(found))
    figure = listed([points], names)
    signed_axis(figure)
    return Chart(
        "MAE minus the first run's",
        "Paired bootstrap over utterances. Grey: the interval holds 0, no difference is shown. "
        "Red is worse than the first run, green better.",
        figure,
        listed_height(names),
    )


def _identity() -> go.Scatter:
    line = {"color": GREY, "width": 1.5, "dash": "dot"}
    return go.Scatter(x=[-3, 3], y=[-3, 3], mode="lines", line=line, hoverinfo="skip")
