"""`clipmsa report`: runs -> one HTML page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from clipmsa.cli.console import note, progress, shown, warn_untrained
from clipmsa.devices import pick_device

if TYPE_CHECKING:
    from clipmsa.fusion.report import Report


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
    utterance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="A test utterance to take apart; repeatable.", show_default="worst 2"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Write one self-contained HTML page on a run, on several compared, or on scored videos.

    What is not at hand, the store, the checkpoints or the clips, is left out, and the page says so.
    Of what `clipmsa predict --json` printed, the page shows a timeline below each video.

    Example: clipmsa report runs/mosi runs/mosi-no-clip --clips data/mosi --out report.html
    """
    if out.exists() and out.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(
            f"{out} is there and is no page (.html), so it is not replaced", param_hint="--out"
        )
    if runs[0].is_file():
        if len(runs) > 1 or features or clips or utterance:
            raise typer.BadParameter(
                f"{shown(str(runs[0]))} is a file of predictions; give it alone, without other "
                f"options than --out",
                param_hint="RUN...",
            )
        write_video_report(runs[0], out)
        return
    content = write_report(runs, out, features, clips, utterance or [], device)
    for gap in content.gaps:
        note("{}", gap)
    warn_untrained(content.untrained)


def write_report(
    runs: Sequence[Path],
    out: Path,
    features: Path | None = None,
    clips: Path | None = None,
    utterances: Sequence[str] = (),
    device: str = "cpu",
) -> Report:
    """Read the runs and what is at hand beside the first, write the page, and give its content."""
    from clipmsa.cache.files import publish_text
    from clipmsa.fusion.report import build_report, find_evidence, read_runs, render

    records = read_runs(runs)
    thumbnails = None if clips is None else _thumbnails(clips)
    evidence = find_evidence(records[0], features, pick_device(device))
    with progress("report", "passes") as advance:
        content = build_report(records, evidence, thumbnails, utterances, on_pass=advance)
    publish_text(out, render(content))
    if clips is not None:
        shown = sum(row.thumbnail is not None for row in content.utterances)
        note("{}: pictures of {} of {} test utterances", clips, shown, len(content.utterances))
    note("{}: report on {}", out, ", ".join(part.name for part in content.runs))
    return content


def write_video_report(predictions: Path, out: Path) -> None:
    """Write the page of a file of predictions; it plays the videos from where they are."""
    from clipmsa.cache.files import publish_text
    from clipmsa.fusion.report import render_videos, scored_videos

    def source(file: str) -> str | None:
        if not Path(file).is_file():
            return None
        return quote(Path(os.path.relpath(file, out.parent)).as_posix())

    content = scored_videos(predictions, source)
    publish_text(out, render_videos(content))
    warn_untrained(content.untrained)
    note("{}: {} videos of {}", out, len(content.videos), predictions)


def _thumbnails(clips: Path) -> Callable[[str, int], list[bytes]]:
    """Pictures of a dataset's clips by utterance id; a clip that cannot be shown has none."""
    from clipmsa.cache.errors import MediaError
    from clipmsa.extract.datasets.read import read_dataset
    from clipmsa.extract.media.thumbnails import thumbnails

    found = {clip.utterance.id: clip for clip in read_dataset(str(clips)).clips}

    def pictures(id_: str, count: int) -> list[bytes]:
        clip = found.get(id_)
        try:
            return [] if clip is None else thumbnails(clip.path, count, clip.start, clip.end)
        except MediaError as error:
            note("no picture of {}: {}", id_, error)
            return []

    return pictures
