"""`clipmsa evaluate`: a trained run on a feature store -> metrics, on subsets too."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipmsa.cli.console import note, number, out, styled, warn_drawn, warn_untrained
from clipmsa.devices import pick_device

if TYPE_CHECKING:
    from clipmsa.fusion.analysis.evaluation import Evaluation


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one model-SEED.pt.")],
    features: Annotated[Path, typer.Option(help="The feature store.")],
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    by: Annotated[
        str | None, typer.Option(help="Subsets as well, separated by commas: speaker,length,face.")
    ] = None,
    without: Annotated[
        str | None, typer.Option(help="Modalities taken as missing: text,audio,vision.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="A CSV file to write, one row an utterance.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Score a split of a store by a trained run, and print its metrics (all eight with --json).

    The store's features must have been made as those that the run was trained on.

    Example: clipmsa evaluate runs/mosi --features cache/mosi.h5 --by length,face
    """
    from clipmsa.cache import FeatureStore
    from clipmsa.cache.csvtext import guarded
    from clipmsa.cache.files import publish_text
    from clipmsa.fusion.analysis.evaluation import evaluate as score
    from clipmsa.fusion.training.checkpoint import load_run
    from clipmsa.fusion.training.folder import RunFolder, json_text

    kept = [features, run, *RunFolder(run).tables]
    if predictions is not None and predictions.resolve() in [path.resolve() for path in kept]:
        raise typer.BadParameter(
            f"{predictions} is what is read here, so it is not replaced", param_hint="--predictions"
        )
    store = FeatureStore(features)
    withheld = _words(without)
    checkpoints = load_run(run)
    evaluation = score(checkpoints, store, split, withheld, pick_device(device))
    groups = {name: evaluation.subsets(name) for name in _words(by)}
    if predictions is not None:
        table = evaluation.table()
        for name in table.select_dtypes(["object", "string"]):
            table[name] = table[name].map(guarded)
        # Texts in quotes: a carriage return in one would else begin a row, perhaps with a formula.
        written = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        publish_text(predictions, written)
        note("{}: {} utterances", predictions, len(evaluation.rows))
    title = f"{split}{', without ' + ', '.join(withheld) if withheld else ''}"
    rows = list(_rows(evaluation, title, groups))
    if as_json:
        keys = ("subset", "utterances", "metrics")
        typer.echo(json_text([dict(zip(keys, row, strict=True)) for row in rows]), nl=False)
    else:
        _print(rows, len(evaluation.seeds))
    untrained = {spec.name for c in checkpoints for spec in c.streams.values() if spec.untrained}
    warn_untrained(sorted(untrained))
    warn_drawn(store.splits_from)


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",")] if text else []


def _rows(evaluation: Evaluation, title: str, groups: dict[str, dict[str, Any]]) -> Any:
    """(subset, utterances with a label, metrics) for the whole split, then for each subset."""
    known = evaluation.labels == evaluation.labels
    yield title, int(known.sum()), evaluation.metrics()
    for name, subsets in groups.items():
        for group, mask in subsets.items():
            count = int((mask & known).sum())
            if count:
                yield f"{name}: {group}", count, evaluation.metrics(mask)


# What fits a terminal; F1, Acc-5 and Acc-7 are in --json.
_SHOWN = {
    "has0_acc2": "Acc-2\nneg/non-neg",
    "non0_acc2": "Acc-2\nneg/pos",
    "mae": "MAE",
    "corr": "Corr",
}


def _print(rows: list[Any], seeds: int) -> None:
    from rich.table import Table

    table = Table(title=f"mean over {seeds} seed{'s' if seeds > 1 else ''} and 95 % interval")
    table.add_column("subset", overflow="fold")
    table.add_column("n", justify="right")
    for heading in _SHOWN.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for subset, count, metrics in rows:
        cells = [
            styled("{}\n[dim]{} .. {}[/]", *map(number, (m["mean"], *m["ci95"])))
            for m in (metrics[key] for key in _SHOWN)
        ]
        table.add_row(subset, str(count), *cells)
    out.print(table)
