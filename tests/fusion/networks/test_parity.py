"""benchmarks/parity.py: our modules beside what their authors' code gave for the same weights."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/data/baselines"


@pytest.fixture
def parity(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("parity")


def test_every_network_computes_what_its_authors_code_does(parity, capsys):
    assert parity.parity(GOLDEN), capsys.readouterr().out
    assert "not compared" not in capsys.readouterr().out


def test_a_difference_and_a_missing_file_fail(parity, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    monkeypatch.setattr(parity, "CHECKS", {"mfn": parity.CHECKS["mfn"]})
    assert parity.parity(folder)
    with np.load(GOLDEN / "mfn.npz") as file:
        stored = dict(file)
    stored["ragged.out.pred"] = stored["ragged.out.pred"] + 2e-9
    np.savez(folder / "mfn.npz", **stored)
    capsys.readouterr()
    assert not parity.parity(folder)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed if "ABOVE" in line] == ["ragged.out.pred"]
    (folder / "mfn.npz").unlink()
    assert not parity.parity(folder)
    assert "mfn: no " in capsys.readouterr().out


def test_a_recipe_that_is_not_the_files_is_told(parity, tmp_path):
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    recipe = folder / "recipe.py"
    recipe.write_text(recipe.read_text().replace("golden-1", "golden-2"))
    with pytest.raises(SystemExit, match=r"recipe.py makes other params of 'mfn' than mfn.npz is"):
        parity.parity(folder)
