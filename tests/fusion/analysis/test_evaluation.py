"""Trained runs on other stores, subsets, missing modalities; and where training shows its runs."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ConfigError, FingerprintError
from clipmsa.cli.main import main
from clipmsa.fusion import regression_metrics
from clipmsa.fusion.analysis.evaluation import evaluate
from clipmsa.fusion.experiments.runs import run
from clipmsa.fusion.experiments.tracking import Tracking
from clipmsa.fusion.metrics.regression import METRICS
from clipmsa.fusion.training.checkpoint import load_run
from clipmsa.fusion.training.config import RunConfig, configured

pytestmark = pytest.mark.slow  # They train.

SMALL = ["d=16", "heads=4", "d_ff=32", "transformer_ff=32", "epochs=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, plant) -> Path:
    """A folder with a store, and a run of two seeds on it."""
    folder = tmp_path_factory.mktemp("trained")
    plant(folder / "store.h5", counts=(40, 16, 24))
    with h5py.File(folder / "store.h5", "r+") as file:
        file["utterances/duration"][:] = np.arange(80, dtype=np.float32)
    run(FeatureStore(folder / "store.h5"), configured(RunConfig(), settings=SMALL),
        folder / "run", [1, 2])  # fmt: skip
    return folder


@pytest.fixture
def store(trained) -> FeatureStore:
    return FeatureStore(trained / "store.h5")


@pytest.fixture
def checkpoints(trained):
    return load_run(trained / "run")


def test_the_test_split_scores_as_the_run_says(trained, store, checkpoints):
    metrics = json.loads((trained / "run" / "metrics.json").read_text())
    for split in ("test", "valid"):
        found = evaluate(checkpoints, store, split).summary()
        for key in METRICS:
            assert found[key]["per_seed"] == pytest.approx(
                metrics[split][key]["per_seed"], abs=1e-6
            )


def test_subsets_are_scored_by_what_the_store_says_of_them(store, checkpoints):
    whole = evaluate(checkpoints, store)
    faces = whole.subsets("face")
    found = store.streams["face_vgg"].lengths[-24:] > 0
    assert faces["face found"].tolist() == found.tolist()
    assert faces["no face"].tolist() == (~found).tolist()
    lengths = whole.subsets("length")
    assert [int(mask.sum()) for mask in lengths.values()] == [8, 8, 8, 0]
    speakers = whole.subsets("speaker")
    assert list(speakers) == ["v0007", "v0008", "v0009"]
    mask = speakers["v0008"]
    expected = [regression_metrics(s[mask], whole.labels[mask])["mae"] for s in whole.scores]
    assert whole.summary(mask)["mae"]["per_seed"] == pytest.approx(expected)
    with pytest.raises(ConfigError, match="speaker, length, face"):
        whole.subsets("mood")


def test_the_table_has_a_row_an_utterance_and_a_column_a_model(store, checkpoints):
    whole = evaluate(checkpoints, store)
    table = whole.predictions
    assert table["id"].tolist() == store.ids[-24:]
    both = table[["prediction_1", "prediction_2"]].mean(axis=1)
    assert table["prediction"].tolist() == pytest.approx(both.tolist())
    assert table["error"].tolist() == pytest.approx((both - table["label"]).tolist(), abs=1e-5)
    assert table["rows_face_vgg"].tolist() == store.streams["face_vgg"].lengths[-24:].tolist()


def test_a_missing_modality_can_be_tried(store, checkpoints):
    whole, without = evaluate(checkpoints, store), evaluate(checkpoints, store, without=["text"])
    assert not np.allclose(whole.scores, without.scores)
    with pytest.raises(ConfigError, match="text, audio, vision"):
        evaluate(checkpoints, store, without=["smell"])


def test_features_made_in_another_way_are_refused_and_the_difference_is_shown(
    trained, checkpoints, tmp_path
):
    other = tmp_path / "other.h5"
    other.write_bytes((trained / "store.h5").read_bytes())
    with h5py.File(other, "r+") as file:
        attributes = file["streams/albert"].attrs
        attributes["fingerprint"], attributes["config"] = "another", '{"fps": 3}'
    with pytest.raises(FingerprintError, match=r"'albert' \(another\).*\(planted-albert\).*fps"):
        evaluate(checkpoints, FeatureStore(other))
    with h5py.File(other, "r+") as file:
        del file["streams/albert"]
    with pytest.raises(ConfigError, match="no stream with the role text/own"):
        evaluate(checkpoints, FeatureStore(other))


def test_a_swapped_name_is_no_obstacle(trained, checkpoints, tmp_path):
    """A stream is found by its role and fingerprint, whatever it is called there."""
    other = tmp_path / "other.h5"
    other.write_bytes((trained / "store.h5").read_bytes())
    with h5py.File(other, "r+") as file:
        file.move("streams/albert", "streams/text_encoder")
    before = evaluate(checkpoints, FeatureStore(trained / "store.h5"))
    assert np.allclose(before.scores, evaluate(checkpoints, FeatureStore(other)).scores)


def test_utterances_without_a_label_are_scored_and_not_counted(trained, checkpoints, tmp_path):
    other = tmp_path / "other.h5"
    other.write_bytes((trained / "store.h5").read_bytes())
    with h5py.File(other, "r+") as file:
        file["utterances/label"][-10:] = np.nan
    whole = evaluate(checkpoints, FeatureStore(other))
    assert whole.scores.shape == (2, 24)
    labels, known = whole.labels[:14], whole.scores[0, :14]
    expected = regression_metrics(known, labels)["mae"]
    assert whole.summary()["mae"]["per_seed"][0] == pytest.approx(expected)


def test_the_command_prints_a_table_or_json_and_writes_predictions(trained, tmp_path, capsys):
    line = ["evaluate", str(trained / "run"), "--features", str(trained / "store.h5")]
    assert main([*line, "--by", "face,length"]) == 0
    table = capsys.readouterr().out
    assert "face: no face" in table
    assert main([*line, "--json", "--predictions", str(tmp_path / "p.csv")]) == 0
    (whole,) = json.loads(capsys.readouterr().out)
    assert (whole["subset"], whole["utterances"]) == ("test", 24)
    predictions = pd.read_csv(tmp_path / "p.csv")
    mae = (predictions["prediction_1"] - predictions["label"]).abs().mean()
    assert mae == pytest.approx(whole["metrics"]["mae"]["per_seed"][0], abs=1e-5)
    assert main(["evaluate", str(tmp_path), "--features", str(trained / "store.h5")]) == 1


def test_tensorboard_shows_every_epoch_and_the_test_metrics(trained, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = configured(RunConfig(), settings=SMALL)
    tracking = Tracking("tensorboard", tmp_path / "run", config)
    store = FeatureStore(trained / "store.h5")
    result = run(store, config, tmp_path / "run", [3], on_epoch=tracking.on_epoch)
    tracking.finish(result)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "seed-3")).Reload()
    shown = [event.value for event in events.Scalars("valid/mae")]
    assert shown == pytest.approx([e.valid_mae for e in result.outcomes[0].history])
    (corr,) = events.Scalars("test/corr")
    assert corr.value == pytest.approx(result.outcomes[0].metrics["test"]["corr"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [("paper", "must be one of tensorboard, wandb, mlflow"), ("mlflow", "pip install mlflow")],
)
def test_a_tracker_that_is_not_there_is_named(kind, message, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)  # as if not installed
    with pytest.raises(ConfigError, match=message):
        Tracking(kind, tmp_path, RunConfig())
