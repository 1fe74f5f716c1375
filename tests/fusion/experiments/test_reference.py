"""What a run is judged beside: the best constant, and ridge on pooled features (reference.py)."""

import json
import math

import numpy as np
import pytest
import torch

from clipmsa.cache import FeatureStore, StreamColumn, StreamSpec, Utterance, write_store
from clipmsa.cli.main import main
from clipmsa.fusion.experiments.reference import against_references, reference_scores, verdicts
from clipmsa.fusion.metrics.bootstrap import bootstrap_intervals, paired_differences
from clipmsa.fusion.metrics.regression import regression_metrics
from clipmsa.fusion.training.config import RunConfig
from clipmsa.fusion.training.data import FeatureData, streams_by_role

SIZES = {"train": 80, "valid": 30, "test": 40}


def write(path, *, noise=0.1, missing=(), label=None, sizes=SIZES):
    """Two streams, a vector and a sequence, whose means the label is linear in."""
    generator = np.random.default_rng(0)
    splits = [split for split, count in sizes.items() for _ in range(count)]
    n = len(splits)
    text = generator.standard_normal((n, 5)) * 3 + 7
    faces = [generator.standard_normal((1 + i % 4, 4)) / 100 for i in range(n)]
    means = np.stack([rows.mean(0) for rows in faces])
    labels = (text - 7)[:, 0] / 3 + 100 * means[:, 1] + noise * generator.standard_normal(n)
    labels = np.clip(labels if label is None else np.full(n, label), -3, 3)
    columns = [
        StreamColumn(
            StreamSpec("words", "text", "own", "utterance", 5), np.ones(n, np.int64), text[:, None]
        ),
        StreamColumn(
            StreamSpec("faces", "vision", "own", "sequence", 4),
            np.array([0 if i in missing else len(rows) for i, rows in enumerate(faces)]),
            [rows[:0] if i in missing else rows for i, rows in enumerate(faces)],
            np.dtype(np.float32),
        ),
    ]
    write_store(
        path,
        dataset="made",
        profile="none",
        utterances=[
            Utterance(f"v{i}", "0", split, float(labels[i]), "words")
            for i, split in enumerate(splits)
        ],
        streams=columns,
    )
    store = FeatureStore(path)
    return FeatureData(store, streams_by_role(store, RunConfig().model), torch.device("cpu"))


def of_split(data, split):
    rows = data.labelled_rows(split).numpy()
    return rows, data.store.labels[rows].astype(np.float64)


def test_no_constant_has_a_lower_mae_on_the_training_split(tmp_path):
    data = write(tmp_path / "s.h5")
    labels = of_split(data, "train")[1]
    (constant,) = set(reference_scores(data, ("valid", "test"))["constant"]["test"])
    least = np.abs(labels - np.median(labels)).mean()
    assert np.abs(labels - constant).mean() == pytest.approx(least, abs=1e-7)


def test_ridge_is_ridge_by_its_closed_form_with_alpha_chosen_by_leaving_one_out(tmp_path):
    data = write(tmp_path / "s.h5", noise=1.0)
    store = data.store
    x = np.hstack(
        [
            store.streams["words"].values,
            [store.streams["faces"][i].astype(np.float64).mean(0) for i in range(len(store))],
        ]
    ).astype(np.float64)
    train, y = of_split(data, "train")
    test, _ = of_split(data, "test")
    x = (x - x[train].mean(0)) / x[train].std(0)

    def fitted(alpha, rows, labels):
        weights = np.linalg.solve(
            x[rows].T @ x[rows] + alpha * np.eye(x.shape[1]), x[rows].T @ (labels - labels.mean())
        )
        return weights, labels.mean()

    def left_out(alpha):
        """Mean squared error by the hat matrix of centred inputs."""
        hat = x[train] @ np.linalg.solve(
            x[train].T @ x[train] + alpha * np.eye(x.shape[1]), x[train].T
        )
        residual = (y - y.mean()) - hat @ (y - y.mean())
        return np.mean((residual / (1 - np.diag(hat) - 1 / len(y))) ** 2)

    best = min(np.logspace(0, 7, 15), key=left_out)
    weights, mean = fitted(best, train, y)
    scores = reference_scores(data, ("test",))["ridge"]["test"]
    np.testing.assert_allclose(scores, x[test] @ weights + mean, atol=1e-3)


def test_ridge_learns_a_planted_label_and_never_sees_the_test_split(tmp_path):
    data = write(tmp_path / "s.h5")
    _, truth = of_split(data, "test")
    scores = reference_scores(data, ("test",))["ridge"]["test"]
    assert regression_metrics(scores, truth)["corr"] > 0.97
    data.labels[data.labelled_rows("test")] = 3.0
    np.testing.assert_array_equal(reference_scores(data, ("test",))["ridge"]["test"], scores)


def test_ridge_takes_a_missing_modality_as_the_mean(tmp_path):
    some = write(tmp_path / "s.h5", missing=range(0, 150, 3))
    scores = reference_scores(some, ("test",))["ridge"]["test"]
    assert regression_metrics(scores, of_split(some, "test")[1])["corr"] > 0.7
    none = write(tmp_path / "n.h5", missing=range(150))
    assert np.isfinite(reference_scores(none, ("test",))["ridge"]["test"]).all()


def test_a_run_that_is_no_better_than_a_reference_is_said_to_be(tmp_path):
    truth = np.random.default_rng(0).uniform(-3, 3, 100)
    references = {"constant": np.zeros(100), "ridge": truth + 0.5}
    metrics = {name: regression_metrics(scores, truth) for name, scores in references.items()}

    def said(preds):
        found = against_references(preds, references, truth)
        return verdicts(float(np.abs(preds - truth).mean()), metrics, found)

    assert said(np.stack([truth + 0.1, truth - 0.1])) == []
    (unsure,) = said(np.stack([truth + 0.2, truth - 0.8 * np.sign(truth)]))
    assert unsure.startswith("not shown to be better than ridge")
    (ridge,) = said(np.stack([truth + 0.6, truth - 0.6]))
    assert ridge.startswith("not better than ridge")
    assert "MAE 0.600 against 0.500" in ridge
    constant, ridge = said(np.stack([-truth, -truth]))
    assert constant.startswith("not better than the best constant")


def test_of_fewer_than_five_utterances_there_is_no_interval_and_no_verdict_but_that():
    truth = np.array([1.0, -1.0, 2.0, 0.5])
    preds = np.stack([truth + 0.1, truth])
    assert all(
        math.isnan(end) for ends in bootstrap_intervals(preds, truth).values() for end in ends
    )
    difference = paired_differences(preds, np.zeros((1, 4)), truth)["mae"]
    assert difference.mean < 0
    assert math.isnan(difference.p)
    references = {"constant": np.zeros(4), "ridge": np.zeros(4)}
    found = against_references(preds, references, truth)
    metrics = {name: {"mae": 1.0} for name in references}
    assert [text.partition(" to tell")[0] for text in verdicts(0.1, metrics, found)] == [
        "too few utterances"
    ] * 2


@pytest.mark.slow
def test_train_ablate_and_report_say_what_a_run_is_not_better_than(tmp_path, capsys):
    write(tmp_path / "s.h5")
    small = "--set d=8 --set heads=2 --set transformer_heads=2 --epochs 1 --seeds 1"
    run = tmp_path / "run"
    assert main(f"train --features {tmp_path}/s.h5 --out {run} {small}".split()) == 0
    told = capsys.readouterr()
    assert "ridge" in told.out
    assert "'full': not better than ridge on the same pooled features" in told.err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["ridge"]["mae"] < metrics["constant"]["mae"]
    assert metrics["against"]["ridge"]["mae"][0] == pytest.approx(
        metrics["test"]["mae"]["mean"] - metrics["ridge"]["mae"]
    )
    assert main(f"report {run} --out {tmp_path}/r.html".split()) == 0
    assert "not better than ridge on the same pooled features" in (tmp_path / "r.html").read_text()
    line = f"ablate --features {tmp_path}/s.h5 --variants full --out {tmp_path}/a {small}"
    assert main(line.replace("--epochs 1", "--set epochs=1").split()) == 0
    assert "CLIP-MSA: not better than ridge" in (tmp_path / "a" / "table.md").read_text()
