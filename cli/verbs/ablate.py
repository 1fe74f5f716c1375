"""`clipmsa ablate`: many variants, or baselines, over one store -> one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.cli.console import (
    EpochTally,
    counts_by_split,
    note,
    progress,
    warn_drawn,
    warn_empty,
    warn_untrained,
)
from clipmsa.cli.console import out as stdout
from clipmsa.cli.options import parse_seeds
from clipmsa.devices import default_workers, pick_device

if TYPE_CHECKING:
    from clipmsa.fusion.experiments.runs import Run
    from clipmsa.fusion.experiments.variants import Variant
    from clipmsa.fusion.training.outcome import Epoch


def ablate(
    features: Annotated[Path, typer.Option(help="The feature store.")],
    variants: Annotated[
        str, typer.Option(help="table2, table1, or names and TOML files separated by commas.")
    ] = "table2",
    seeds: Annotated[str, typer.Option(help="For every variant, separated by commas.")] = (
        "1111,1112,1113"
    ),
    out: Annotated[
        Path | None,
        typer.Option(help="Where the runs go.", show_default="runs/NAME-ablate or -table1"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with tables model and training.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, of the training or of CLIP-MSA."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    engine: Annotated[
        str, typer.Option(help="local, or ray: a cluster, on CPUs unless --device says cuda.")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Seeds trained side by side.", show_default="one a core"),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the folder's runs of other settings or data."),
    ] = False,
) -> None:
    """Train many variants, by default the nine rows of the paper's Table 2, and print the table.

    table1 is baselines of the paper's Table 1 on the same features (tfn, lmf, mult, misa, mmim,
    tpmsa, hycon, wscl-cl) and full.
    Settings of [training] hold for all; those of [model] for CLIP-MSA and not for the baselines.
    Runs that are finished are not run again. Writes table.md, table.csv, table.tex and every run.

    Example: clipmsa ablate --features cache/mosi.h5 --variants full,no-clip,order-atv
    """
    from clipmsa.cache import FeatureStore
    from clipmsa.fusion.experiments.ablations import ablate as run_all
    from clipmsa.fusion.experiments.ablations import choose_variants
    from clipmsa.fusion.training.config import RunConfig, configured

    numbers = parse_seeds(seeds)
    # What this machine has says nothing about a cluster's: there, GPUs have to be asked for.
    elsewhere = "cpu" if device == "auto" else device
    on = elsewhere if engine == "ray" else pick_device(device)
    chosen = choose_variants(variants)
    store = FeatureStore(features)
    kind = "table1" if variants == "table1" else "ablate"
    folder = out or Path("runs") / f"{features.stem}-{kind}"
    note("{}: {} utterances ({})", store.path, len(store), counts_by_split(store))
    epochs = configured(RunConfig(), config, set_ or []).training.epochs
    tally = EpochTally(len(chosen) * len(numbers), epochs)
    with progress("ablate", "epochs") as advance:

        def on_epoch(variant: Variant, epoch: Epoch) -> None:
            detail = f"{variant.name}, seed {epoch.seed}, valid MAE {epoch.valid_mae:.3f}"
            done = tally.count((variant.name, epoch.seed), epoch.epoch)
            advance(done, tally.total, detail, tally.before)

        def on_variant(variant: Variant, run: Run) -> None:
            if not run.fresh:
                note("{}: finished before, not run again", run.path)
            for seed in numbers:
                tally.ended((variant.name, seed))
            done = sum(tally.done.values())
            advance(done, tally.total, f"{variant.name} finished", tally.before)

        results = run_all(
            store,
            chosen,
            folder,
            seeds=numbers,
            config=config,
            settings=set_ or [],
            device=on,
            engine=engine,
            workers=workers or (1 if engine == "ray" else default_workers(device)),
            overwrite=overwrite,
            on_variant=on_variant,
            on_epoch=on_epoch,
            on_note=lambda text: note("{}", text),
        )
    stdout.print((folder / "table.md").read_text(encoding="utf-8"), highlight=False)
    features_of = [run.metrics["features"] for _, run in results]
    warn_untrained(sorted({name for of in features_of for name in of["untrained"]}))
    warn_empty(sorted({name for of in features_of for name in of["empty_in_train"]}))
    warn_drawn(store.splits_from)
    note("{}: table.md, table.csv, table.tex, and a folder for each run", folder)
