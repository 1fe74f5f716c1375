"""`clipmsa inspect`: what a feature store, or a dataset still to be encoded, holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.cli.console import tell_oddities, tell_splits, warn_untrained
from clipmsa.cli.options import Layout
from clipmsa.terminal import note, out, styled

if TYPE_CHECKING:
    from clipmsa.cache import FeatureStore
    from clipmsa.extract.datasets.survey import Survey

_SHOWN = 5  # ids of what is missing


def inspect(
    path: Annotated[
        Path, typer.Argument(help="A feature store, a dataset's folder, or a CSV manifest.")
    ],
    folds: Annotated[
        Path | None, typer.Option(help="Of a dataset: JSON lists of videos, as for extract.")
    ] = None,
    layout: Layout = None,
    everything: Annotated[
        bool, typer.Option("--all", help="List all that is missing, not the first few.")
    ] = False,
) -> None:
    """Show what is in a feature store: counts, streams, shapes, provenance, failures.

    Of a dataset, before anything is encoded: what was found next to the published counts, and what
    is missing.

    Example: clipmsa inspect cache/mosei.h5
    """
    from clipmsa.extract.datasets.tables import TABLE_SUFFIXES

    if layout or path.is_dir() or path.suffix.lower() in TABLE_SUFFIXES:
        inspect_dataset(path, folds, everything, layout)
    else:
        inspect_store(path)


def inspect_dataset(
    path: Path, folds: Path | None, everything: bool, layout: str | None = None
) -> None:
    """Print a survey of a dataset's folder."""
    from clipmsa.extract.datasets.read import read_dataset
    from clipmsa.extract.datasets.survey import survey

    manifest = read_dataset(str(path), None, folds, layout)
    found = survey(manifest)
    out.print(f"{path}: {manifest.layout}", highlight=False, soft_wrap=True)
    _print_counts(found)
    tell_splits(manifest.splits)
    tell_oddities(manifest)
    for what, ids in found.gaps.items():
        shown = ids if everything else ids[:_SHOWN]
        note("{} times: {}", len(ids), what)
        for id_ in shown:
            note("    {}", id_)
        if len(ids) > len(shown):
            note("    ... and {} more; --all lists them", len(ids) - len(shown))


def _print_counts(found: Survey) -> None:
    from rich.table import Table

    table = Table("", "train", "valid", "test", "all")
    for what, counts in found.found.items():
        table.add_row(what, *map(str, counts), str(sum(counts)))
        for (counted, whose), published in found.published.items():
            if counted == what:
                row = [styled("[dim]{}[/]", number) for number in (*published, sum(published))]
                table.add_row(styled("[dim]  published ({})[/]", whose), *row)
    out.print(table)


def inspect_store(path: Path) -> None:
    """Print what a feature store holds."""
    from clipmsa.cache import FeatureStore

    opened = FeatureStore(path)
    out.print(
        f"{opened.path}: dataset '{opened.dataset}', profile '{opened.profile}', "
        f"written {opened.created} by clipmsa {opened.clipmsa_version}",
        highlight=False,
        soft_wrap=True,
    )
    _print_splits(opened)
    _print_streams(opened)
    if opened.failed:
        _print_failures(opened)
    tell_splits(opened.splits_from)
    tell_oddities(opened)
    warn_untrained(opened.untrained_streams)


def _print_splits(store: FeatureStore) -> None:
    import numpy as np
    from rich.table import Table

    table = Table("split", "utterances", "videos", "no label", "blank text", "label", "seconds")
    for split in ("train", "valid", "test"):
        rows = store.rows_of_split(split)
        labels = store.labels[rows]
        known = labels[~np.isnan(labels)]
        seconds = store.durations[rows]
        table.add_row(
            split,
            str(len(rows)),
            str(len({store.video_ids[row] for row in rows})),
            str(len(rows) - len(known)),
            str(sum(not store.texts[row].strip() for row in rows)),
            f"{known.min():+.2f} .. {known.max():+.2f}" if known.size else "-",
            f"{np.nansum(seconds):.0f}",
        )
    out.print(table)


def _print_streams(store: FeatureStore) -> None:
    from rich.table import Table

    table = Table("stream", "role", "shape", "rows", "missing", "encoder", "weights", "fingerprint")
    for name, stream in store.streams.items():
        spec = stream.spec
        shape = f"({spec.dim},)" if spec.level == "utterance" else f"(T, {spec.dim})"
        table.add_row(
            name,
            f"{spec.modality}/{spec.branch}",
            shape,
            str(len(stream.values)),
            str(int((stream.lengths == 0).sum())),
            spec.encoder,
            spec.weights,
            spec.fingerprint,
        )
    out.print(table)


def _print_failures(store: FeatureStore) -> None:
    from rich.table import Table

    table = Table("left out", "stage", "error")
    for failure in store.failed:
        table.add_row(*failure)
    out.print(table)
