"""The way from Python: from clips to scores, as the command goes it, and what its results show."""

from __future__ import annotations

import inspect
import json
import logging
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import html5lib
import pandas as pd
import pytest

import clipmsa
from clipmsa.cache.errors import ConfigError, RunError
from clipmsa.extract.datasets.demo import write_demo_dataset
from clipmsa.extract.engine.rebuild import ClipEncoders
from clipmsa.progress import progress

SMALL = {"d": 16, "heads": 2, "d_ff": 16, "epochs": 2}


class Way(NamedTuple):
    """What the steps gave, each from what the one before it gave."""

    clips: Path
    store: clipmsa.FeatureStore
    run: clipmsa.Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, plant) -> tuple[Path, clipmsa.Run]:
    """A planted store and a run on it."""
    folder = tmp_path_factory.mktemp("planted")
    plant(folder / "s.h5", counts=(24, 8, 12))
    run = clipmsa.train(
        str(folder / "s.h5"), str(folder / "run"), settings=SMALL, seeds=(1, 2), workers=1,
        device="cpu", progress=False,
    )  # fmt: skip
    return folder, run


@pytest.fixture(scope="module")
def way(tmp_path_factory) -> Way:
    folder = tmp_path_factory.mktemp("way")
    write_demo_dataset(folder / "clips", clips=12)
    store = clipmsa.extract_features(
        folder / "clips", folder / "s.h5", profile="tiny", weights="random",
        streams=["albert", "esresnext"], device="cpu", progress=False,
    )  # fmt: skip
    run = clipmsa.train(
        store, folder / "run", settings=SMALL, seeds=[1], device="cpu", progress=False
    )
    return Way(folder / "clips", store, run)


def test_every_public_name_is_there_and_says_what_it_is():
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    for name in clipmsa.__all__:
        assert inspect.getdoc(getattr(clipmsa, name)), name
        assert name in page, f"docs/python.md does not name {name}"
    assert set(clipmsa.__all__) <= set(dir(clipmsa))
    with pytest.raises(AttributeError, match="no attribute 'extract_feature'"):
        _ = clipmsa.extract_feature


def test_a_run_is_tables_of_its_files(trained):
    folder, run = trained
    assert run.fresh
    assert run.metrics.index[:1].tolist() == ["has0_acc2"]
    assert run.metrics.columns.tolist() == [
        *("mean", "std", "low", "high", "seed_1", "seed_2", "constant", "ridge"),
    ]
    written = json.loads((folder / "run" / "metrics.json").read_text())
    assert run.metrics.loc["mae", "mean"] == written["test"]["mae"]["mean"]
    assert run.metrics.loc["mae", "ridge"] == written["ridge"]["mae"]
    assert run.history.groupby("seed")["epoch"].max().to_dict() == {1: 2, 2: 2}
    test = run.predictions.query("split == 'test'")
    assert test["id"].tolist() == clipmsa.FeatureStore(folder / "s.h5").ids[-12:]
    assert run.config["training"]["epochs"] == 2
    assert run.verdicts  # two epochs are too few to be better than ridge


def test_a_finished_run_is_opened_by_its_folder_and_not_trained_again(trained):
    folder, run = trained
    again = clipmsa.train(
        folder / "s.h5", folder / "run", settings=SMALL, seeds=(1, 2), workers=1, device="cpu",
        progress=False,
    )  # fmt: skip
    assert not again.fresh
    pd.testing.assert_frame_equal(clipmsa.Run(str(run.path)).metrics, run.metrics)
    assert repr(again) == f"Run({str(folder / 'run')!r}: 'full', 2 seeds, test MAE {run.mae:.3f})"


def test_a_folder_without_a_run_and_damaged_files_are_named(trained, tmp_path):
    with pytest.raises(RunError, match=r"metrics\.json: no such file"):
        clipmsa.Run(tmp_path)
    (tmp_path / "metrics.json").write_text('{"variant": "x", "seeds": 7}')
    with pytest.raises(RunError, match=r"metrics\.json: not the metrics of a run"):
        clipmsa.Run(tmp_path)
    (tmp_path / "metrics.json").write_bytes((trained[1].path / "metrics.json").read_bytes())
    (tmp_path / "history.csv").write_bytes(b"")
    with pytest.raises(RunError, match=r"history\.csv: not a table of a run"):
        _ = clipmsa.Run(tmp_path).history
    with pytest.raises(RunError, match=r"predictions\.csv: no such file"):
        _ = clipmsa.Run(tmp_path).predictions


def test_a_metric_that_this_version_does_not_know_is_shown_all_the_same(trained, tmp_path):
    content = json.loads((trained[1].path / "metrics.json").read_text())
    del content["test"]["acc7"], content["ridge"]
    content["test"]["new"] = {"mean": 1.0, "std": 0.0, "per_seed": [1.0, 1.0]}
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    metrics = clipmsa.Run(tmp_path).metrics
    assert metrics.loc["new", "seed_2"] == 1.0
    assert metrics["constant"].isna().to_dict()["new"]
    assert "acc7" not in metrics.index


def test_an_evaluation_has_the_metrics_of_the_run_and_of_groups(trained):
    folder, run = trained
    found = clipmsa.evaluate(run, folder / "s.h5", device="cpu")
    assert found.metrics["mean"].tolist() == pytest.approx(run.metrics["mean"].tolist(), abs=1e-5)
    assert found.predictions["id"].tolist() == run.predictions["id"].tolist()[-12:]
    by_face = found.metrics_by("face")
    assert by_face["utterances"].sum() == 12
    less = clipmsa.evaluate(str(run.path), folder / "s.h5", without="text,audio", device="cpu")
    assert less.metrics["mean"].to_dict() != found.metrics["mean"].to_dict()


def test_ablations_are_a_table_of_runs(trained, tmp_path):
    folder, _ = trained
    runs = clipmsa.ablate(
        folder / "s.h5", tmp_path, variants=["full", "no-clip"], settings={**SMALL, "epochs": 1},
        seeds=[1], device="cpu", workers=1, progress=False,
    )  # fmt: skip
    assert [run.variant for run in runs] == ["full", "no-clip"]
    assert runs.to_frame().index.tolist() == ["full", "no-clip"]
    assert runs.to_frame()["mae"].tolist() == [run.mae for run in runs]
    assert (tmp_path / "table.md").is_file()
    assert repr(runs) == f"Runs({str(tmp_path)!r}: full, no-clip)"


NETWORK = """
import torch
from clipmsa.fusion.networks import MeanBranch, Network, NetworkConfig

class Mean(Network):
    Config = NetworkConfig

    def __init__(self, config, streams):
        super().__init__()
        self.means = torch.nn.ModuleDict({r: MeanBranch(s.dim) for r, s in streams.items()})
        self.score = torch.nn.Linear(sum(s.dim for s in streams.values()), 1)

    def forward(self, streams):
        parts = [mean(streams[role]) for role, mean in self.means.items()]
        return self.score(torch.cat(parts, dim=1))[:, 0]
"""


def test_a_network_of_ones_own_is_trained_by_import_path_and_evaluated_where_it_is_trusted(
    trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clipmsa.cache.plugins._trusted", set())
    (tmp_path / "mean_of_api_test.py").write_text(NETWORK)
    store = trained[0] / "s.h5"
    run = clipmsa.train(
        store, "run", model="mean_of_api_test:Mean", settings={"epochs": 1}, seeds=[1],
        device="cpu", progress=False,
    )  # fmt: skip
    assert run.variant == "Mean"
    monkeypatch.setattr("clipmsa.cache.plugins._trusted", set())  # as in a new process
    with pytest.raises(clipmsa.ClipmsaError, match="`trust='mean_of_api_test'`"):
        clipmsa.evaluate(run, store, device="cpu")
    found = clipmsa.evaluate(run, store, device="cpu", trust="mean_of_api_test")
    assert found.metrics.loc["mae", "mean"] == pytest.approx(run.mae, abs=1e-5)


def test_settings_are_checked_and_named(trained):
    folder, _ = trained
    for settings in ({"dd": 16}, {"d": "wide"}, {"network": "mult"}):
        with pytest.raises(ConfigError, match="settings"):
            clipmsa.train(folder / "s.h5", folder / "other", settings=settings)
    with pytest.raises(ConfigError, match="give one of the two"):
        clipmsa.train(folder / "s.h5", folder / "other", variant="no-clip", model="mult")
    assert not (folder / "other").exists()


def test_results_say_themselves_in_a_line_and_a_notebook_shows_no_markup_of_a_file(
    trained, plant, tmp_path
):
    folder, run = trained
    hostile = tmp_path / "<b>\x1b[31m"
    hostile.mkdir()
    plant(hostile / "s.h5", counts=(8, 4, 4))
    shown = [
        clipmsa.FeatureStore(hostile / "s.h5"),
        clipmsa.evaluate(run, folder / "s.h5", device="cpu"),
        run,
    ]
    for result in shown:
        assert len(repr(result).splitlines()) == 1
        assert "\x1b" not in repr(result)
        html = result._repr_html_()
        html5lib.HTMLParser(strict=True).parseFragment(html)
        assert "<b>" not in html
        assert "<table" in html
        assert len(result.to_frame())


def test_a_store_and_a_run_are_values_that_can_be_sent(trained):
    run = trained[1]
    assert repr(pickle.loads(pickle.dumps(run))) == repr(run)


def test_what_happens_is_logged_and_what_may_be_amiss_is_a_warning(trained, caplog):
    folder, _ = trained
    with caplog.at_level(logging.INFO, logger="clipmsa"):
        clipmsa.train(
            folder / "s.h5", folder / "run", settings={**SMALL, "epochs": 1}, seeds=[1],
            device="cpu", workers=1, progress=False, overwrite=True,
        )  # fmt: skip
    assert next((r.levelname, r.getMessage()) for r in caplog.records) == (
        "INFO",
        f"{folder / 's.h5'}: 44 utterances (train 24, valid 8, test 12)",
    )
    [warning] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "held another run" in warning
    clipmsa.train(  # for the tests that come after
        folder / "s.h5", folder / "run", settings=SMALL, seeds=(1, 2), device="cpu", workers=1,
        progress=False, overwrite=True,
    )  # fmt: skip


def test_progress_is_lines_where_there_is_no_terminal_and_nothing_where_it_is_not_wanted(capsys):
    for show in (True, False):
        with progress("train", "epochs", show) as advance:
            advance(1, 2)
            advance(2, 2, "seed 1")
    assert capsys.readouterr().err.count("train 2/2 epochs") == 1


@pytest.mark.slow
def test_the_whole_way_from_clips_to_scores_and_a_page(way, tmp_path):
    manifest = clipmsa.read_dataset(str(way.clips))
    assert manifest.to_frame()["id"].tolist() == way.store.ids
    assert repr(manifest) == f"Manifest({manifest.dataset!r}: 12 clips of 3 videos)"
    assert way.store.to_frame()["rows_albert"].max() == 1
    video = way.clips / "Raw" / "demo00" / "0.mp4"
    scorer = clipmsa.load(way.run, device="cpu")
    scores = scorer.score(str(video), text="it was great")
    [one] = scores
    assert one.text == "it was great"
    assert one.contributions
    assert scores.to_frame()["contribution_text"].tolist() == [one.contributions["text"]]
    assert repr(scores) == "Scores(1 utterance)"
    [again] = scorer.stream(video, clipmsa.Script("it was great"))
    assert again == one
    streamed = list(scorer.stream([way.clips / "Raw" / "demo01", video]))
    assert [Path(row.file).parent.name for row in streamed] == [*["demo01"] * 4, "demo00"]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    [failed] = scorer.score(tmp_path / "broken.mp4")
    assert failed.error
    assert failed.score is None
    with pytest.raises(clipmsa.ClipmsaError, match="give one of"):
        scorer.score(video, text="a", transcribe=True)
    page = clipmsa.write_report(way.run, tmp_path / "r.html", device="cpu", progress=False)
    assert "</html>" in Path(page).read_text(encoding="utf-8")
    assert page.untrained == ["albert", "esresnext"]
    assert f'href="{tmp_path / "r.html"}"' in page._repr_html_()


@pytest.mark.slow
def test_a_scorer_loads_its_encoders_once(way, monkeypatch):
    from clipmsa import scoring

    made = []

    class Counted(ClipEncoders):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            made.append(1)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(scoring, "ClipEncoders", Counted)
    scorer = clipmsa.load(way.run, device="cpu")
    for name in ("demo00", "demo01", "demo02"):
        scorer.score(way.clips / "Raw" / name / "0.mp4", text="well")
    assert made == [1]
