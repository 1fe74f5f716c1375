"""Run folders under accidents: other runs, two at once, stores replaced, files lost or damaged."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ClipmsaError, RunError, TrainingError
from clipmsa.cache.files import sole_writer
from clipmsa.cli.main import main
from clipmsa.fusion.experiments import jobs
from clipmsa.fusion.experiments.runs import run
from clipmsa.fusion.experiments.tuning import tune
from clipmsa.fusion.training.checkpoint import load_checkpoint
from clipmsa.fusion.training.config import RunConfig, configured
from clipmsa.fusion.training.outcome import Epoch

pytestmark = pytest.mark.slow  # They train.

SMALL = ["d=16", "heads=4", "d_ff=32", "transformer_ff=32", "epochs=1"]


def small(*settings: str) -> RunConfig:
    return configured(RunConfig(), settings=[*SMALL, *settings])


@pytest.fixture
def path(tmp_path, plant) -> Path:
    plant(tmp_path / "store.h5", counts=(24, 8, 8))
    return tmp_path / "store.h5"


@pytest.fixture
def out(path) -> Path:
    """The folder of a finished run of seeds 1 and 2."""
    folder = path.parent / "run"
    run(FeatureStore(path), small(), folder, [1, 2])
    return folder


def correct_labels(path: Path) -> None:
    """Write the store anew, as `extract` does, with other labels of the same utterances."""
    new = path.with_suffix(".new")
    new.write_bytes(path.read_bytes())
    with h5py.File(new, "r+") as file:
        file["utterances/label"][:] = -file["utterances/label"][:]
    new.replace(path)


def command(path: Path, out: Path, *more: str) -> int:
    words = [word for setting in SMALL for word in ("--set", setting)]
    line = ["train", "--features", str(path), "--out", str(out), "--workers", "1", *words]
    return main([*line, "--device", "cpu", "--seeds", "1,2", *more])


# -- what a folder holds is not replaced unasked ---------------------------------------------------


def test_a_run_of_other_settings_is_replaced_only_when_asked(path, out, capsys):
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert command(path, out, "--set", "dropout=0.3") == 1
    told = capsys.readouterr().err
    assert "holds another run (model.dropout: 0.1 -> 0.3)" in told
    assert "--out" in told
    assert "--overwrite" in told
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert command(path, out, "--set", "dropout=0.3", "--overwrite") == 0
    model: Any = load_checkpoint(out / "model-1.pt").config.model
    assert model.dropout == 0.3


def test_a_default_folder_that_holds_a_run_of_another_store_is_kept(path, tmp_path, monkeypatch):
    """Two data sets whose stores have one name, a/mosi.h5 and b/mosi.h5."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mosi.h5").write_bytes(path.read_bytes())
    correct_labels(tmp_path / "b" / "mosi.h5")
    words = [word for setting in SMALL for word in ("--set", setting)]
    line = ["train", "--seeds", "1", "--workers", "1", "--device", "cpu", *words, "--features"]
    assert main([*line, "a/mosi.h5"]) == 0
    before = Path("runs/mosi/metrics.json").read_bytes()
    assert main([*line, "b/mosi.h5"]) == 1
    assert Path("runs/mosi/metrics.json").read_bytes() == before


def test_a_run_whose_models_were_deleted_is_known_by_its_metrics(path, out):
    for model in out.glob("model-*.pt"):
        model.unlink()
    correct_labels(path)
    with pytest.raises(RunError, match="of a store with other utterances, splits, labels"):
        run(FeatureStore(path), small(), out, [1, 2])


def test_nothing_is_left_of_a_run_that_was_replaced(path, out):
    run(FeatureStore(path), small("dropout=0.3"), out, [1], overwrite=True)
    assert [file.name for file in out.glob("model-*")] == ["model-1.pt"]
    run(FeatureStore(path), small("dropout=0.3"), out, [1])  # and it is not refused after


def test_a_run_is_given_more_seeds_without_asking(path, out):
    assert run(FeatureStore(path), small(), out, [1, 2, 3]).metrics["seeds"] == [1, 2, 3]


# -- two at once -----------------------------------------------------------------------------------


def test_a_folder_that_another_run_writes_to_is_refused(path, out, tmp_path):
    with sole_writer(out), pytest.raises(ClipmsaError, match="another run is writing to it"):
        run(FeatureStore(path), small(), out, [1, 2])
    with sole_writer(tmp_path / "tune"), pytest.raises(ClipmsaError, match="another run is writ"):
        tune(FeatureStore(path), small(), tmp_path / "tune", trials=1, search={}, seeds=[1])
    with sole_writer(tmp_path / "ablate"):
        line = ["ablate", "--features", str(path), "--out", str(tmp_path / "ablate")]
        assert main([*line, "--variants", "full", "--seeds", "1", "--set", "epochs=1"]) == 1


def test_a_run_holds_its_folder_until_it_ends(path, tmp_path):
    refused = []

    def another(epoch: Epoch) -> None:
        with pytest.raises(ClipmsaError, match="another run is writing to it"):
            run(FeatureStore(path), small("dropout=0.3"), tmp_path / "run", [1], overwrite=True)
        refused.append(epoch.seed)

    run(FeatureStore(path), small(), tmp_path / "run", [1, 2], on_epoch=another)
    assert refused == [1, 2]
    run(FeatureStore(path), small(), tmp_path / "run", [1, 2])


# -- a store that is replaced while a run works ----------------------------------------------------


def test_a_store_replaced_between_two_seeds_ends_the_run(path, tmp_path):
    def replace(epoch: Epoch) -> None:
        if epoch.seed == 1:
            correct_labels(path)

    with pytest.raises(TrainingError, match="written anew since this run began"):
        run(FeatureStore(path), small(), tmp_path / "run", [1, 2], on_epoch=replace)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_store_replaced_after_the_last_seed_leaves_the_run_of_the_first(path, tmp_path):
    labels = FeatureStore(path).labels.tolist()

    def replace(epoch: Epoch) -> None:
        correct_labels(path)

    run(FeatureStore(path), small(), tmp_path / "run", [1], on_epoch=replace)
    lines = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]
    assert [float(line.split(",")[2]) for line in lines] == pytest.approx(labels[24:])


def test_a_store_replaced_between_two_trials_ends_the_search(path, tmp_path):
    space = {"dropout": {"low": 0.0, "high": 0.5}}

    def replace(number: int, mae: float, params: dict) -> None:
        correct_labels(path)

    with pytest.raises(TrainingError, match="written anew since this run began"):
        tune(FeatureStore(path), small(), tmp_path / "tune", trials=2, search=space, seeds=[1],
             on_trial=replace)  # fmt: skip


def test_a_checkpoint_of_another_run_is_not_assembled(path, out, monkeypatch):
    """Something wrote to the folder that does not know of its lock, such as an older clipmsa."""
    run(FeatureStore(path), small("dropout=0.3"), path.parent / "other", [1])
    (out / "model-1.pt").unlink()

    def foreign(job: jobs.Job, on_epoch: object) -> None:
        job.path.write_bytes((path.parent / "other" / "model-1.pt").read_bytes())

    monkeypatch.setattr(jobs, "train_job", foreign)
    with pytest.raises(TrainingError, match=r"model-1\.pt: of other settings or data"):
        run(FeatureStore(path), small(), out, [1, 2])
    assert not (out / "metrics.json").exists()


# -- files lost or damaged -------------------------------------------------------------------------


def flipped(good: bytes) -> bytes:
    """One byte of the largest tensor is another."""
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        record = max(archive.infolist(), key=lambda r: ("/data/" in r.filename, r.file_size))
        content = archive.read(record)
    at = good.index(content) + len(content) // 2
    return good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]


DAMAGE = {
    "empty": lambda good: b"",
    "text": lambda good: b"hello",
    "half": lambda good: good[: len(good) // 2],
    "zeros": lambda good: bytes(len(good)),
    "a byte of a weight": flipped,
    "a byte of a name": lambda good: good.replace(b"predictor_hidden", b"predictor_hiddem"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_model_is_trained_anew_and_told(path, out, damage):
    reference = load_checkpoint(out / "model-1.pt").outcome
    (out / "model-1.pt").write_bytes(damage((out / "model-1.pt").read_bytes()))
    told: list[str] = []
    trained: list[Epoch] = []
    again = run(FeatureStore(path), small(), out, [1, 2], on_epoch=trained.append,
                on_note=told.append)  # fmt: skip
    assert {epoch.seed for epoch in trained} == {1}
    (line,) = told
    assert "model-1.pt" in line
    assert "seed 1 is trained anew" in line
    assert "weights_only" not in line
    assert "\n" not in line
    assert again.outcomes[0].history == reference.history


@pytest.mark.parametrize("damage", list(DAMAGE.values())[:5], ids=list(DAMAGE)[:5])
def test_damaged_progress_is_begun_anew_and_told(path, tmp_path, damage):
    out = tmp_path / "run"
    out.mkdir()
    torch.save({"format": "clipmsa-progress", "key": "k", "x": torch.ones(99)}, out / "good.pt")
    (out / ".progress-1.pt").write_bytes(damage((out / "good.pt").read_bytes()))
    told: list[str] = []
    run(FeatureStore(path), small(), out, [1], on_note=told.append)
    (line,) = told
    assert ".progress-1.pt" in line
    assert "seed 1 begins anew" in line
    assert not (out / ".progress-1.pt").exists()


@pytest.mark.parametrize("name", ["config.toml", "history.csv", "predictions.csv", "metrics.json"])
def test_a_file_that_is_gone_comes_back(path, out, name):
    before = (out / name).read_bytes()
    (out / name).unlink()
    assert not run(FeatureStore(path), small(), out, [1, 2]).fresh
    assert (out / name).read_bytes() == before


def test_a_folder_deleted_under_a_run_is_whole_in_the_end(path, tmp_path):
    def delete(epoch: Epoch) -> None:
        (tmp_path / "run" / "config.toml").unlink()

    run(FeatureStore(path), small(), tmp_path / "run", [1], on_epoch=delete)
    assert configured(RunConfig(), tmp_path / "run" / "config.toml") == small()


def test_metrics_name_the_data_they_are_of(path, out):
    digest = load_checkpoint(out / "model-1.pt").data
    assert json.loads((out / "metrics.json").read_text())["features"]["digest"] == digest
