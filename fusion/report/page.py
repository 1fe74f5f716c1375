"""HTML pages, one file each, that need no network and let no script run but their own.

A page is a template of pages/ with style, scripts and Plotly put in. Jinja escapes every value;
figures are JSON in which no tag can end the script block; a content security policy names the
page's scripts by their hashes, so that no text from the data could run even unescaped.
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

from clipmsa.fusion.experiments.paper import PAPER_METRICS
from clipmsa.fusion.metrics.regression import METRICS

from .chart import Chart
from .numerals import signed
from .runs import Report
from .videos import ScoredVideos

_PAGES = Path(__file__).with_name("pages")


def render(report: Report) -> str:
    """The page of a report on runs, whole."""
    words = [METRICS[key] for key in PAPER_METRICS]
    return _page("runs", report=report, first=report.runs[0], paper_metrics=words)


def render_videos(scored: ScoredVideos) -> str:
    """The page of scored videos, whole; it refers to the videos where they are."""
    return _page("videos", scored=scored)


def _page(name: str, **content: Any) -> str:
    scripts = [get_plotlyjs(), _text("page.js"), _text(f"{name}.js")]
    figures: list[dict[str, Any]] = []

    def place(charts: Iterable[Chart]) -> list[tuple[int, Chart]]:
        """Number charts as they come on the page; the script draws figure n in element n."""
        numbered = []
        for chart in charts:
            numbered.append((len(figures), chart))
            figures.append(json.loads(chart.figure.to_json()))
        return numbered

    environment = Environment(
        loader=FileSystemLoader(_PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = lambda value: f"{value:.1f} s"
    environment.filters["signed"] = signed
    return environment.get_template(f"{name}.html.jinja").render(
        place=place,
        figures=figures,
        style=Markup(_text("page.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions={
            "Python": ".".join(map(str, sys.version_info[:3])),
            **{name: version(name) for name in ("clipmsa", "torch", "numpy", "plotly")},
        },
        **content,
    )


def _text(name: str) -> str:
    return (_PAGES / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """As a content security policy names an inline script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
