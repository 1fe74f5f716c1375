"""What `pip install` puts on a machine that has no checkout: all of it, and it works from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Where a folder of the repository is found under the import name.
HOMES = {
    "api": "clipmsa",
    **{name: f"clipmsa/{name}" for name in ("extract", "cache", "fusion", "cli")},
}
NO_PART = ("__pycache__", ".h5", ".gitignore", ".gitkeep")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder into which a copy of the sources was installed, without what it depends on."""
    source = tmp_path_factory.mktemp("source")
    for name in ("api", "extract", "cache", "fusion", "cli"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.h5")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("installed")
    options = [
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--quiet",
        "--target",
        str(target),
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return target


def home(path: Path) -> str:
    """Where an installation has a file of the repository."""
    for folder, name in HOMES.items():
        if path.is_relative_to(folder):
            return f"{name}/{path.relative_to(folder).as_posix()}"
    raise AssertionError(path)


def test_every_file_of_the_folders_is_installed(installed):
    sources = [
        path.relative_to(ROOT)
        for name in HOMES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and not any(part in str(path) for part in NO_PART)
    ]
    assert len(sources) > 90
    missing = [str(path) for path in sources if not (installed / home(path)).is_file()]
    assert missing == [], "name them in pyproject.toml, in `packages` or in `package-data`"


def test_an_installation_works_from_another_folder(installed, tmp_path):
    code = (
        "import clipmsa, pathlib;"
        "from clipmsa.cli.main import main;"
        "from clipmsa.extract.profiles.profile import load_profile;"
        "from clipmsa.fusion.experiments.ablations import choose_variants;"
        "print(pathlib.Path(clipmsa.__file__).parent);"
        "print(len(load_profile('paper').streams), len(choose_variants('table2')));"
        "main(['--version'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    where, counts, version = done.stdout.splitlines()
    assert Path(where) == installed / "clipmsa"
    assert counts == "6 9"
    assert version.startswith("clipmsa ")
