"""A run folder read back: what train wrote is what is read, and faults name their file."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from clipmsa.cache.errors import FingerprintError, RunError, StoreError
from clipmsa.fusion import regression_metrics
from clipmsa.fusion.report import build_report, find_evidence, read_run, read_runs, render


@pytest.fixture
def folder(hostile_run, tmp_path) -> Path:
    """A copy of a run that a test may break."""
    return Path(shutil.copytree(hostile_run / "run", tmp_path / "run"))


def change_metrics(folder: Path, change) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    change(metrics)
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_the_test_predictions_give_the_metrics_that_were_written(folder):
    record = read_run(folder)
    assert record.scores.shape == (2, 24)
    for place, seed in enumerate(record.seeds):
        again = regression_metrics(record.scores[place], record.labels)
        assert again["mae"] == pytest.approx(record.score("mae").per_seed[place]), seed
    np.testing.assert_allclose(record.predictions, record.scores.mean(axis=0))


def test_curves_keep_the_epoch_that_train_kept(folder):
    record = read_run(folder)
    kept = [curve.epochs[curve.best] for curve in record.curves]
    assert kept == record.metrics["best_epochs"]
    assert [curve.seed for curve in record.curves] == [1, 2]


def test_what_a_later_version_adds_is_no_matter(folder):
    change_metrics(folder, lambda metrics: metrics.update(new={"a": 1}))
    with (folder / "history.csv").open() as file:
        rows = [[*row, "more"] for row in csv.reader(file)]
    with (folder / "history.csv").open("w") as file:
        csv.writer(file).writerows(rows)
    assert read_run(folder).curves[0].epochs == (1, 2, 3, 4)


def test_what_the_contract_does_not_promise_may_be_absent(folder):
    """Intervals and references are this program's own, a null is NaN."""

    def strip(metrics):
        del metrics["constant"], metrics["ridge"], metrics["against"]
        del metrics["test"]["mae"]["ci95"]
        metrics["test"]["corr"]["mean"] = None

    change_metrics(folder, strip)
    record = read_run(folder)
    score = record.score("mae")
    assert all(map(math.isnan, (*score.ci95, *score.references.values())))
    assert record.verdicts == []
    assert math.isnan(record.score("corr").mean)


def test_a_metric_that_this_version_does_not_know_or_the_run_lacks_is_no_reason_to_refuse(folder):
    def change(metrics):
        metrics["test"]["auroc"] = metrics["test"].pop("acc7")

    change_metrics(folder, change)
    record = read_run(folder)
    assert math.isnan(record.score("acc7").mean)
    assert len(record.score("acc7").per_seed) == len(record.seeds)
    assert "Acc-7" in render(build_report([record, read_run(folder)]))


def test_a_folder_of_runs_is_read_in_the_order_of_table_2(folder, tmp_path):
    for name in ("zebra", "order-atv", "no-clip", "full"):
        shutil.copytree(folder, tmp_path / "ablate" / name)
    (tmp_path / "ablate" / "unfinished").mkdir()
    names = [record.path.name for record in read_runs([tmp_path / "ablate", folder])]
    assert names == ["full", "no-clip", "order-atv", "zebra", "run"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", "{}", "metrics.json: not the metrics of a run"),
        ("metrics.json", "[", "metrics.json: not the metrics of a run"),
        ("predictions.csv", "id,split\na,test\n", "predictions.csv: not the predictions of a run"),
        ("predictions.csv", "id,split,label\na,valid,1\n", "holds no prediction of split test"),
        ("history.csv", "seed,epoch\n1,1\n", "history.csv: not the history of a run"),
        ("config.toml", None, "config.toml: no such file"),
    ],
)
def test_a_fault_names_the_file(folder, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(RunError, match=message):
        read_run(folder)


def test_a_folder_without_a_run_says_what_writes_one(tmp_path):
    with pytest.raises(RunError, match=r"no finished run.*`clipmsa train`"):
        read_runs([tmp_path])


def test_store_and_checkpoints_are_found_where_the_run_says(folder, hostile_run):
    evidence = find_evidence(read_run(folder))
    assert evidence.gaps == []
    assert evidence.store is not None
    assert evidence.store.path == hostile_run / "store.h5"
    assert len(evidence.models) == 2
    assert evidence.data is not None


def test_what_is_not_at_hand_is_told(folder):
    change_metrics(folder, lambda metrics: metrics["features"].update(path="gone.h5"))
    (folder / "model-2.pt").unlink()
    evidence = find_evidence(read_run(folder))
    assert (evidence.store, evidence.models, evidence.data) == (None, (), None)
    assert "gone.h5: no such feature store" in evidence.gaps[0]
    assert "model-2.pt is not in" in evidence.gaps[1]


def test_a_store_that_was_named_must_be_the_one(folder, tmp_path, plant):
    plant(tmp_path / "other.h5", counts=(8, 4, 4))
    record = read_run(folder)
    with pytest.raises(StoreError, match=r"no utterance '<script>"):
        find_evidence(record, tmp_path / "other.h5")
    change_metrics(folder, lambda m: m["features"]["fingerprints"].update(albert="older"))
    with pytest.raises(FingerprintError, match=r"'albert' is planted-albert.*trained on older"):
        find_evidence(read_run(folder), Path(record.metrics["features"]["path"]))
    [gap] = find_evidence(read_run(folder)).gaps
    assert "'albert' is planted-albert" in gap
