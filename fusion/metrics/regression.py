"""The field's metrics, exactly as MMSA computes them (thuiar/MMSA, utils/metricsTop.py).

With predictions p and labels t in [-3, 3] over the whole split:

| key         | in words                     | formula                                            |
|-------------|------------------------------|----------------------------------------------------|
| `has0_acc2` | Acc-2, negative/non-negative | (p >= 0) == (t >= 0), all utterances               |
| `non0_acc2` | Acc-2, negative/positive     | (p > 0) == (t > 0), utterances with t != 0         |
| `has0_f1`   | F1, negative/non-negative    | weighted by the true class sizes                   |
| `non0_f1`   | F1, negative/positive        | the same over utterances with t != 0               |
| `mae`       | MAE                          | mean of abs(p - t), p not clipped                  |
| `corr`      | Corr                         | Pearson; NaN where p or t is constant              |
| `acc5`      | Acc-5                        | round(clip(p, -2, 2)) == round(clip(t, -2, 2))     |
| `acc7`      | Acc-7                        | the same with 3; halves round to even              |

Nothing is rounded here; MMSA rounds to four places before it averages over seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

METRICS = {
    "has0_acc2": "Acc-2 negative/non-negative",
    "non0_acc2": "Acc-2 negative/positive",
    "has0_f1": "F1 negative/non-negative",
    "non0_f1": "F1 negative/positive",
    "mae": "MAE",
    "corr": "Corr",
    "acc5": "Acc-5",
    "acc7": "Acc-7",
}
LOWER_IS_BETTER = frozenset({"mae"})


def regression_metrics(pred: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """The eight metrics of predictions (n,) against labels (n,).

    Raises:
        ValueError: the two differ in shape, are empty, or a label is not a number.

    >>> regression_metrics([1.0, -2.0, 0.5], [1.0, -1.0, 2.0])["mae"]
    0.8333333333333334
    """
    p, t = np.asarray(pred, np.float64), np.asarray(truth, np.float64)
    if p.shape != t.shape or p.ndim != 1 or p.size == 0:
        raise ValueError(
            f"pred {p.shape} and truth {t.shape} must be two vectors of one length, not empty"
        )
    if np.isnan(t).any():
        raise ValueError("truth holds NaN; leave utterances without a label out")
    return {key: float(value) for key, value in batched_metrics(p, t).items()}


def batched_metrics(pred: Floats, truth: Floats) -> dict[str, Floats]:
    """The same along the last axis: pred (..., n), truth (..., n), which broadcast -> (...)."""
    p, t = np.broadcast_arrays(pred, truth)
    everywhere, nonzero = np.ones(t.shape, bool), t != 0
    return {
        "has0_acc2": _accuracy(p >= 0, t >= 0, everywhere),
        "non0_acc2": _accuracy(p > 0, t > 0, nonzero),
        "has0_f1": _weighted_f1(p >= 0, t >= 0, everywhere),
        "non0_f1": _weighted_f1(p > 0, t > 0, nonzero),
        "mae": np.abs(p - t).mean(-1),
        "corr": _pearson(p, t),
        "acc5": (_class(p, 2) == _class(t, 2)).mean(-1),
        "acc7": (_class(p, 3) == _class(t, 3)).mean(-1),
    }


def _accuracy(p: NDArray[Any], t: NDArray[Any], keep: NDArray[Any]) -> Floats:
    return _ratio(((p == t) & keep).sum(-1), keep.sum(-1))


def _weighted_f1(p: NDArray[Any], t: NDArray[Any], keep: NDArray[Any]) -> Floats:
    """F1 of both classes, weighted by how many utterances truly are of each."""
    total = np.zeros(p.shape[:-1])
    for positive in (True, False):
        said, true = (p == positive) & keep, (t == positive) & keep
        support = true.sum(-1)
        f1 = _ratio(2 * (said & true).sum(-1), said.sum(-1) + support, nothing=0.0)
        total = total + support * f1
    return _ratio(total, keep.sum(-1))


def _pearson(p: Floats, t: Floats) -> Floats:
    p, t = p - p.mean(-1, keepdims=True), t - t.mean(-1, keepdims=True)
    # Rounding leaves a constant vector a hair's breadth of variance; that is no correlation.
    scale = np.sqrt((p**2).sum(-1) * (t**2).sum(-1))
    constant = (np.ptp(p, -1) == 0) | (np.ptp(t, -1) == 0)
    return np.where(constant, np.nan, _ratio((p * t).sum(-1), scale))


def _class(x: Floats, limit: int) -> Floats:
    clipped: Floats = np.clip(x, -limit, limit)
    return np.round(clipped).astype(np.float64)


def _ratio(above: NDArray[Any], below: NDArray[Any], nothing: float = np.nan) -> Floats:
    """above / below, and `nothing` where below is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), below)
    out: Floats = np.divide(above, below, out=np.full(above.shape, nothing), where=below != 0)
    return out
