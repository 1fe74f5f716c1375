"""How the folders lean on each other: cli -> {extract, fusion} -> cache; and what starts fast."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "cache": {"cache"},
    "extract": {"extract", "cache"},
    "fusion": {"fusion", "cache"},
    "api": {"api", "extract", "fusion", "cache"},
    "cli": {"cli", "api", "extract", "fusion", "cache"},
}
# Folders within, from clip to score: each imports itself and what stands before its own floor.
FLOORS = {
    "cache": [{""}, {"exchange"}],
    "extract": [
        {"media", "weights"},
        {"datasets", "encoders"},
        {"profiles", "transcripts"},
        {"engine"},
    ],
    "fusion": [{"networks", "metrics"}, {"training"}, {"experiments", "analysis"}, {"report"}],
}
MOST_FILES = 14  # in a folder, __init__.py aside: about a dozen; of verbs and networks, all there
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
    """The import name of a module or a folder of ours; api/ is the root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["clipmsa", *(parts[1:] if parts[0] == "api" else parts)])


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


def home(name: str) -> tuple[str, str]:
    """The folder at the top and the one within, "" for none, that an import of ours lies in."""
    _, *parts = name.split(".")
    if parts[0] not in ALLOWED:
        return "api", ""
    within = parts[1] if len(parts) > 1 and (ROOT / parts[0] / parts[1]).is_dir() else ""
    return parts[0], within


SOURCES = sorted(p for folder in ALLOWED for p in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_it_may(folder):
    for source in (ROOT / folder).rglob("*.py"):
        ours = {home(n)[0] for n in imports(source) if n.startswith("clipmsa.")}
        assert ours <= ALLOWED[folder], source


@pytest.mark.parametrize("folder", FLOORS)
def test_within_a_folder_no_arrow_runs_back_up(folder):
    floor = {within: n for n, floors in enumerate(FLOORS[folder]) for within in floors}
    for source in (ROOT / folder).rglob("*.py"):
        own = home(dotted(source))[1]
        if source.parent == ROOT / folder and "" not in floor:
            continue  # the package's own public names, loaded lazily, or from any floor
        for name in imports(source):
            if name.startswith(f"clipmsa.{folder}."):
                other = home(name)[1]
                assert other == own or floor[other] < floor[own], f"{source} imports {name}"


def test_the_folders_within_are_those_that_have_a_floor():
    for folder, floors in FLOORS.items():
        within = {p.name for p in (ROOT / folder).iterdir() if (p / "__init__.py").exists()}
        assert within == set().union(*floors) - {""}


@pytest.mark.parametrize("folder", sorted({p.parent for p in SOURCES}), ids=dotted)
def test_a_folder_holds_no_more_than_one_can_take_in(folder):
    assert len(list(folder.glob("[!_]*.py"))) <= MOST_FILES or folder.name in ("verbs", "networks")


@pytest.mark.parametrize("folder", [*ALLOWED, "tests", "benchmarks", "examples"])
def test_folders_are_imported_under_clipmsa(folder):
    for source in (ROOT / folder).rglob("*.py"):
        tops = {name.split(".")[0] for name in imports(source)}
        assert not tops & ALLOWED.keys(), f"{source}: write clipmsa.<folder>"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import clipmsa.cli.main", {"torch", "pandas", *ENCODER_LIBRARIES, *PAGE_LIBRARIES}),
        ("import clipmsa.cache", {"torch", "pandas"}),
        ("import clipmsa.fusion.experiments.runs", {"pandas", *ENCODER_LIBRARIES, *PAGE_LIBRARIES}),
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
