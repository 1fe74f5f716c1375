"""How the folders lean on each other: cli -> {extract, fusion} -> cache; and what starts fast."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "cache": {"cache"},
    "extract": {"extract", "cache"},
    "fusion": {"fusion", "cache"},
    "cli": {"cli", "extract", "fusion", "cache"},
}
ENCODER_LIBRARIES = {
    "transformers",
    "open_clip",
    "facenet_pytorch",
    "torchvision",
    "torchaudio",
    "av",
    "PIL",
}
PAGE_LIBRARIES = {"plotly", "jinja2"}


def dotted(path: Path) -> str:
    """The import name of a module or a folder of ours."""
    return ".".join(["clipmsa", *path.relative_to(ROOT).with_suffix("").parts])


MODULES = sorted(dotted(p) for folder in ALLOWED for p in (ROOT / folder).rglob("[!_]*.py"))


def imports(source: Path) -> set[str]:
    """Every dotted name that a file imports, in full."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = [dotted(source.parent)] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_it_may(folder):
    for source in (ROOT / folder).rglob("*.py"):
        ours = {n.split(".")[1] for n in imports(source) if n.startswith("clipmsa.")}
        assert ours & ALLOWED.keys() <= ALLOWED[folder], source


@pytest.mark.parametrize("folder", [*ALLOWED, "tests", "benchmarks", "examples"])
def test_folders_are_imported_under_clipmsa(folder):
    for source in (ROOT / folder).rglob("*.py"):
        tops = {name.split(".")[0] for name in imports(source)}
        assert not tops & ALLOWED.keys(), f"{source}: write clipmsa.<folder>"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_model_and_its_training_know_nothing_of_the_report():
    for source in (ROOT / "fusion").glob("*.py"):
        assert not any(n.startswith("clipmsa.fusion.report") for n in imports(source)), source


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import clipmsa.cli.main", {"torch", "pandas", *ENCODER_LIBRARIES, *PAGE_LIBRARIES}),
        ("import clipmsa.cache", {"torch", "pandas"}),
        ("import clipmsa.fusion.runs", {"pandas", *ENCODER_LIBRARIES, *PAGE_LIBRARIES}),
        ("import clipmsa.fusion.report", ENCODER_LIBRARIES),
        ("import clipmsa.extract", {"torch", *ENCODER_LIBRARIES}),
    ],
)
def test_importing_loads_only_what_the_stage_needs(statement, absent):
    code = f"{statement}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not absent & set(loaded)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are Linux's")
@pytest.mark.parametrize(("users_own", "aligned"), [(None, True), ("0", False)])
def test_the_command_has_torch_put_large_tensors_on_huge_pages(monkeypatch, users_own, aligned):
    """What keeps a long run's memory flat. Such tensors begin on a page, which shows it."""
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    if users_own is not None:
        monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", users_own)
    code = (
        "import clipmsa.cli.main, mmap, torch;"
        "print(all(torch.empty(3 << 20).data_ptr() % mmap.PAGESIZE == 0 for _ in range(8)))"
    )
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(aligned)
