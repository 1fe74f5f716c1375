"""`clipmsa inspect`: what a feature store holds, and where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import out, warn_untrained

if TYPE_CHECKING:
    from clipmsa.cache import FeatureStore


def inspect(store: Annotated[Path, typer.Argument(help="The feature store.")]) -> None:
    """Show what is in a feature store: counts, streams, shapes, provenance, failures.

    Example: clipmsa inspect cache/mosei.h5
    """
    from clipmsa.cache import FeatureStore

    opened = FeatureStore(store)
    out.print(
        f"{opened.path}: dataset '{opened.dataset}', profile '{opened.profile}', "
        f"written {opened.created} by clipmsa {opened.clipmsa_version}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    _print_splits(opened)
    _print_streams(opened)
    if opened.failed:
        _print_failures(opened)
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
    from rich.markup import escape
    from rich.table import Table

    table = Table("left out", "stage", "error")
    for failure in store.failed:
        table.add_row(*map(escape, failure))
    out.print(table)
