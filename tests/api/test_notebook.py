"""The notebook of the examples, run as a reader runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


def outputs(notebook: Any, kind: str) -> list[str]:
    """What cells gave, of one MIME type."""
    given = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output["data"][kind] for output in given if kind in output.get("data", {})]


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.slow
# Of the client's own: it asks for a loop's policy, which Python is about to do without.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_runs_and_shows_bars_and_results(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    lines, pages = outputs(notebook, "text/plain"), outputs(notebook, "text/html")
    for bar in ("extract", "train", "report"):  # each in its place, at its end
        [shown] = [line for line in lines if line.startswith(f"{bar} ")]
        assert "100%" in shown or "/" in shown
    for start in ("Manifest(", "FeatureStore(", "Run(", "Scores(", "Scorer("):
        [line] = [line for line in lines if line.startswith(start)]
        assert len(line.splitlines()) == 1
    assert sum("<table" in page for page in pages) >= 5
    assert (tmp_path / "quickstart" / "report.html").is_file()
    printed = [o["text"] for cell in notebook.cells for o in cell.get("outputs", ()) if "text" in o]
    assert any("s: " in text for text in printed)
