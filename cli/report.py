"""`clipmsa report`: runs -> one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import note, pick_device, warn_untrained

if TYPE_CHECKING:
    from clipmsa.fusion.report import Report


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, or folders of runs as ablate writes."),
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
    """Write one self-contained HTML page on a run, or on several, compared with the first.

    What is not at hand, the store, the checkpoints or the clips, is left out, and the page says so.

    Example: clipmsa report runs/mosi runs/mosi-no-clip --clips data/mosi --out report.html
    """
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
    from clipmsa.fusion.evidence import find_evidence
    from clipmsa.fusion.page import render
    from clipmsa.fusion.record import read_runs
    from clipmsa.fusion.report import build_report

    records = read_runs(runs)
    thumbnails = None if clips is None else _thumbnails(clips)
    evidence = find_evidence(records[0], features, pick_device(device))
    content = build_report(records, evidence, thumbnails, utterances)
    publish_text(out, render(content))
    if clips is not None:
        shown = sum(row.thumbnail is not None for row in content.utterances)
        note("{}: pictures of {} of {} test utterances", clips, shown, len(content.utterances))
    note("{}: report on {}", out, ", ".join(part.name for part in content.runs))
    return content


def _thumbnails(clips: Path) -> Callable[[str, int], list[bytes]]:
    """Pictures of a dataset's clips by utterance id; a clip that cannot be shown has none."""
    from clipmsa.cache.errors import MediaError
    from clipmsa.extract.manifest import read_dataset
    from clipmsa.extract.thumbnails import thumbnails

    found = {clip.utterance.id: clip for clip in read_dataset(str(clips)).clips}

    def pictures(id_: str, count: int) -> list[bytes]:
        clip = found.get(id_)
        try:
            return [] if clip is None else thumbnails(clip.path, count, clip.start, clip.end)
        except MediaError as error:
            note("no picture of {}: {}", id_, error)
            return []

    return pictures
