"""Inputs are centred and scaled by the training split, the same everywhere (standardise.py)."""

import json
import math

import numpy as np
import pytest
import torch

from clipmsa.cache import FeatureStore, StreamColumn, StreamSpec, Utterance, write_store
from clipmsa.cache.errors import TrainingError
from clipmsa.fusion.analysis.scores import load_models
from clipmsa.fusion.experiments.runs import run
from clipmsa.fusion.metrics.regression import regression_metrics
from clipmsa.fusion.networks.registry import Trainable
from clipmsa.fusion.training.checkpoint import load_checkpoint
from clipmsa.fusion.training.config import RunConfig, configured
from clipmsa.fusion.training.data import FeatureData, streams_by_role
from clipmsa.fusion.training.trainer import predict

CPU = torch.device("cpu")
SMALL = ["d=16", "heads=4", "d_ff=16", "transformer_ff=16", "predictor_hidden=8"]
SPLITS = ["train"] * 60 + ["valid"] * 20 + ["test"] * 20


def write(path, rows_of, labels=None, level="sequence", dim=6):
    """A store with one stream, `vision/clip`, whose rows of utterance i are `rows_of(i)`."""
    rows = [np.asarray(rows_of(i), np.float32).reshape(-1, dim) for i in range(len(SPLITS))]
    labels = np.linspace(-2, 2, len(SPLITS)) if labels is None else labels
    write_store(
        path,
        dataset="made",
        profile="none",
        utterances=[
            Utterance(f"v{i}", "0", split, float(labels[i]), "words")
            for i, split in enumerate(SPLITS)
        ],
        streams=[
            StreamColumn(
                StreamSpec("s", "vision", "clip", level, dim),
                np.array([len(r) for r in rows]),
                rows,
                np.dtype(np.float32),
            )
        ],
    )
    return FeatureStore(path)


def data_of(store):
    return FeatureData(store, streams_by_role(store, RunConfig().model), CPU)


def standardised(store):
    """Rows of every utterance as a network gets them, after the fit to split train."""
    data = data_of(store)
    model = Trainable(configured(RunConfig(), settings=SMALL).model, data.roles)
    rows = data.labelled_rows("train")
    assert model.inputs is not None
    model.inputs.fit("vision/clip", data.moments("vision/clip", rows))
    batch = data.batch(torch.arange(len(SPLITS)))
    return model.standardised(batch.streams)["vision/clip"], batch.streams["vision/clip"]


def test_moments_are_those_of_numpy_in_float64_over_the_training_rows_alone(tmp_path):
    generator = np.random.default_rng(0)
    scale = 10.0 ** np.arange(-3, 3)
    parts = [
        generator.standard_normal((i % 5, 6)) * scale
        + (1e6 if SPLITS[i] != "train" else 50 * scale)
        for i in range(len(SPLITS))
    ]
    store = write(tmp_path / "s.h5", lambda i: parts[i])
    data = data_of(store)
    found = data.moments("vision/clip", data.labelled_rows("train"))
    train = np.concatenate([p.astype(np.float32) for p in parts[:60]]).astype(np.float64)
    np.testing.assert_allclose(found.mean, train.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, train.std(0), rtol=1e-9)


def test_every_dimension_of_the_training_rows_has_mean_0_and_deviation_1(tmp_path):
    """Also where it is 50 deviations from 0, or varies by 1e-4."""
    generator = np.random.default_rng(0)
    scale = np.array([1e-4, 1, 100, 1e-4, 1, 1])
    offset = np.array([0.02, 50, 5000, 0, 0, -3])
    store = write(tmp_path / "s.h5", lambda i: generator.standard_normal((3, 6)) * scale + offset)
    rows = standardised(store)[0].rows[: 60 * 3].double()
    torch.testing.assert_close(rows.mean(0), torch.zeros(6).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(rows.std(0, correction=0), torch.ones(6).double(), atol=1e-3, rtol=0)


def test_a_dimension_that_does_not_vary_in_train_gives_0_everywhere(tmp_path):
    """Whatever it is elsewhere, and where it varies by an encoder's rounding."""
    generator = np.random.default_rng(0)

    def rows(i):
        out = generator.standard_normal((3, 6))
        out[:, 0] = 0.1 if i < 60 else 7.0
        out[:, 1] = 1 + 1e-6 * generator.standard_normal(3)
        return out

    out = standardised(write(tmp_path / "s.h5", rows))[0].rows
    assert (out[:, :2] == 0).all()
    assert (out[:, 2:].std(0) > 0.5).all()


def test_a_stream_without_rows_in_train_gives_0_and_is_said(tmp_path, capsys):
    from clipmsa.cli.main import main

    write(tmp_path / "s.h5", lambda i: np.ones((3 if i >= 60 else 0, 6)))
    assert (standardised(FeatureStore(tmp_path / "s.h5"))[0].rows == 0).all()
    settings = [word for setting in [*SMALL, "epochs=1"] for word in ("--set", setting)]
    out = tmp_path / "run"
    code = main(
        [
            "train",
            "--features",
            str(tmp_path / "s.h5"),
            "--out",
            str(out),
            "--seeds",
            "1",
            *settings,
        ]
    )
    assert code == 0
    assert "no rows: of s split train has none" in " ".join(capsys.readouterr().err.split())
    assert json.loads((out / "metrics.json").read_text())["features"]["empty_in_train"] == ["s"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", ["full", "tfn", "lmf", "mult", "misa", "mmim", "hycon", "wscl-cl"]
)
def test_scale_and_offset_of_the_features_do_not_matter_to_any_network(tmp_path, network):
    """What is trained on x and on 1e-4 x + 0.02, or 100 x - 5000, predicts the same."""
    from clipmsa.fusion.experiments.variants import find_variant

    generator = np.random.default_rng(0)
    parts = generator.standard_normal((len(SPLITS), 3, 6))
    labels = np.clip(parts.mean((1, 2)) * 3, -3, 3)
    scores = []
    for scale, offset in ((1, 0), (1e-4, 0.02), (100, -5000)):
        rows = parts * scale + offset
        store = write(tmp_path / "s.h5", rows.__getitem__, labels)
        config = configured(find_variant(network).applied(RunConfig()), settings=["epochs=3"])
        outcome = run(store, config, tmp_path / f"{scale}", [1]).outcomes[0]
        scores.append(outcome.predictions["test"])
    np.testing.assert_allclose(scores[1], scores[0], atol=0.02)
    np.testing.assert_allclose(scores[2], scores[0], atol=0.02)


@pytest.mark.slow
def test_normalise_none_gives_the_network_what_the_store_holds(tmp_path):
    parts = np.random.default_rng(0).standard_normal((len(SPLITS), 3, 6))
    store = write(tmp_path / "s.h5", lambda i: 1e-4 * parts[i] + 0.02)
    config = configured(RunConfig(), settings=[*SMALL, "epochs=1", "normalise=none"])
    run(store, config, tmp_path / "run", [1])
    model = load_checkpoint(tmp_path / "run" / "model-1.pt").model()
    streams = data_of(store).batch(torch.arange(4)).streams
    assert model.standardised(streams)["vision/clip"].rows is streams["vision/clip"].rows
    assert model(streams).equal(model.network(streams))


@pytest.mark.slow
def test_a_checkpoint_scores_with_the_statistics_it_was_trained_with(tmp_path):
    """On the same utterances among others, of another mean, and without the store."""
    parts = np.random.default_rng(0).standard_normal((len(SPLITS), 3, 6)) + 5
    store = write(tmp_path / "s.h5", lambda i: parts[i])
    config = configured(RunConfig(), settings=[*SMALL, "epochs=2"])
    outcome = run(store, config, tmp_path / "run", [1]).outcomes[0]
    expected = outcome.predictions["test"]

    other = write(tmp_path / "other.h5", lambda i: parts[i] + (100 if i < 60 else 0))
    model = load_checkpoint(tmp_path / "run" / "model-1.pt").model()
    data = data_of(other)
    np.testing.assert_allclose(
        predict(model, data, data.labelled_rows("test")), expected, atol=1e-5
    )

    told = load_models(tmp_path / "run").predict([{"s": parts[i]} for i in range(80, 100)])
    np.testing.assert_allclose([p.score for p in told], expected, atol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_from_before_inputs_were_standardised_takes_them_as_they_are(tmp_path):
    parts = np.random.default_rng(0).standard_normal((len(SPLITS), 3, 6)) + 5
    store = write(tmp_path / "s.h5", lambda i: parts[i])
    config = configured(RunConfig(), settings=[*SMALL, "epochs=1", "normalise=none"])
    outcome = run(store, config, tmp_path / "run", [1]).outcomes[0]
    file = tmp_path / "run" / "model-1.pt"
    content = torch.load(file, weights_only=True)
    for key in ("normalise", "norm_start"):
        del content["config"]["model"][key]
    state = content["outcome"]["state"]
    content["outcome"]["state"] = {k.removeprefix("network."): v for k, v in state.items()}
    torch.save(content, file)
    data = data_of(store)
    scores = predict(load_checkpoint(file).model(), data, data.labelled_rows("test"))
    np.testing.assert_array_equal(scores, outcome.predictions["test"])


@pytest.mark.slow
def test_a_feature_of_train_that_is_not_a_number_is_named_before_anything_is_learnt(tmp_path):
    parts = np.random.default_rng(0).standard_normal((len(SPLITS), 3, 6))
    parts[7, 1, 2] = math.inf
    store = write(tmp_path / "s.h5", lambda i: parts[i])
    with pytest.raises(TrainingError, match=r"not finite: stream 's' of utterance 'v7\$_\$0'"):
        run(store, configured(RunConfig(), settings=SMALL), tmp_path / "run", [1])


@pytest.mark.slow
def test_huge_features_leave_finite_statistics(tmp_path):
    parts = np.random.default_rng(0).standard_normal((len(SPLITS), 3, 6))
    parts[7, 1, 2] = 1e30
    store = write(tmp_path / "s.h5", lambda i: parts[i])
    outcome = run(
        store, configured(RunConfig(), settings=[*SMALL, "epochs=2"]), tmp_path / "run", [1]
    ).outcomes[0]
    assert all(value.isfinite().all() for value in outcome.state.values())
    assert math.isfinite(regression_metrics(outcome.predictions["test"], store.labels[80:])["mae"])
