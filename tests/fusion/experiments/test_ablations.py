"""Table 2: every variant a run, finished runs kept, the paper's layout."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from clipmsa.cache import FeatureStore
from clipmsa.cli.main import main
from clipmsa.fusion.experiments.ablations import ablate, choose_variants
from clipmsa.fusion.experiments.variants import find_variant
from clipmsa.fusion.metrics.regression import METRICS
from clipmsa.fusion.networks.clip_msa import ClipMSAConfig
from clipmsa.fusion.training.config import RunConfig, configured

pytestmark = pytest.mark.slow  # They train.

SMALL = ["d=16", "heads=4", "d_ff=32", "transformer_ff=32", "epochs=2"]


@pytest.fixture
def path(tmp_path, plant) -> Path:
    plant(tmp_path / "store.h5", counts=(40, 12, 16))
    return tmp_path / "store.h5"


def run_all(path: Path, names: str, **more):
    fresh = []
    out = path.parent / "ablate"
    results = ablate(
        FeatureStore(path),
        choose_variants(names),
        out,
        seeds=more.pop("seeds", [1, 2]),
        settings=[*SMALL, *more.pop("settings", [])],
        on_variant=lambda variant, run: fresh.append(variant.name) if run.fresh else None,
        **more,
    )
    return out, results, fresh


def test_the_csv_has_a_row_a_variant_and_two_columns_a_metric(path):
    out, results, _ = run_all(path, "full,no-clip-t")
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["row"]) for row in rows] == [
        ("full", "CLIP-MSA"),
        ("no-clip-t", "w/o CLIP-T"),
    ]
    expected = [f"{key}_{kind}" for key in METRICS for kind in ("mean", "std")]
    assert list(rows[0]) == ["variant", "row", *expected]
    for row, (_, run) in zip(rows, results, strict=True):
        per_seed = run.metrics["test"]["mae"]["per_seed"]
        assert float(row["mae_mean"]) == pytest.approx(np.mean(per_seed))
        assert float(row["mae_std"]) == pytest.approx(np.std(per_seed))


def test_the_tables_have_the_papers_layout(path):
    out, results, _ = run_all(path, "full,order-atv")
    test = results[0][1].metrics["test"]
    markdown = (out / "table.md").read_text().splitlines()
    assert markdown[0] == "| Model | Acc-2 | F1-Score | MAE ↓ | Corr |"
    cells = [cell.strip() for cell in markdown[2].split("|")[1:-1]]
    assert cells[0] == "CLIP-MSA"
    both = f"{100 * test['has0_acc2']['mean']:.2f}/{100 * test['non0_acc2']['mean']:.2f}"
    assert cells[1].startswith(f"{both} ± ")
    assert cells[3].startswith(f"{test['mae']['mean']:.3f} ± ")
    latex = (out / "table.tex").read_text()
    assert re.search(r"^\(A,T,V\) & \$.*\\pm.*\$ \\\\$", latex, re.MULTILINE)
    assert latex.count(r"\hline") == 3


def test_a_finished_run_is_not_run_again(path):
    assert run_all(path, "full,no-clip")[2] == ["full", "no-clip"]
    before = (path.parent / "ablate" / "table.csv").read_text()
    assert run_all(path, "full,no-clip,no-coattn")[2] == ["no-coattn"]
    assert (path.parent / "ablate" / "table.csv").read_text().startswith(before)


def test_another_setting_seed_or_feature_is_another_run(path):
    run_all(path, "full")
    other = {"settings": ["dropout=0.2"], "overwrite": True}
    assert run_all(path, "full", **other)[2] == ["full"]
    assert run_all(path, "full", **other, seeds=[3])[2] == ["full"]
    with h5py.File(path, "r+") as file:
        file["streams/albert"].attrs["fingerprint"] = "another"
    assert run_all(path, "full", **other, seeds=[3])[2] == ["full"]


def test_a_run_that_was_interrupted_is_run_again(path):
    out, _, _ = run_all(path, "full")
    (out / "full" / "model-2.pt").unlink()
    assert run_all(path, "full")[2] == ["full"]


def test_a_variant_is_the_same_over_any_base_configuration(tmp_path):
    """The config.toml of one variant as the base of all does not make them all that variant."""
    base = find_variant("no-clip-no-coattn").applied(configured(RunConfig(), settings=["d=64"]))
    for variant in choose_variants("table2"):
        applied = variant.applied(base).model
        assert isinstance(applied, ClipMSAConfig)
        assert replace(applied, d=ClipMSAConfig().d) == variant.model
        assert applied.d == 64


def test_table2_is_all_nine_rows():
    assert len(choose_variants("table2")) == 9


@pytest.mark.slow
def test_rows_fall_by_what_the_planted_signal_says(tmp_path, plant, capsys):
    """Label planted in the CLIP streams alone: without them nothing is left to learn."""
    share = {"clip_text": 1.0, "esresnext": 1.0, "clip_image": 1.0}
    oracle = plant(tmp_path / "store.h5", (400, 100, 250), share=share)
    small = [word for setting in SMALL[:-1] for word in ("--set", setting)]
    arguments = ["--seeds", "1,2", "--set", "epochs=8", "--set", "learning_rate=0.002", *small]
    out = tmp_path / "out"
    line = ["ablate", "--features", str(tmp_path / "store.h5"), "--out", str(out)]
    status = main([*line, *arguments])
    assert status == 0
    assert "| CLIP-MSA |" in capsys.readouterr().out
    with (out / "table.csv").open() as file:
        corr = {row["variant"]: float(row["corr_mean"]) for row in csv.DictReader(file)}
    assert len(corr) == 9
    assert corr["full"] > 0.85 * oracle
    assert abs(corr["no-clip"]) < 0.2
    assert abs(corr["no-clip-no-coattn"]) < 0.2
    for variant in ("no-clip-t", "no-clip-a", "no-clip-v"):  # two of three parts are left
        assert 0.5 * oracle < corr[variant] < corr["full"] - 0.05
    for variant in ("order-atv", "order-vta"):  # no order is planted
        assert corr[variant] == pytest.approx(corr["full"], abs=0.08)
