"""Runs and scored videos as HTML pages: read from files, drawn as charts, put on a page."""

from .evidence import find_evidence
from .page import render, render_videos
from .record import read_run, read_runs
from .runs import Report, build_report
from .scored import scored_videos

__all__ = [
    "Report",
    "build_report",
    "find_evidence",
    "read_run",
    "read_runs",
    "render",
    "render_videos",
    "scored_videos",
]
