"""`clipmsa extract`: clips on disk -> one feature store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.cli.console import (
    counts_by_split,
    note,
    progress,
    tell_oddities,
    tell_splits,
    warn_untrained,
)
from clipmsa.cli.options import Layout
from clipmsa.devices import pick_device

_MOST_LANES = 4  # each keeps a batch of clips in memory, and its activations

if TYPE_CHECKING:
    import torch

    from clipmsa.extract.datasets.read import Manifest
    from clipmsa.extract.engine.pipeline import Report
    from clipmsa.extract.engine.plan import Settings
    from clipmsa.extract.engine.worker import Engine


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
    folds: Annotated[
        Path | None,
        typer.Option(
            help="JSON lists of videos: train, valid, test.", show_default="the dataset's"
        ),
    ] = None,
    layout: Layout = None,
    profile: Annotated[str, typer.Option(help="paper, tiny, or a TOML file.")] = "paper",
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
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
) -> None:
    """Encode clips once, with frozen pretrained encoders, into one HDF5 feature store.

    Running it again goes on where it stopped, adds new clips and streams, and does nothing when
    nothing is missing.

    Example: clipmsa extract --dataset mosei --root /data/MOSEI --out cache/mosei.h5
    """
    from clipmsa.extract.datasets.read import read_dataset

    if engine not in ("local", "ray"):
        raise typer.BadParameter(f"'{engine}': must be local or ray", param_hint="--engine")
    manifest = read_dataset(dataset, root, folds, layout)
    tell_of(manifest)
    if limit is not None:
        manifest = manifest.first(limit)
    name = manifest.dataset
    if shard is not None:
        index, count = _shard(shard)
        if count > len(manifest.clips):
            raise typer.BadParameter(
                f"'{shard}': there are {len(manifest.clips)} clips only", param_hint="--shard"
            )
        manifest = manifest.shard(index, count)
        name = f"{name}.{index}-of-{count}"
    from dataclasses import replace

    from clipmsa.extract.engine.plan import Settings
    from clipmsa.extract.engine.ray_cluster import Cluster
    from clipmsa.extract.profiles.profile import Media, check_precision, load_profile
    from clipmsa.extract.weights.find import weights_mode

    chosen = load_profile(profile)
    if sequences:
        chosen = chosen.with_sequences(sequence_rate)
    if streams is not None:
        chosen = chosen.only(tuple(name.strip() for name in streams.split(",")))
    where = pick_device(device) if engine == "local" else _actors_device(device, ray_gpus)
    media = Media(fps or chosen.media.fps, max_frames or chosen.media.max_frames)
    settings = Settings(
        profile=replace(chosen, media=media),
        weights=weights_mode(weights or chosen.weights),
        precision=check_precision(precision),
        device=where,
        batch_clips=batch_size,
        workers=workers or os.cpu_count() or 1,
        lanes=1 if where.type != "cpu" else min(_MOST_LANES, os.cpu_count() or 1),
    )
    out = out or Path("cache") / f"{name}.h5"
    cluster = Cluster(ray_address, ray_workers, ray_cpus, ray_gpus) if engine == "ray" else None
    report = run_extract(manifest, out, settings, overwrite, retry_failed, cluster)
    if strict and report.failures:
        raise typer.Exit(1)


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


def _actors_device(name: str, gpus: float) -> torch.device:
    """The device of Ray's actors; what this machine has says nothing about theirs."""
    import torch

    return torch.device(name if name != "auto" else "cuda" if gpus else "cpu")


def run_extract(
    manifest: Manifest,
    out: Path,
    settings: Settings,
    overwrite: bool,
    retry_failed: bool = False,
    engine: Engine | None = None,
) -> Report:
    """Extract, here unless `engine` says otherwise, with a progress bar; say what failed."""
    from clipmsa.cache import FeatureStore
    from clipmsa.extract.engine.pipeline import extract as run
    from clipmsa.extract.engine.worker import Worker

    if settings.weights == "random":
        note(
            "[bold yellow]--weights random:[/] the encoders are untrained; their features say "
            "nothing about CLIP-MSA and are marked so in the store"
        )
    before: int | None = None
    with progress("extract", "clips") as advance:

        def on_progress(done: int, total: int, failed: int) -> None:
            nonlocal before
            before = done if before is None else before  # the first call tells
            advance(done, total, f"{failed} failed" if failed else "", before)

        report = run(
            manifest,
            out,
            settings,
            overwrite=overwrite,
            retry_failed=retry_failed,
            engine=engine or Worker,
            on_progress=on_progress,
            on_note=lambda sentence: note("{}", sentence),
        )
    if report.encoded == 0:
        note("{}: nothing to do, all {} clips are there", report.path, report.utterances)
    else:
        note(
            "{}: {} clips encoded in {} s",
            report.path,
            report.encoded,
            f"{report.seconds:.1f}",
        )
    for failure in report.failures[:10]:
        note("[red]left out[/] {} at {}: {}", failure.id, failure.stage, failure.error)
    if len(report.failures) > 10:
        note("... and {} more; `clipmsa inspect {}` lists them", len(report.failures) - 10, out)
    store = FeatureStore(report.path)
    widths = ", ".join(f"{name} {stream.spec.dim}" for name, stream in store.streams.items())
    note("{} utterances ({}); {}", len(store), counts_by_split(store), widths)
    if settings.weights != "random":  # then it has been said above
        warn_untrained(store.untrained_streams)
    return report
