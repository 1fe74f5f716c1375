"""Training: protocol, reproducibility, planted signals, and the run folder."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import TrainingError
from clipmsa.fusion import regression_metrics
from clipmsa.fusion.checkpoint import CheckpointError, load_checkpoint
from clipmsa.fusion.config import RunConfig, configured
from clipmsa.fusion.data import FeatureData, streams_by_role
from clipmsa.fusion.metrics import METRICS
from clipmsa.fusion.runs import run
from clipmsa.fusion.trainer import batches, predict, train_seed
from clipmsa.fusion.variants import find_variant

SMALL = ["d=16", "heads=4", "d_ff=32", "transformer_ff=32", "learning_rate=0.002"]


def small(*settings: str, variant: str = "full") -> RunConfig:
    config = configured(RunConfig(), settings=[*SMALL, *settings])
    return find_variant(variant).applied(config)


def data_of(store: FeatureStore, config: RunConfig) -> FeatureData:
    return FeatureData(store, streams_by_role(store, config.model), torch.device("cpu"))


@pytest.fixture
def path(tmp_path, plant) -> Path:
    plant(tmp_path / "store.h5")
    return tmp_path / "store.h5"


@pytest.fixture
def store(path) -> FeatureStore:
    return FeatureStore(path)


def test_the_same_seed_gives_the_same_bits(store):
    config = small("epochs=3")
    one, two = (train_seed(data_of(store, config), config, 7) for _ in range(2))
    assert one.history == two.history
    assert (one.predictions["test"] == two.predictions["test"]).all()
    assert all(torch.equal(one.state[key], two.state[key]) for key in one.state)


def test_another_seed_gives_another_model(store):
    config = small("epochs=1")
    one, two = (train_seed(data_of(store, config), config, seed) for seed in (1, 2))
    assert not np.allclose(one.predictions["test"], two.predictions["test"])


def test_a_seed_does_not_depend_on_the_seeds_before_it(store, tmp_path):
    config = small("epochs=2")
    both = run(store, config, tmp_path / "both", [1, 2])
    alone = run(store, config, tmp_path / "alone", [2])
    for metric in METRICS:
        of_both = both.metrics["test"][metric]["per_seed"][1]
        assert of_both == pytest.approx(alone.metrics["test"][metric]["per_seed"][0], abs=0)


def test_the_epoch_with_the_lowest_validation_mae_is_kept(store):
    config = small("epochs=12", "learning_rate=0.02")
    outcome = train_seed(data_of(store, config), config, 3)
    maes = [epoch.valid_mae for epoch in outcome.history]
    assert outcome.best_epoch == 1 + int(np.argmin(maes))
    assert outcome.metrics["valid"]["mae"] == pytest.approx(min(maes), abs=1e-6)
    assert [epoch.best for epoch in outcome.history] == [
        mae < min([np.inf, *maes[:i]]) for i, mae in enumerate(maes)
    ]


def test_training_stops_when_validation_has_not_improved_for_patience_epochs(store):
    config = small("epochs=60", "patience=2", "learning_rate=0.02")
    outcome = train_seed(data_of(store, config), config, 3)
    assert len(outcome.history) == outcome.best_epoch + 2 < 60


def test_labels_of_the_test_split_change_nothing_but_the_test_metrics(path):
    config = small("epochs=2")
    before = train_seed(data_of(FeatureStore(path), config), config, 5)
    with h5py.File(path, "r+") as file:
        labels = file["utterances/label"]
        labels[-60:] = -labels[-60:]
    after = train_seed(data_of(FeatureStore(path), config), config, 5)
    assert before.history == after.history
    assert (before.predictions["test"] == after.predictions["test"]).all()


def test_a_last_batch_of_one_joins_its_neighbour():
    assert [len(part) for part in batches(torch.arange(65), 32)] == [32, 33]
    assert [len(part) for part in batches(torch.arange(66), 32)] == [32, 32, 2]
    assert [len(part) for part in batches(torch.arange(3), 32)] == [3]
    assert torch.equal(torch.cat(batches(torch.arange(65), 32)), torch.arange(65))


def test_utterances_without_a_label_are_left_out(path):
    with h5py.File(path, "r+") as file:
        file["utterances/label"][::2] = np.nan
    config = small("epochs=1")
    outcome = train_seed(data_of(FeatureStore(path), config), config, 1)
    assert len(outcome.predictions["test"]) == 30


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_an_empty_split_is_named(path, split):
    with h5py.File(path, "r+") as file:
        splits = file["utterances/split"].asstr()[:]
        other = "train" if split != "train" else "valid"
        file["utterances/split"][:] = [other if s == split else s for s in splits]
    config = small("epochs=1")
    with pytest.raises(TrainingError, match=f"no utterance of split '{split}' has a label"):
        train_seed(data_of(FeatureStore(path), config), config, 1)


@pytest.mark.parametrize(("row", "when"), [(3, "epoch 1"), (130, "score of"), (215, "score of")])
def test_a_feature_that_is_not_a_number_is_found(path, row, when):
    """In train it stops the epoch; in valid and test it stops the prediction."""
    with h5py.File(path, "r+") as file:
        stream = file["streams/clip_image"]
        stream["values"][stream["offsets"][row], 5] = np.nan
    config = small("epochs=2")
    store = FeatureStore(path)
    message = f"{when}.*stream 'clip_image' of utterance '{store.ids[row]}'".replace("$", r"\$")
    with pytest.raises(TrainingError, match=message):
        train_seed(data_of(store, config), config, 1)


def test_a_modality_that_is_missing_everywhere_trains(path):
    with h5py.File(path, "r+") as file:
        group = file["streams/face_vgg"]
        del group["values"], group["offsets"]
        group["values"] = np.empty((0, 48), np.float16)
        group["offsets"] = np.zeros(221, np.int64)
    config = small("epochs=1")
    outcome = train_seed(data_of(FeatureStore(path), config), config, 1)
    assert np.isfinite(outcome.predictions["test"]).all()


def test_the_run_folder_holds_what_a_reader_needs(store, tmp_path):
    out = tmp_path / "run"
    result = run(store, small("epochs=2"), out, [11, 12])
    assert {path.name for path in out.iterdir()} == {
        "config.toml",
        "metrics.json",
        "history.csv",
        "predictions.csv",
        "model-11.pt",
        "model-12.pt",
    }
    metrics = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["variant"] == "full"
    assert metrics["seeds"] == [11, 12]
    assert metrics["features"]["path"] == str(store.path)
    assert metrics["features"]["fingerprints"]["albert"] == "planted-albert"
    for split in ("test", "valid"):
        assert metrics[split].keys() == METRICS.keys()
        for value in metrics[split].values():
            assert value["mean"] == pytest.approx(np.mean(value["per_seed"]))
            assert value["std"] == pytest.approx(np.std(value["per_seed"]))
    assert result.metrics["test"]["mae"]["mean"] == metrics["test"]["mae"]["mean"]
    with (out / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert [row["id"] for row in rows] == store.ids[-60:]
    mine = regression_metrics(
        [float(row["prediction_12"]) for row in rows], [float(row["label"]) for row in rows]
    )
    assert mine["mae"] == pytest.approx(metrics["test"]["mae"]["per_seed"][1])
    with (out / "history.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["11", "11", "12", "12"]


def test_the_configuration_of_a_run_trains_the_same_run(store, tmp_path):
    config = small("epochs=2", "residual=additive", variant="no-clip")
    run(store, config, tmp_path / "run", [1])
    written = tmp_path / "run" / "config.toml"
    assert tomllib.loads(written.read_text())["variant"] == "no-clip"
    assert configured(RunConfig(), written) == config


def test_a_checkpoint_rebuilds_its_model(store, tmp_path):
    config = small("epochs=2")
    out = tmp_path / "run"
    result = run(store, config, out, [1])
    checkpoint = load_checkpoint(out / "model-1.pt")
    assert (checkpoint.config, checkpoint.seed) == (config, 1)
    data = FeatureData(store, checkpoint.streams, torch.device("cpu"))
    rows = data.labelled_rows("test")
    again = regression_metrics(
        predict(checkpoint.model, data, rows), store.labels[rows.numpy()].astype(float)
    )
    assert again["mae"] == pytest.approx(result.metrics["test"]["mae"]["mean"], abs=1e-6)


def test_a_file_that_is_no_checkpoint_is_refused_and_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"format": "clipmsa-model", "state": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.pt")
    for name in ("evil.pt", "text.pt", "other.pt", "none.pt"):
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_training_learns_from_every_stream_and_dropping_one_costs(tmp_path, plant):
    """One stream carries the whole label: the matching variant loses it, the others do not."""
    oracle = plant(tmp_path / "store.h5", (300, 80, 200), share={"esresnext": 1.0})
    store = FeatureStore(tmp_path / "store.h5")
    corr = {}
    for variant in ("full", "no-clip-t", "no-clip-a"):
        config = small("epochs=8", variant=variant)
        outcome = train_seed(data_of(store, config), config, 1111)
        corr[variant] = outcome.metrics["test"]["corr"]
    assert corr["full"] > 0.9 * oracle
    assert corr["no-clip-t"] > 0.9 * oracle
    assert abs(corr["no-clip-a"]) < 0.25


@pytest.mark.slow
def test_a_store_of_another_program_at_the_size_of_mosi_trains_near_the_oracle(tmp_path, plant):
    """2,199 utterances, label planted in all six streams, one without a face in ten."""
    oracle = plant(tmp_path / "store.h5", (1284, 229, 686), frames=4)
    store = FeatureStore(tmp_path / "store.h5")
    corr = {}
    for variant in ("full", "no-clip-v", "no-clip"):
        settings = ["d=64", "d_ff=64", "epochs=8", "learning_rate=0.002"]
        config = find_variant(variant).applied(configured(RunConfig(), settings=settings))
        outcome = train_seed(data_of(store, config), config, 1111)
        corr[variant] = outcome.metrics["test"]["corr"]
    # Without a sixth, and without half, of the variance that the streams explain.
    assert corr["full"] > 0.93 * oracle
    assert corr["no-clip-v"] == pytest.approx(oracle * (5 / 6) ** 0.5, abs=0.07)
    assert corr["no-clip"] == pytest.approx(oracle * (3 / 6) ** 0.5, abs=0.07)
