"""A network from outside the package: one file, as docs/extending.md has it, through every verb."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipmsa.cache import plugins
from clipmsa.cache.errors import CheckpointError, ConfigError
from clipmsa.fusion.experiments.variants import find_model, find_variant
from clipmsa.fusion.training.checkpoint import load_checkpoint
from clipmsa.fusion.training.config import RunConfig, configured

DOCS = Path(__file__).parents[3] / "docs" / "extending.md"
NAME = "my_networks:GatedSum"


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder that holds my_networks.py, and is the current one."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    (code,) = (block for block in blocks if "class GatedSum(" in block)
    (tmp_path / "my_networks.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_trusted", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    yield tmp_path
    sys.modules.pop("my_networks", None)


def clipmsa(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in the current folder, as a process of its own that has trusted nothing yet."""
    return subprocess.run(
        [sys.executable, "-m", "clipmsa.cli.main", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_it_takes_no_more_than_25_lines(mine):
    assert len((mine / "my_networks.py").read_text().splitlines()) <= 25


def test_it_is_found_by_its_import_path_and_named_after_its_class(mine):
    assert (found := find_model(NAME)).name == "GatedSum"
    assert found.model.network == NAME
    assert find_variant(NAME) == found


def test_its_settings_are_set_by_name_and_their_types_checked(mine):
    config = configured(find_model(NAME).applied(RunConfig()), settings=["d=16", "epochs=2"])
    assert (config.model.d, config.training.epochs) == (16, 2)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"`settings`: d: must be a valid integer, got 'wide'"):
        configured(config, settings=["d=wide"])
    with pytest.raises(ConfigError, match=r"no setting 'width' of 'my_networks:GatedSum'.* d, "):
        configured(config, settings=["width=16"])
    with pytest.raises(ConfigError, match="no role 'text/other'"):
        configured(config, settings=["drop=text/other"])


def test_a_toml_file_may_name_it_and_its_settings(mine):
    (mine / "mine.toml").write_text(f'[model]\nnetwork = "{NAME}"\nd = 8\n')
    config = configured(RunConfig(), mine / "mine.toml")
    assert (config.variant, config.model.d) == ("GatedSum", 8)  # type: ignore[attr-defined]


def test_what_is_no_network_is_refused(mine):
    with pytest.raises(ConfigError, match=r"my_networks:GatedSumConfig.*no subclass of .*Network"):
        find_model("my_networks:GatedSumConfig")
    with pytest.raises(ConfigError, match=r"my_networks\.py has no 'Other'"):
        find_model("my_networks:Other")
    with pytest.raises(ConfigError, match="importing theirs failed with ModuleNotFoundError"):
        find_model("theirs:Net")


@pytest.mark.slow
def test_it_is_trained_compared_evaluated_and_reported(mine, plant):
    plant(mine / "s.h5")
    train = ("train", "--features", "s.h5", "--model", NAME, "--set", "d=16", "--epochs", "2")
    for workers in ("1", "2"):  # in this process, and in two that are started for it
        done = clipmsa(*train, "--seeds", "1,2", "--workers", workers, "--out", f"run{workers}")
        assert done.returncode == 0, done.stderr
    with (mine / "run1" / "history.csv").open(encoding="utf-8") as table:
        first = next(csv.DictReader(table))
    terms = float(first["train_task"]) + float(first["train_small"])
    assert float(first["train_loss"]) == pytest.approx(terms)
    both = [(mine / f"run{n}" / "predictions.csv").read_text() for n in (1, 2)]
    assert both[0] == both[1]
    again = clipmsa(*train, "--seeds", "1,2", "--out", "run1")
    assert "not trained again" in again.stderr
    table = clipmsa(
        *("ablate", "--features", "s.h5", "--variants", f"tfn,{NAME}"),
        *("--set", "epochs=1", "--seeds", "1", "--out", "both"),
    )
    assert table.returncode == 0, table.stderr
    assert "GatedSum" in table.stdout


@pytest.mark.slow
def test_a_checkpoint_that_names_it_runs_nothing_until_it_is_trusted(mine, plant):
    plant(mine / "s.h5")
    made = clipmsa(
        *("train", "--features", "s.h5", "--model", NAME, "--epochs", "1"),
        *("--seeds", "1", "--out", "run"),
    )
    assert made.returncode == 0, made.stderr
    with (mine / "my_networks.py").open("a") as code:
        code.write("open('it_ran', 'w').close()\n")
    file = mine / "run" / "model-1.pt"
    with pytest.raises(CheckpointError, match=r"model-1\.pt: .*`trust='my_networks'`"):
        load_checkpoint(file)
    assert not (mine / "it_ran").exists()
    plugins.trust(["my_networks"])
    sys.path.insert(0, str(mine))
    assert type(load_checkpoint(file).model().network).__name__ == "GatedSum"
