"""`clipmsa evaluate`: a trained run on a feature store -> metrics, on subsets too."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipmsa.cli.console import number, warn_drawn, warn_untrained
from clipmsa.cli.options import Device, Features, RunOrModel, Trust
from clipmsa.terminal import note, out, styled

if TYPE_CHECKING:
    from clipmsa.fusion.analysis.evaluation import Evaluation


def evaluate(
    run: RunOrModel,
    features: Features,
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
    device: Device = "auto",
    trust: Trust = None,
) -> None:
    """Score a split of a store by a trained run, and print its metrics (all eight with --json).

    The store's features must have been made as those that the run was trained on.

    Example: clipmsa evaluate runs/mosi --features cache/mosi.h5 --by length,face
    """
    from clipmsa import judging
    from clipmsa.arguments import words
    from clipmsa.cache.csvtext import guarded
    from clipmsa.cache.files import not_over, publish_text
    from clipmsa.fusion.training.folder import json_text

    if predictions is not None:
        not_over(predictions, features, run, *(run.iterdir() if run.is_dir() else []))
    withheld = words(without or ())
    evaluation = judging.evaluate(
        run, features, split=split, without=withheld, device=device, trust=trust or ()
    )
    groups = {name: evaluation.subsets(name) for name in words(by or ())}
    if predictions is not None:
        table = evaluation.predictions
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
    warn_untrained(list(evaluation.untrained))
    warn_drawn(evaluation.store.splits_from)


def _rows(evaluation: Evaluation, title: str, groups: dict[str, dict[str, Any]]) -> Any:
    """(subset, utterances with a label, metrics) for the whole split, then for each subset."""
    known = evaluation.labels == evaluation.labels
    yield title, int(known.sum()), evaluation.summary()
    for name, subsets in groups.items():
        for group, mask in subsets.items():
            count = int((mask & known).sum())
            if count:
                yield f"{name}: {group}", count, evaluation.summary(mask)


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
