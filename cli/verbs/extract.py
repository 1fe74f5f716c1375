"""`clipmsa extract`: clips on disk -> one feature store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.cli.console import tell_oddities, tell_splits, warn_untrained
from clipmsa.cli.options import Device, Folds, Layout, Profile, Trust
from clipmsa.terminal import note

if TYPE_CHECKING:
    from clipmsa.cache import FeatureStore
    from clipmsa.extract.datasets.clips import Manifest


def extract(
    dataset: Annotated[
        str, typer.Option(help="mosi, mosei, a folder (MMSA's or CMU's own), or a CSV manifest.")
    ],
    root: Annotated[
        Path | None, typer.Option(help="Where the clips are.", show_default="data/NAME")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The store to write.", show_default="cache/NAME.h5")
    ] = None,
    folds: Folds = None,
    layout: Layout = None,
    profile: Profile = "paper",
    weights: Annotated[
        str | None,
        typer.Option(help="pretrained, random, or a folder.", show_default="the profile's"),
    ] = None,
    streams: Annotated[
        str | None, typer.Option(help="Some of the profile's streams: a,b", show_default="all")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=0.01, help="Frames a second.", show_default="profile"),
    ] = None,
    max_frames: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many a clip.", show_default="the profile's, 64"),
    ] = None,
    sequences: Annotated[
        bool,
        typer.Option("--sequences", help="Also keep text tokens and speech frames, as streams."),
    ] = False,
    sequence_rate: Annotated[
        float, typer.Option(min=0.1, help="Speech frames a second, of --sequences.")
    ] = 10.0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    batch_size: Annotated[int, typer.Option(min=1, help="Clips encoded together.")] = 8,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode.", show_default="one a core")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N clips of the table.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Only block i of n, from 0: 3/8. Join with `merge`.", metavar="I/N"),
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for a Ray cluster.")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="The cluster's.", show_default="found, or started here")
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Actors.", show_default="as many as there is room for")
    ] = None,
    ray_cpus: Annotated[float, typer.Option(min=0.1, help="CPUs an actor.")] = 2,
    ray_gpus: Annotated[float, typer.Option(min=0, help="GPUs an actor: 1, or 0.25.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any clip failed.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Encode the streams anew.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try clips again that failed before.")
    ] = False,
    trust: Trust = None,
) -> None:
    """Encode clips once, with frozen pretrained encoders, into one HDF5 feature store.

    Running it again goes on where it stopped, adds new clips and streams, and does nothing when
    nothing is missing.

    Example: clipmsa extract --dataset mosei --root /data/MOSEI --out cache/mosei.h5
    """
    from clipmsa.workflows import extract_features, read_dataset

    if engine not in ("local", "ray"):
        raise typer.BadParameter(f"'{engine}': must be local or ray", param_hint="--engine")
    manifest = read_dataset(dataset, root, folds, layout)
    tell_of(manifest)
    if limit is not None:
        manifest = manifest.first(limit)
    if shard is not None:
        index, count = _shard(shard)
        if count > len(manifest.clips):
            raise typer.BadParameter(
                f"'{shard}': there are {len(manifest.clips)} clips only", param_hint="--shard"
            )
        manifest = manifest.shard(index, count)
    from clipmsa.extract.engine.ray_cluster import Cluster

    store = extract_features(
        manifest,
        out,
        profile=profile,
        weights=weights,
        streams=streams or (),
        fps=fps,
        max_frames=max_frames,
        sequences=sequences,
        sequence_rate=sequence_rate,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        engine=Cluster(ray_address, ray_workers, ray_cpus, ray_gpus) if engine == "ray" else engine,
        overwrite=overwrite,
        retry_failed=retry_failed,
        trust=trust or (),
    )
    show(store)
    if strict and store.failed:
        raise typer.Exit(1)


def show(store: FeatureStore) -> None:
    """Say what the store holds, and what to mind."""
    widths = ", ".join(f"{name} {stream.spec.dim}" for name, stream in store.streams.items())
    note("{} utterances ({}); {}", len(store), store.counts_by_split, widths)
    if len(store.untrained_streams) < len(store.streams):  # of all of them it was said at the start
        warn_untrained(store.untrained_streams)


def tell_of(manifest: Manifest) -> None:
    """Say how a folder was understood, where its splits come from and what was left out.

    A table that lists each clip with its split needs no words, unless they are odd.
    """
    tell_oddities(manifest)
    if not manifest.gaps and not manifest.drawn and not manifest.joined:
        return
    note("{}: {} clips; {}", manifest.dataset, len(manifest.clips), manifest.layout)
    tell_splits(manifest.splits)
    for what, ids in manifest.gaps.items():
        note("{} times: {} ({}{})", len(ids), what, ids[0], ", ..." if ids[1:] else "")


def _shard(text: str) -> tuple[int, int]:
    """`3/8` as (3, 8)."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise typer.BadParameter(
            f"'{text}' must be I/N with I from 0 to N - 1, as in 0/8", param_hint="--shard"
        )
    return int(index), int(count)
