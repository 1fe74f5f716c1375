"""Search over the configuration: on validation alone, going on, and what it writes."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import shutil
import sqlite3
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ClipmsaError, ConfigError, RunError
from clipmsa.cli.main import main
from clipmsa.fusion.experiments.tuning import SEARCH, read_search, tune
from clipmsa.fusion.networks.clip_msa import ClipMSAConfig
from clipmsa.fusion.training.checkpoint import load_checkpoint
from clipmsa.fusion.training.config import RunConfig, configured

pytestmark = pytest.mark.slow  # They train.

SMALL = ["d=16", "heads=4", "d_ff=32", "transformer_ff=32", "epochs=2"]
SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "residual": {
    "choices": ["gated", "additive"]}, "transformer_layers": {"low": 1, "high": 2}}  # fmt: skip


@pytest.fixture
def path(tmp_path, plant) -> Path:
    plant(tmp_path / "store.h5", counts=(40, 12, 16))
    return tmp_path / "store.h5"


def search(path: Path, trials: int, **more):
    return tune(
        FeatureStore(path),
        configured(RunConfig(), settings=SMALL),
        path.parent / "tune",
        trials=trials,
        search=more.pop("space", SPACE),
        seeds=[1],
        **more,
    )


@pytest.mark.slow
def test_the_best_trial_is_a_file_that_train_takes(path):
    tuned = search(path, 3)
    with (path.parent / "tune" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == tuned.trials == 3
    best = min(rows, key=lambda row: float(row["valid_mae"]))
    assert float(best["valid_mae"]) == pytest.approx(tuned.valid_mae)
    config = configured(RunConfig(), path.parent / "tune" / "best.toml")
    assert config == tuned.config
    assert config.training.learning_rate == pytest.approx(float(best["learning_rate"]))
    assert isinstance(config.model, ClipMSAConfig)
    assert (config.model.residual, config.model.d) == (best["residual"], 16)


def test_the_test_split_is_never_predicted_nor_needed(path):
    with h5py.File(path, "r+") as file:
        file["utterances/label"][-16:] = np.nan
        for name in file["streams"]:
            stream = file[f"streams/{name}"]
            stream["values"][stream["offsets"][52] :] = np.nan
    search(path, 1)
    (file_,) = (path.parent / "tune" / "trial-0").glob("model-*.pt")
    assert load_checkpoint(file_).outcome.predictions.keys() == {"valid"}


def test_a_search_goes_on_where_it_was_and_another_is_refused(path):
    told: list[int] = []
    search(path, 2, on_trial=lambda number, mae, params: told.append(number))
    assert search(path, 3, on_trial=lambda number, mae, params: told.append(number)).trials == 3
    assert told == [0, 1, 2]
    with pytest.raises(ConfigError, match="trials of another search"):
        search(path, 4, space={"dropout": {"low": 0.0, "high": 0.5}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("d = 64", r"no \[search\] table"),
        ("[search]\nd = 64", "must be { low, high, log"),
        ("[search]\nwidth = { choices = [1] }", "no setting 'width'"),
        ('[search]\nd = { low = "a", high = 3 }', "must be { low, high, log"),
        ("[search]\nd = { low = 1 }", "must be { low, high, log"),
    ],
)
def test_a_search_that_makes_no_sense_is_named(tmp_path, content, message):
    (tmp_path / "search.toml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_search(tmp_path / "search.toml")


def test_the_shipped_search_is_a_search():
    assert "learning_rate" in read_search(SEARCH)


def test_the_command_says_how_to_train_the_best(path, capsys):
    (path.parent / "search.toml").write_text("[search]\ndropout = { low = 0.0, high = 0.5 }\n")
    line = ["tune", "--features", str(path), "--trials", "2", "--out", str(path.parent / "out")]
    line += ["--search", str(path.parent / "search.toml"), "--workers", "1"]
    assert main([*line, *(word for setting in SMALL for word in ("--set", setting))]) == 0
    assert "clipmsa train --features" in capsys.readouterr().err
    assert (path.parent / "out" / "best.toml").exists()


# ---- a database that anybody may have written

DAMAGE = {
    "no database": "a text",
    "of something else": "DROP TABLE studies; CREATE TABLE studies (x INT)",
    "of another version": "UPDATE alembic_version SET version_num = 'x'",
    "trials without values": "DELETE FROM trial_params",
    "trials without a score": "DELETE FROM trial_values",
    "a score that is no number": "UPDATE trial_values SET value = 'x'",
    "a score of infinity": "UPDATE trial_values SET value = NULL, value_type = 'INF_NEG'",
    "a space that is none": "UPDATE trial_params SET distribution_json = '{}'",
    "a choice beyond": "UPDATE trial_params SET param_value = 99",
    "a search that is none": "UPDATE study_user_attributes SET value_json = '[1]'",
    "another direction": "UPDATE study_directions SET direction = 'MAXIMIZE'",
    "no direction": "DELETE FROM study_directions",
    "a state of its own": "UPDATE trials SET state = 'ODD'",
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory, plant) -> Path:
    """A folder with a store and a search of two trials, both done."""
    folder = tmp_path_factory.mktemp("searched")
    plant(folder / "store.h5", counts=(12, 6, 6))
    search(folder / "store.h5", 2)
    return folder


@pytest.fixture
def copied(searched, tmp_path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "copy")) / "store.h5"


def database_of(path: Path) -> Path:
    return path.parent / "tune" / "study.db"


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_database_of_another_kind_is_refused_in_one_line(copied, damage):
    if damage == "a text":
        database_of(copied).write_text(damage)
    else:
        with contextlib.closing(sqlite3.connect(database_of(copied))) as database:
            database.executescript(damage)
    with pytest.raises(RunError, match=r"study\.db: .*use another `out`") as caught:
        search(copied, 2)
    assert "\n" not in str(caught.value)


def test_a_database_that_is_no_file_is_not_opened(copied):
    database_of(copied).unlink()
    os.mkfifo(database_of(copied))
    with pytest.raises(RunError, match="not a regular file"):
        search(copied, 2)


def test_a_damaged_database_is_read_or_refused(apart, copied):
    whole = database_of(copied).read_bytes()
    for seed in range(40):
        chance = random.Random(seed)
        content = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(content))
            content[place : place + 4] = chance.randbytes(4)
        database_of(copied).write_bytes(content)
        outcome = apart(partial(search, copied, 2), ClipmsaError)
        assert outcome.how != "ended", f"seed {seed}: {outcome.told}"
        assert "\n" not in outcome.told


def test_the_draws_of_a_search_depend_on_its_seed_alone(searched, copied):
    before = (searched / "tune" / "trials.csv").read_bytes()
    shutil.rmtree(copied.parent / "tune")
    search(copied, 2)
    assert (copied.parent / "tune" / "trials.csv").read_bytes() == before
