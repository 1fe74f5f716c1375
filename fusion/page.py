"""A report as one HTML file that needs no network, and lets no script run but its own.

The page is report.html.jinja with report.css, report.js and Plotly put in. Jinja escapes every
value; figures are JSON in which no tag can end the script block; a content security policy names
the page's scripts by their hashes, so that no text from the data could run even unescaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from .chart import Chart, signed
from .report import Report

_HERE = Path(__file__).parent


def render(report: Report) -> str:
    """The page of a report, whole."""
    scripts = [get_plotlyjs(), (_HERE / "report.js").read_text(encoding="utf-8")]
    figures: list[dict[str, Any]] = []

    def place(charts: Iterable[Chart]) -> list[tuple[int, Chart]]:
        """Number charts as they come on the page; the script draws figure n in element n."""
        numbered = []
        for chart in charts:
            numbered.append((len(figures), chart))
            figures.append(json.loads(chart.figure.to_json()))
        return numbered

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = lambda value: f"{value:.1f} s"
    environment.filters["signed"] = signed
    return environment.get_template("report.html.jinja").render(
        report=report,
        first=report.runs[0],
        place=place,
        figures=figures,
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions={
            "Python": ".".join(map(str, sys.version_info[:3])),
            **{name: version(name) for name in ("clipmsa", "torch", "numpy", "plotly")},
        },
    )


def _hash(script: str) -> str:
    """As a content security policy names an inline script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
