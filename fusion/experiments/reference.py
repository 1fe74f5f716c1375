"""What a trained network has to beat: the best constant, and ridge regression on the same features.

Ridge sees each utterance as the means over the rows of its streams, centred and scaled by the
training utterances. It takes a second at the size of MOSI, and a network that is no better has not
learnt what it is for: how modalities interact, and what happens over time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache import pooled
from clipmsa.fusion.metrics.bootstrap import Difference, paired_differences
from clipmsa.fusion.training.data import FeatureData

Floats = NDArray[np.float64]

REFERENCES = {"constant": "the best constant", "ridge": "ridge on the same pooled features"}
_ALPHAS = np.logspace(0, 7, 15)
_MOST = 20_000  # training utterances of ridge, drawn from more, so that its memory is bounded


def reference_scores(data: FeatureData, splits: Sequence[str]) -> dict[str, dict[str, Floats]]:
    """By reference and split, the scores (n,) of the split's labelled utterances.

    The constant is the median label of split train: no other has a lower MAE there. Ridge's alpha
    is chosen on split train, by leaving out one utterance at a time.
    """
    train = data.labelled_rows("train")
    median = float(data.labels[train].median())
    rows = {split: data.labelled_rows(split).numpy() for split in splits}
    return {
        "constant": {split: np.full(len(of), median) for split, of in rows.items()},
        "ridge": _ridge(data, train.numpy(), rows),
    }


def against_references(
    preds: Floats, references: Mapping[str, Floats], truth: Floats
) -> dict[str, dict[str, Difference]]:
    """By reference and metric, how models (seeds, n) differ from it: a paired bootstrap."""
    return {
        name: paired_differences(preds, scores[None], truth) for name, scores in references.items()
    }


def verdicts(mae: float, references: Mapping[str, Any], against: Mapping[str, Any]) -> list[str]:
    """A sentence for each reference that a run is not better than, beyond what chance would give.

    Args:
        mae: of the run, mean over its seeds.
        references: by name, its metrics.
        against: by name and metric, what `against_references` gives, as tuples or lists.
    """
    said = []
    for name, words in REFERENCES.items():
        if name not in against or name not in references:
            continue  # of a run before there were references
        difference = Difference(*against[name]["mae"])
        if difference.high is None or math.isnan(difference.high):
            said.append(f"too few utterances to tell whether it is better than {words}")
        elif difference.high >= 0:
            what = "not better" if difference.mean >= 0 else "not shown to be better"
            said.append(
                f"{what} than {words}: MAE {mae:.3f} "
                f"against {references[name]['mae']:.3f}, difference {difference.mean:+.3f} (95 % "
                f"interval {difference.low:+.3f} .. {difference.high:+.3f})"
            )
    return said


def _ridge(
    data: FeatureData, train: NDArray[np.int64], rows: Mapping[str, NDArray[np.int64]]
) -> dict[str, Floats]:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(train) > _MOST:
        train = np.sort(np.random.default_rng(0).choice(train, _MOST, replace=False))
    means = [pooled(data.store.streams[spec.name]) for spec in data.roles.values()]

    def features(of: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.hstack([vectors[of] for vectors in means])

    x = features(train)
    model = make_pipeline(
        SimpleImputer(keep_empty_features=True),  # a missing modality is as the mean is
        StandardScaler(),
        RidgeCV(alphas=_ALPHAS),
    )
    model.fit(x, data.labels[train].numpy())
    return {split: model.predict(features(of)).astype(np.float64) for split, of in rows.items()}
