"""HTML pages on runs and on scored videos.

What is read (record, evidence, scored) is drawn (chart, charts_*) and worded, put together as plain
data (runs, videos), and written as HTML (page, and the templates of pages/).
"""

from clipmsa.fusion.experiments.run_folder import read_run, read_runs

from .evidence import find_evidence
from .page import render, render_videos
from .runs import Report, build_report
from .videos import scored_videos

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
