"""Metrics against MMSA's own numbers, scikit-learn and hand counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from clipmsa.fusion import regression_metrics
from clipmsa.fusion.metrics.bootstrap import bootstrap_intervals, paired_differences
from clipmsa.fusion.metrics.regression import METRICS

# MMSA's utils/metricsTop.py, executed on these vectors (numpy 2.4.6, scikit-learn 1.9.1).
PRED = [-3.4, -1.5, -0.5, -0.2, 0, 0.1, 0.5, 1.5, 2.5, 3.6, 0.4, -0.4]
TRUTH = [-3, -2, -1, 0, 0, -0.2, 0.6, 1.4, 2.6, 3, 0, 1]
MMSA = {
    "has0_acc2": 0.7500,
    "has0_f1": 0.7556,
    "non0_acc2": 0.7778,
    "non0_f1": 0.7778,
    "acc5": 0.6667,
    "acc7": 0.5833,
    "mae": 0.3833,
    "corr": 0.9526,
}

scores = st.floats(-4, 4, width=32)
labels = st.sampled_from([-3, -2.5, -1.2, -1, -0.5, 0, 0.4, 0.5, 1, 1.5, 2, 3])


def test_the_golden_vector_of_mmsa():
    assert regression_metrics(PRED, TRUTH) == pytest.approx(MMSA, abs=5e-5)


@settings(deadline=None)
@given(st.lists(st.tuples(scores, labels), min_size=2, max_size=40))
def test_accuracy_and_f1_are_those_of_scikit_learn(pairs):
    p, t = np.array(pairs).T
    ours = regression_metrics(p, t)
    assert ours["has0_acc2"] == pytest.approx(accuracy_score(t >= 0, p >= 0))
    has0 = f1_score(t >= 0, p >= 0, average="weighted", zero_division=0)
    assert ours["has0_f1"] == pytest.approx(has0)
    keep = t != 0
    if keep.any():
        assert ours["non0_acc2"] == pytest.approx(accuracy_score(t[keep] > 0, p[keep] > 0))
        non0 = f1_score(t[keep] > 0, p[keep] > 0, average="weighted", zero_division=0)
        assert ours["non0_f1"] == pytest.approx(non0)
    if np.ptp(p) > 1e-6 and np.ptp(t) > 0:
        assert ours["corr"] == pytest.approx(np.corrcoef(p, t)[0, 1], abs=1e-6)


def test_a_score_of_zero_is_non_negative_but_not_positive():
    metrics = regression_metrics([0.0, 0.0], [1.0, -1.0])
    assert metrics["has0_acc2"] == 0.5  # right on the positive one
    assert metrics["non0_acc2"] == 0.5  # right on the negative one


def test_halves_round_to_even():
    assert regression_metrics([0.5, 1.5, 2.5], [0, 2, 2])["acc7"] == 1.0


def test_mae_does_not_clip_but_classes_do():
    metrics = regression_metrics([5.0, -5.0], [3.0, -3.0])
    assert metrics["mae"] == 2.0
    assert metrics["acc7"] == metrics["acc5"] == 1.0


def test_a_constant_prediction_has_no_correlation():
    assert math.isnan(regression_metrics([0.1] * 5, [1, 2, 3, -1, 0])["corr"])


def test_without_nonzero_labels_the_non0_metrics_are_undefined():
    metrics = regression_metrics([0.1, -0.1], [0, 0])
    assert math.isnan(metrics["non0_acc2"])
    assert math.isnan(metrics["non0_f1"])


@pytest.mark.parametrize(
    ("pred", "truth"), [([1, 2], [1]), ([], []), ([[1]], [[1]]), ([1.0], [float("nan")])]
)
def test_vectors_that_cannot_be_compared_are_refused(pred, truth):
    with pytest.raises(ValueError, match="truth"):
        regression_metrics(pred, truth)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    """MAE of |N(0, 1)| errors is sqrt(2 / pi); a 90 % interval should hold it in 90 % of draws."""
    generator = np.random.default_rng(0)
    held = 0
    for draw in range(200):
        truth = generator.standard_normal(100)
        preds = (truth + generator.standard_normal(100))[None]
        low, high = bootstrap_intervals(preds, truth, resamples=200, level=0.9, seed=draw)["mae"]
        held += low <= math.sqrt(2 / math.pi) <= high
    assert 0.82 <= held / 200 <= 0.97


def test_bootstrap_averages_over_seeds_and_is_reproducible():
    generator = np.random.default_rng(1)
    truth = generator.uniform(-3, 3, 60)
    preds = truth + generator.standard_normal((3, 60))
    intervals = bootstrap_intervals(preds, truth, resamples=100)
    assert intervals == bootstrap_intervals(preds, truth, resamples=100)
    assert intervals.keys() == METRICS.keys()
    mean = np.mean([regression_metrics(p, truth)["mae"] for p in preds])
    assert intervals["mae"][0] < mean < intervals["mae"][1]


def test_bootstrap_of_an_undefined_metric_is_undefined():
    low, high = bootstrap_intervals(np.zeros((1, 10)), np.arange(10.0), resamples=20)["corr"]
    assert math.isnan(low)
    assert math.isnan(high)


def test_p_of_two_equal_models_is_spread_over_0_to_1():
    """Two models with errors of one kind: p below 0.1 in a tenth of draws, not more."""
    generator = np.random.default_rng(0)
    ps = []
    for draw in range(200):
        truth = generator.standard_normal(80)
        one, two = (truth + generator.standard_normal((1, 80)) for _ in range(2))
        ps.append(paired_differences(one, two, truth, resamples=200, seed=draw)["mae"].p)
    assert 0.04 <= np.mean(np.array(ps) < 0.1) <= 0.18
    assert 0.35 <= np.mean(ps) <= 0.65


def test_a_paired_difference_sees_what_unpaired_intervals_cannot():
    """The second model is 0.05 worse on every utterance, of which some are far harder."""
    generator = np.random.default_rng(1)
    truth = generator.uniform(-3, 3, 100)
    error = generator.exponential(1.0, 100)
    one, two = truth[None] + error, truth[None] + error + 0.05
    found = paired_differences(two, one, truth)["mae"]
    assert (found.mean, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))
    assert found.p < 0.005
    low, high = bootstrap_intervals(one, truth)["mae"]
    assert low < regression_metrics(two[0], truth)["mae"] < high


def test_what_seeds_alone_make_is_no_difference():
    """Two models of one kind, whose seeds are better or worse: p is seldom small."""
    generator = np.random.default_rng(2)
    small = 0
    for draw in range(100):
        truth = generator.standard_normal(100)
        luck = generator.uniform(0.5, 1.0, (2, 5, 1))  # of a seed
        one, two = truth + luck * generator.standard_normal((2, 5, 100))
        small += paired_differences(one, two, truth, resamples=200, seed=draw)["mae"].p < 0.05
    assert small <= 15  # 5 are due; with utterances drawn alone it is about 45


def test_the_same_models_are_compared_seed_by_seed():
    """Each is 0.05 worse without something, however much the seeds themselves differ."""
    generator = np.random.default_rng(3)
    truth = generator.uniform(-3, 3, 50)
    whole = truth + np.array([[0.1], [1.0], [3.0]])
    found = paired_differences(whole + 0.05, whole, truth, same_models=True)["mae"]
    assert (found.low, found.high) == pytest.approx((0.05, 0.05))
    apart = paired_differences(whole + 0.05, whole, truth)["mae"]
    assert apart.low < -0.5 < 0.5 < apart.high


def test_models_with_different_numbers_of_seeds_can_be_compared():
    truth = np.linspace(-2, 2, 30)
    same = paired_differences(np.stack([truth, truth]), np.stack([truth] * 3), truth)
    assert same["mae"] == (0.0, 0.0, 0.0, 1.0)
