"""`clipmsa report`: runs -> one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.cli.console import warn_untrained
from clipmsa.cli.options import Device, Trust
from clipmsa.terminal import note, shown

if TYPE_CHECKING:
    from clipmsa.results import Page


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run folders, folders of runs as ablate writes, or a file of predict --json.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    features: Annotated[
        Path | None,
        typer.Option(help="The store the first run was trained on.", show_default="as it says"),
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option(help="The dataset's folder or CSV table, for pictures of the clips."),
    ] = None,
    utterances: Annotated[
        list[str] | None,
        typer.Option(
            "--utterance",
            metavar="ID",
            help="A test utterance to take apart; repeatable.",
            show_default="worst 2",
        ),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(help="mosi or mosei: the paper's figures beside the runs'."),
    ] = None,
    device: Device = "auto",
    trust: Trust = None,
) -> None:
    """Write one self-contained HTML page on a run, on several compared, or on scored videos.

    What is not at hand, the store, the checkpoints or the clips, is left out, and the page says so.
    Of what `clipmsa predict --json` printed, the page shows a timeline below each video.

    Example: clipmsa report runs/mosi runs/mosi-no-clip --clips data/mosi --out report.html
    """
    from clipmsa import judging

    if out.exists() and out.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(
            f"{out} is there and is no page (.html), so it is not replaced", param_hint="--out"
        )
    if runs[0].is_file() and (len(runs) > 1 or features or clips or utterances or paper):
        raise typer.BadParameter(
            f"{shown(str(runs[0]))} is a file of predictions; give it alone, without other "
            f"options than --out",
            param_hint="RUN...",
        )
    page = judging.write_report(
        runs,
        out,
        features=features,
        clips=clips,
        utterances=utterances or (),
        paper=paper,
        device=device,
        trust=trust or (),
    )
    show(page)


def show(page: Page) -> None:
    """Say what the page lacks, and what to mind."""
    for gap in page.gaps:
        note("{}", gap)
    warn_untrained(list(page.untrained))
