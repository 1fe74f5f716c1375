"""`clipmsa verify`: is all as it must be, in a store or in a dataset still to be encoded?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.cli.options import Layout
from clipmsa.devices import pick_device
from clipmsa.progress import progress
from clipmsa.terminal import note, out

if TYPE_CHECKING:
    from clipmsa.cache.verify import Verdict

_SHOWN = 20  # remarks, which are allowed; faults are all listed


def verify(
    path: Annotated[
        Path, typer.Argument(help="A feature store, a dataset's folder, or a CSV manifest.")
    ],
    folds: Annotated[
        Path | None, typer.Option(help="Of a dataset: JSON lists of videos, as for extract.")
    ] = None,
    layout: Layout = None,
    check_speech: Annotated[
        bool,
        typer.Option("--check-speech", help="List clips whose text does not fit their length."),
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option(
            help="Of a dataset: list clips whose text is not what a transcriber hears; "
            "pretrained, or its folder."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Of --listen: auto, cpu, cuda, cuda:1, mps.")
    ] = "auto",
) -> None:
    """Check every offset, checksum, value, split and label; exit 1 and a list where one is off.

    Of a dataset: every file is there, is a media file, and is as long as its clips need.
    --check-speech compares words with seconds and --listen letters with what is heard, to find
    texts of other clips; neither fails anything.

    Example: clipmsa verify cache/mosei.h5 --check-speech
    """
    from clipmsa.extract.datasets.tables import TABLE_SUFFIXES

    if layout or path.is_dir() or path.suffix.lower() in TABLE_SUFFIXES:
        verdict, clips = _dataset(path, folds, layout)
    elif listen:
        raise typer.BadParameter("a store holds no sound; give the dataset", param_hint="--listen")
    else:
        verdict, clips = _store(path)
    for fault in verdict.faults:
        out.print(fault, highlight=False, soft_wrap=True)
    for remark in verdict.remarks[:_SHOWN]:
        note("{}", remark)
    if len(verdict.remarks) > _SHOWN:
        note("... and {} more such remarks", len(verdict.remarks) - _SHOWN)
    odd = len(verdict.remarks)
    if check_speech:
        odd += _print_paces(clips)
    if listen:
        odd += _print_unheard(path, folds, layout, listen, device)
    if verdict.faults:
        note("[bold red]{} faults[/] in {}", len(verdict.faults), path)
        raise typer.Exit(1)
    if odd:
        note("{}: no rule is broken; {} remarks, above", path, odd)
    else:
        note("{}: all as it must be", path)


def _store(path: Path) -> tuple[Verdict, list[tuple[str, str, float]]]:
    from clipmsa.cache import FeatureStore
    from clipmsa.cache.verify import verify_apart

    if not path.is_file():
        FeatureStore(path)  # says how to make one
    with progress("verify", "rows") as advance:
        return verify_apart(path, advance)


def _dataset(
    path: Path, folds: Path | None, layout: str | None
) -> tuple[Verdict, list[tuple[str, str, float]]]:
    from clipmsa.extract.datasets.read import read_dataset
    from clipmsa.extract.datasets.survey import verify_dataset

    manifest = read_dataset(str(path), None, folds, layout)
    with progress("verify", "files") as advance:
        verdict, seconds = verify_dataset(manifest, os.cpu_count() or 1, advance)
    utterances = [clip.utterance for clip in manifest.clips]
    return verdict, [(u.id, u.text, seconds[u.id]) for u in utterances if u.id in seconds]


def _print_paces(clips: list[tuple[str, str, float]]) -> int:
    """Give how many texts do not fit the length of their clip."""
    from rich.table import Table

    from clipmsa.extract.transcripts.mismatch import odd_paces

    paces = odd_paces(clips)
    if not paces:
        note("speech: every text fits the length of its clip, or too little is known")
        return 0
    table = Table("text and length disagree", "words", "seconds", "pace")
    for pace in paces:
        table.add_row(pace.id, str(pace.words), f"{pace.seconds:.1f}", pace.reason)
    out.print(table)
    return len(paces)


def _print_unheard(
    path: Path, folds: Path | None, layout: str | None, transcriber: str, device: str
) -> int:
    """Give how many texts are not what is heard."""
    from rich.table import Table

    from clipmsa.extract.datasets.read import read_dataset
    from clipmsa.extract.transcripts.mismatch import listened, unheard
    from clipmsa.extract.transcripts.transcriber import find_transcriber
    from clipmsa.extract.weights.find import weights_mode

    listener = find_transcriber(weights_mode(transcriber), pick_device(device))
    clips = read_dataset(str(path), None, folds, layout).clips
    with progress("listen", "clips") as advance:
        surprises = listened(clips, listener, advance)
    texts = {clip.utterance.id: clip.utterance.text for clip in clips}
    odd = unheard(surprises)
    if not odd:
        note("listen: every text sounds like its clip, or there are too few clips to tell")
        return 0
    table = Table("text and sound disagree", "nats a letter", "text")
    for id_ in odd:
        table.add_row(id_, f"{surprises[id_]:.2f}", texts[id_][:60])
    out.print(table)
    return len(odd)
