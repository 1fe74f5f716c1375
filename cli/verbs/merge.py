"""`clipmsa merge`: the stores of shards -> one store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipmsa.terminal import note


def merge(
    shards: Annotated[list[Path], typer.Argument(help="Stores, in the order of the table.")],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Though shards are missing, join those there are.")
    ] = False,
) -> None:
    """Join stores that `extract --shard` wrote, for instance from a Slurm array.

    Streams must have been made in one way, no utterance may be in two stores, and no shard may be
    missing.

    Example: clipmsa merge cache/mosei.0-of-2.h5 cache/mosei.1-of-2.h5 --out cache/mosei.h5
    """
    from clipmsa.extract.engine.merge import merge_stores

    count = merge_stores(shards, out, partial=partial)
    note("{}: {} utterances of {} stores", out, count, len(shards))
