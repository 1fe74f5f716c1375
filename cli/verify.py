"""`clipmsa verify`: is all as it must be, in a store or in a dataset still to be encoded?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import note, out, progress

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
    check_speech: Annotated[
        bool,
        typer.Option("--check-speech", help="List clips whose text does not fit their length."),
    ] = False,
) -> None:
    """Check every offset, checksum, value, split and label; exit 1 and a list where one is off.

    Of a dataset: every file is there, is a media file, and is as long as its clips need.
    --check-speech compares words with seconds, and finds texts of other clips; it fails nothing.

    Example: clipmsa verify cache/mosei.h5 --check-speech
    """
    if path.is_dir() or path.suffix.lower() == ".csv":
        verdict, clips = _dataset(path, folds)
    else:
        verdict, clips = _store(path)
    for fault in verdict.faults:
        out.print(fault, markup=False, highlight=False, soft_wrap=True)
    for remark in verdict.remarks[:_SHOWN]:
        note("{}", remark)
    if len(verdict.remarks) > _SHOWN:
        note("... and {} more such remarks", len(verdict.remarks) - _SHOWN)
    if check_speech:
        _print_paces(clips)
    if verdict.faults:
        note("[bold red]{} faults[/] in {}", len(verdict.faults), path)
        raise typer.Exit(1)
    note("{}: all as it must be", path)


def _store(path: Path) -> tuple[Verdict, list[tuple[str, str, float]]]:
    from clipmsa.cache import FeatureStore
    from clipmsa.cache.errors import StoreError
    from clipmsa.cache.verify import verify_store

    if not path.is_file():
        FeatureStore(path)  # says how to make one
    with progress("verify", "rows") as advance:
        verdict = verify_store(path, advance)
    try:
        store = FeatureStore(path, mapped=False)
    except StoreError:  # which the verdict tells
        return verdict, []
    return verdict, list(zip(store.ids, store.texts, store.durations.tolist(), strict=True))


def _dataset(path: Path, folds: Path | None) -> tuple[Verdict, list[tuple[str, str, float]]]:
    from clipmsa.extract.manifest import read_dataset
    from clipmsa.extract.survey import verify_dataset

    manifest = read_dataset(str(path), None, folds)
    with progress("verify", "files") as advance:
        verdict, seconds = verify_dataset(manifest, os.cpu_count() or 1, advance)
    utterances = [clip.utterance for clip in manifest.clips]
    return verdict, [(u.id, u.text, seconds[u.id]) for u in utterances if u.id in seconds]


def _print_paces(clips: list[tuple[str, str, float]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from clipmsa.extract.pace import odd_paces

    paces = odd_paces(clips)
    if not paces:
        note("speech: every text fits the length of its clip, or too little is known")
        return
    table = Table("text and length disagree", "words", "seconds", "pace")
    for pace in paces:
        table.add_row(escape(pace.id), str(pace.words), f"{pace.seconds:.1f}", pace.reason)
    out.print(table)
