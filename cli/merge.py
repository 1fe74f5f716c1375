"""`clipmsa merge`: the stores of shards -> one store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import note


def merge(
    shards: Annotated[list[Path], typer.Argument(help="Stores, in the order of the table.")],
    out: Annotated[Path, typer.Option(help="The store to write.")],
) -> None:
    """Join stores that `extract --shard` wrote, for instance from a Slurm array.

    Streams must have been made in one way, and no utterance may be in two stores.

    Example: clipmsa merge cache/mosei.0-of-2.h5 cache/mosei.1-of-2.h5 --out cache/mosei.h5
    """
    from clipmsa.extract.merge import merge_stores

    count = merge_stores(shards, out)
    note("{}: {} utterances of {} stores", out, count, len(shards))
