"""Training: protocol, reproducibility, planted signals, and the run folder."""

from __future__ import annotations

import csv
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from clipmsa.cache import FeatureStore, StreamColumn, write_store
from clipmsa.cache.errors import CheckpointError, TrainingError
from clipmsa.fusion import regression_metrics
from clipmsa.fusion.experiments.jobs import Resources
from clipmsa.fusion.experiments.runs import run, run_many
from clipmsa.fusion.experiments.variants import find_variant
from clipmsa.fusion.metrics.regression import METRICS
from clipmsa.fusion.networks.ragged import Ragged
from clipmsa.fusion.networks.registry import Trainable
from clipmsa.fusion.training import trainer
from clipmsa.fusion.training.checkpoint import load_checkpoint
from clipmsa.fusion.training.config import RunConfig, configured
from clipmsa.fusion.training.data import FeatureData, streams_by_role
from clipmsa.fusion.training.outcome import Epoch
from clipmsa.fusion.training.trainer import batches, predict, train_seed, withhold_at_random

pytestmark = pytest.mark.slow  # They train.

SMALL = [
    *("d=16", "heads=4", "d_ff=32", "transformer_ff=32"),
    *("learning_rate=0.002", "batch_size=32"),
]


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


def test_batches_are_as_few_and_as_even_as_can_be():
    assert [len(part) for part in batches(torch.arange(65), 32)] == [22, 22, 21]
    assert [len(part) for part in batches(torch.arange(64), 32)] == [32, 32]
    assert [len(part) for part in batches(torch.arange(5), 2)] == [3, 2]  # none of one
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


@pytest.mark.parametrize(("row", "when"), [(3, "not finite"), (130, "score of"), (215, "score of")])
def test_a_feature_that_is_not_a_number_is_found(path, row, when):
    """In train it stops before anything is learnt; in valid and test it stops the prediction."""
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


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [1, 4, 5])
def test_an_interrupted_seed_goes_on_to_the_same_bits(store, tmp_path, monkeypatch, stopped):
    monkeypatch.setattr(trainer, "_PROGRESS_SECONDS", 0.0)
    config, data = small("epochs=6", "modality_dropout=0.2"), data_of(store, small())
    whole = train_seed(data, config, 7)

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == stopped:
            raise KeyboardInterrupt

    progress = tmp_path / "progress.pt"
    with pytest.raises(KeyboardInterrupt):
        train_seed(data, config, 7, stop, progress)
    assert progress.exists() == (stopped > 1)
    seen: list[Epoch] = []
    rest = train_seed(data, config, 7, seen.append, progress)
    assert len(seen) == 6 - (stopped - 1)  # what was done before is not done again
    assert rest.history == whole.history
    assert (rest.predictions["test"] == whole.predictions["test"]).all()
    assert all(torch.equal(rest.state[key], whole.state[key]) for key in whole.state)


def test_what_is_kept_of_another_training_is_not_gone_on_from(store, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_PROGRESS_SECONDS", 0.0)
    progress = tmp_path / "progress.pt"
    train_seed(data_of(store, small()), small("epochs=2"), 7, progress=progress)
    config = small("epochs=2", "dropout=0.3")
    again = train_seed(data_of(store, config), config, 7, progress=progress)
    assert again.history == train_seed(data_of(store, config), config, 7).history


def test_modality_dropout_takes_its_share_and_never_everything():
    generator = torch.Generator().manual_seed(0)
    lost = torch.stack(list(withhold_at_random(20_000, 0.3, generator).values()))
    assert not lost.all(0).any()
    expected = 0.3 - 0.3**3  # each modality, less the utterances that would have lost all
    assert lost.float().mean(1).tolist() == pytest.approx([expected] * 3, abs=0.015)
    assert withhold_at_random(8, 0.0, generator) == {}


def test_a_withheld_modality_is_one_without_rows(store):
    """Withholding audio scores as a store whose audio streams are empty does."""
    config = small("epochs=1")
    data = data_of(store, config)
    outcome = train_seed(data, config, 1)
    model = Trainable(config.model, data.roles)
    model.load_state_dict(outcome.state)
    rows = data.labelled_rows("test")
    without = predict(model, data, rows, ["audio"])
    assert not np.allclose(without, outcome.predictions["test"])
    streams = dict(data.batch(rows).streams)
    for role in ("audio/own", "audio/clip"):
        empty = streams[role].rows[:0]
        streams[role] = Ragged(empty, torch.zeros(len(rows), dtype=torch.int64))
    with torch.inference_mode():
        assert model(streams).numpy() == pytest.approx(without, abs=1e-6)


@pytest.mark.slow
def test_seeds_side_by_side_give_what_they_give_alone(store, tmp_path):
    config = small("epochs=2")
    apart = run(store, config, tmp_path / "apart", [1, 2, 3], resources=Resources(workers=2))
    alone = run(store, config, tmp_path / "alone", [3])
    assert (apart.outcomes[2].predictions["test"] == alone.outcomes[0].predictions["test"]).all()
    assert apart.outcomes[2].history == alone.outcomes[0].history


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_seeds_on_ray_give_what_they_give_here(store, path, tmp_path):
    ray = pytest.importorskip("ray")
    config, out = small("epochs=2"), tmp_path / "ray"
    runs: list = []
    try:
        run_many(
            store, [(config, out)], [1, 2], resources=Resources(engine="ray"), on_run=runs.append
        )
        damaged = Path(shutil.copy(path, tmp_path / "damaged.h5"))
        with h5py.File(damaged, "r+") as file:
            file["streams/albert/values"][3] = np.nan
        with pytest.raises(TrainingError, match="stream 'albert' of utterance"):
            run_many(
                FeatureStore(damaged),
                [(config, tmp_path / "bad")],
                [1],
                resources=Resources(engine="ray"),
            )
    finally:
        ray.shutdown()
    here = run(store, config, tmp_path / "here", [1, 2])
    for there, ours in zip(runs[0].outcomes, here.outcomes, strict=True):
        assert there.history == ours.history
        assert (there.predictions["test"] == ours.predictions["test"]).all()


@pytest.mark.slow
def test_an_error_of_a_seed_side_by_side_is_told_and_the_others_are_kept(path, tmp_path):
    with h5py.File(path, "r+") as file:
        stream = file["streams/clip_image"]
        stream["values"][stream["offsets"][3], 5] = np.nan
    with pytest.raises(TrainingError, match="stream 'clip_image' of utterance"):
        run(
            FeatureStore(path),
            small("epochs=2"),
            tmp_path / "run",
            [1, 2],
            resources=Resources(workers=2),
        )
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_finished_seed_is_read_and_not_trained_again(store, tmp_path):
    first = run(store, small("epochs=2"), tmp_path / "run", [1, 2])
    seen: list[Epoch] = []
    again = run(store, small("epochs=2"), tmp_path / "run", [1, 2, 3], on_epoch=seen.append)
    assert {epoch.seed for epoch in seen} == {3}
    assert again.metrics["test"]["mae"]["per_seed"][:2] == first.metrics["test"]["mae"]["per_seed"]
    other = small("epochs=2", "dropout=0.3")
    run(store, other, tmp_path / "run", [1], on_epoch=seen.append, overwrite=True)
    assert seen[-1].seed == 1  # another configuration is another training


def test_other_features_of_the_same_name_are_another_training(path, tmp_path):
    """Another program may write a store anew and give its streams no fingerprint."""
    seen: list[Epoch] = []
    again: dict[str, Any] = {"on_epoch": seen.append, "overwrite": True}
    for _ in range(2):
        run(FeatureStore(path), small("epochs=1"), tmp_path / "run", [1], **again)
    assert len(seen) == 1
    with h5py.File(path, "r+") as file:
        values = file["streams/albert/values"]
        values[:] = -values[:]
    run(FeatureStore(path), small("epochs=1"), tmp_path / "run", [1], **again)
    assert len(seen) == 2


def test_a_store_of_ours_is_known_by_its_checksums_wherever_it_lies(store, tmp_path):
    streams = [
        StreamColumn(stream.spec, stream.lengths, [stream.values])
        for stream in store.streams.values()
    ]
    rows = [store.utterance(row) for row in range(len(store))]
    digests = []
    for name in ("one.h5", "two.h5"):
        write_store(tmp_path / name, dataset="d", profile="p", utterances=rows, streams=streams)
        digests.append(data_of(FeatureStore(tmp_path / name), small()).digest)
    assert digests[0] == digests[1]


def test_other_labels_are_another_training(path, tmp_path):
    run(FeatureStore(path), small("epochs=1"), tmp_path / "run", [1])
    with h5py.File(path, "r+") as file:
        file["utterances/label"][0] += 0.5
    seen: list[Epoch] = []
    again: dict[str, Any] = {"on_epoch": seen.append, "overwrite": True}
    run(FeatureStore(path), small("epochs=1"), tmp_path / "run", [1], **again)
    assert len(seen) == 1


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
        ".lock",
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
        predict(checkpoint.model(), data, rows), store.labels[rows.numpy()].astype(float)
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


@pytest.mark.slow
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


@pytest.mark.parametrize("averaging", [0.0, 0.5, 2.0])
def test_what_is_kept_is_the_running_average_of_the_weights(store, monkeypatch, averaging):
    """It forgets over `averaging` epochs, faster at first; 0 keeps the last step's weights."""
    config = small("epochs=3", f"averaging={averaging}")
    key = "network.predictor.layers.0.weight"
    seen: list[np.ndarray] = []
    take = trainer._Training._take_into_average

    def record(training, horizon):
        seen.append(training.model.state_dict()[key].double().numpy().copy())
        take(training, horizon)

    monkeypatch.setattr(trainer._Training, "_take_into_average", record)
    outcome = train_seed(data_of(store, config), config, 1)
    an_epoch = len(seen) // 3
    expected = np.zeros_like(seen[0])
    for step, weights in enumerate(seen[: an_epoch * outcome.best_epoch]):
        share = max(1 / max(1, averaging * an_epoch), 10 / (10 + step))
        expected += share * (weights - expected)
    np.testing.assert_allclose(outcome.state[key].double().numpy(), expected, atol=1e-6)
