"""How sure a metric is: intervals and paired differences by the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from .regression import METRICS, Floats, batched_metrics

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 5  # utterances that an interval can be drawn from


def bootstrap_intervals(
    preds: Floats, truth: Floats, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals over utterances of each metric's mean over seeds.

    `preds` is (seeds, n), `truth` (n,). Every resample draws n utterances with replacement, the
    same for all seeds, and averages the metric over the seeds. Of fewer than five utterances there
    is no interval: it would be narrow where nothing is known.
    """
    if len(truth) < FEWEST:
        return dict.fromkeys(METRICS, (math.nan, math.nan))
    samples = _resampled([preds], truth, resamples, seed)[0]
    return {key: _interval(values, (1 - level) / 2) for key, values in samples.items()}


def summary(preds: Floats, truth: Floats) -> dict[str, dict[str, Any]]:
    """By metric: mean and standard deviation over seeds, each seed's, 95 % bootstrap interval.

    `preds` is (seeds, n), `truth` (n,). The deviation is the population's, as in MMSA's tables.
    """
    intervals = bootstrap_intervals(preds, truth)
    per_seed = batched_metrics(preds, truth)
    return {
        key: {
            "mean": float(per_seed[key].mean()),
            "std": float(per_seed[key].std()),
            "per_seed": per_seed[key].tolist(),
            "ci95": list(intervals[key]),
        }
        for key in METRICS
    }


def summary_frame(found: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> pd.DataFrame:
    """What `summary` gives as a table, a row a metric; numbers that are None are NaN."""
    import pandas as pd

    rows = {
        metric: [row["mean"], row["std"], *row.get("ci95", (None, None)), *row["per_seed"]]
        for metric, row in found.items()
    }
    columns = ["mean", "std", "low", "high", *(f"seed_{seed}" for seed in seeds)]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
    return frame.rename_axis("metric")


class Difference(NamedTuple):
    """How much higher a metric is for one model than for another, over the same utterances."""

    mean: float
    low: float  # the interval's ends
    high: float
    p: float  # two-sided: how often chance alone would put the difference on either side of 0


def paired_differences(
    preds: Floats,
    baseline: Floats,
    truth: Floats,
    *,
    same_models: bool = False,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    """Paired bootstrap of each metric's mean over seeds: `preds` less `baseline`.

    Both are (seeds, n), with as many seeds as they have; `truth` is (n,). A resample is the same
    utterances for both, so what makes an utterance hard for either does not blur the difference.
    It draws seeds as well: trained again with other seeds, a model comes out better or worse, which
    with utterances alone would pass for a difference. They are drawn for each of the two by itself,
    unless both are the `same_models`, as with and without a modality. p is twice the smaller share
    of resamples on one side of 0, counted with one more on each side, since none of 1,000 is not
    never. Of fewer than five utterances, interval and p are NaN.
    """
    exact = [batched_metrics(p, truth) for p in (preds, baseline)]
    means = {key: float(exact[0][key].mean() - exact[1][key].mean()) for key in METRICS}
    if len(truth) < FEWEST:
        return {key: Difference(mean, math.nan, math.nan, math.nan) for key, mean in means.items()}
    here, there = _resampled(
        [preds, baseline], truth, resamples, seed, seeds="together" if same_models else "apart"
    )
    found = {}
    for key in METRICS:
        drawn = here[key] - there[key]
        low, high = _interval(drawn, (1 - level) / 2)
        known = drawn[~np.isnan(drawn)]
        tail = min((known <= 0).sum(), (known >= 0).sum())
        p = min(1.0, 2 * (tail + 1) / (known.size + 1)) if known.size else float("nan")
        found[key] = Difference(means[key], low, high, float(p))
    return found


def _resampled(
    models: Sequence[Floats],
    truth: Floats,
    resamples: int,
    seed: int,
    *,
    seeds: Literal["all", "apart", "together"] = "all",
) -> list[dict[str, Floats]]:
    """For each of some models, (seeds, n) each: metrics of every resample, (resamples,)."""
    generator = np.random.default_rng(seed)
    n = truth.shape[-1]
    samples: list[dict[str, list[Floats]]] = [{key: [] for key in METRICS} for _ in models]
    block = max(1, 4_000_000 // (n * max(map(len, models))))  # at once, in bounded memory
    for start in range(0, resamples, block):
        rows = generator.integers(0, n, (min(block, resamples - start), n))
        drawn = np.empty((0, 0), np.int64)
        for preds, sample in zip(models, samples, strict=True):
            if seeds == "all":
                drawn = np.arange(len(preds))[:, None].repeat(len(rows), axis=1)
            elif seeds == "apart" or not drawn.size:
                drawn = generator.integers(0, len(preds), (len(preds), len(rows)))
            for key, value in batched_metrics(preds[:, rows], truth[rows]).items():
                sample[key].append(np.take_along_axis(value, drawn, axis=0).mean(0))
    return [{key: np.concatenate(values) for key, values in sample.items()} for sample in samples]


def _interval(values: Floats, tail: float) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if known.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)
