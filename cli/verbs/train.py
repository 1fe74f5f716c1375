"""`clipmsa train`: a feature store -> a run folder and a table of metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.cli.console import (
    EpochTally,
    counts_by_split,
    note,
    print_metrics,
    progress,
    warn_drawn,
    warn_empty,
    warn_untrained,
)
from clipmsa.cli.options import parse_seeds
from clipmsa.devices import default_workers, pick_device

if TYPE_CHECKING:
    from clipmsa.cache import FeatureStore
    from clipmsa.fusion.experiments.runs import Run
    from clipmsa.fusion.training.config import RunConfig


def train(
    features: Annotated[Path, typer.Option(help="The feature store.")],
    variant: Annotated[
        str | None,
        typer.Option(
            help="A row of Table 2 by name, FILE.toml or FILE.toml:NAME.", show_default="full"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="In place of a variant, a baseline: tfn, lmf, mult, misa, mmim, tpmsa, hycon, "
            "wscl-cl.",
            metavar="NAME",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="One run each, separated by commas.")] = (
        "1111,1112,1113"
    ),
    out: Annotated[
        Path | None, typer.Option(help="The run's folder.", show_default="runs/NAME")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with tables model and training.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    without: Annotated[
        str | None, typer.Option(help="Modalities to leave out: text,audio,vision.")
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="Show the run in tensorboard, wandb or mlflow, as it goes.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Seeds trained side by side.", show_default="one a core"),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the folder's run of other settings or data."),
    ] = False,
) -> None:
    """Train CLIP-MSA, or a baseline, on a feature store over several seeds; test each seed once.

    Writes config.toml, metrics.json, history.csv, predictions.csv and model-SEED.pt.

    Example: clipmsa train --features cache/mosei.h5 --variant full --seeds 1111,1112,1113
    """
    from clipmsa.cache import FeatureStore
    from clipmsa.fusion.experiments.variants import find_model, find_variant, left_out
    from clipmsa.fusion.training.config import RunConfig, configured

    if variant is not None and model is not None:
        raise typer.BadParameter(
            "a variant is one of CLIP-MSA, a model another network; give one of the two",
            param_hint="--variant, --model",
        )
    numbers = parse_seeds(seeds)
    run_config = configured(RunConfig(), config)
    chosen = find_model(model) if model else find_variant(variant) if variant else None
    if chosen is not None:
        if config is not None and chosen.model.network != run_config.model.network:
            note(
                "{}: sizes of '{}' are not taken over; '{}' has its own",
                config,
                run_config.model.network,
                chosen.model.network,
            )
        run_config = chosen.applied(run_config)
    settings = [*(set_ or []), *([f"epochs={epochs}"] if epochs else [])]
    run_config = configured(run_config, settings=settings)
    if without is not None:
        run_config = left_out(run_config, without.split(","))
    store = FeatureStore(features)
    full = run_config.variant == "full"
    name = features.stem if full else f"{features.stem}-{run_config.variant}"
    folder = out or Path("runs") / name
    run_train(store, run_config, folder, numbers, device, workers, track, overwrite)


def run_train(
    store: FeatureStore,
    config: RunConfig,
    folder: Path,
    seeds: list[int],
    device: str,
    workers: int | None = None,
    track: str | None = None,
    overwrite: bool = False,
) -> Run:
    """Train with a progress bar, then print the table of test metrics."""
    from clipmsa.fusion.experiments.runs import run
    from clipmsa.fusion.experiments.tracking import Tracking
    from clipmsa.fusion.training.outcome import Epoch

    tracking = Tracking(track, folder, config) if track else None
    note("{}: {} utterances ({})", store.path, len(store), counts_by_split(store))
    tally = EpochTally(len(seeds), config.training.epochs)
    with progress("train", "epochs") as advance:

        def on_epoch(epoch: Epoch) -> None:
            detail = f"seed {epoch.seed}, valid MAE {epoch.valid_mae:.3f}"
            done = tally.count(epoch.seed, epoch.epoch)
            advance(done, tally.total, detail, tally.before)
            if tracking is not None:
                tracking.on_epoch(epoch)

        result = run(
            store,
            config,
            folder,
            seeds,
            pick_device(device),
            on_epoch,
            workers=workers or default_workers(device),
            overwrite=overwrite,
            on_note=lambda text: note("{}", text),
        )
    if tracking is not None:
        tracking.finish(result)
    for outcome in result.outcomes:
        how = f"stopped after epoch {len(outcome.history)}, best {outcome.best_epoch}"
        found = "" if result.fresh else " (finished before, not trained again)"
        note("{}", f"seed {outcome.seed}: {how}{found}")
    print_metrics(result.metrics)
    warn_untrained(result.metrics["features"]["untrained"])
    warn_empty(result.metrics["features"]["empty_in_train"])
    warn_drawn(store.splits_from)
    note("{}", f"{folder}: config.toml, metrics.json, history.csv, predictions.csv, model-*.pt")
    return result
