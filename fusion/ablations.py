"""Many variants over one store, each a run of its own, and the table of them (Tables 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipmsa.cache import FeatureStore
from clipmsa.cache.csvtext import csv_text
from clipmsa.cache.errors import ConfigError
from clipmsa.cache.files import publish_text, sole_writer

from .config import RunConfig, configured
from .data import FeatureData, streams_by_role
from .metrics import METRICS, Difference, paired_differences
from .outcome import Epoch
from .reference import verdicts
from .runs import Run, run_many
from .variants import Variant, find_variant, table1, table2

_TABLES = {"table1": table1, "table2": table2}
BASELINE = "full"  # what every other variant is compared with, where it is among them
# The paper's columns: both schemes of Acc-2 and F1 in one cell, has0 left and non0 right.
_PERCENT = (("Acc-2", "has0_acc2", "non0_acc2"), ("F1-Score", "has0_f1", "non0_f1"))
_PLAIN = (("MAE", "mae"), ("Corr", "corr"))


def choose_variants(text: str) -> list[Variant]:
    """`table2` for all nine rows, `table1` for baselines and `full`, or names and files by commas.

    Raises:
        ConfigError: an unknown variant, or one named twice.
    """
    if text in _TABLES:
        return _TABLES[text]()
    chosen = [find_variant(name) for name in text.split(",")]
    names = [variant.name for variant in chosen]
    if len(set(names)) < len(names):
        raise ConfigError(f"--variants {text}: a variant is named twice")
    return chosen


def ablate(
    store: FeatureStore,
    variants: Sequence[Variant],
    out: Path,
    *,
    seeds: Sequence[int],
    config: Path | None = None,
    settings: Sequence[str] = (),
    device: torch.device | str = "cpu",
    engine: str = "local",
    workers: int = 1,
    overwrite: bool = False,
    on_variant: Callable[[Variant, Run], None] = lambda variant, run: None,
    on_epoch: Callable[[Variant, Epoch], None] = lambda variant, epoch: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> list[tuple[Variant, Run]]:
    """Run every variant, all seeds of all of them side by side, and write the tables.

    Seeds that were finished before are not trained again. Writes table.md, table.csv, table.tex
    and, where `full` is among the variants, comparison.csv: each other one less `full`, by a paired
    bootstrap over utterances and seeds. `run_many` says the rest, and what can go wrong.
    """
    base = configured(RunConfig(), config, settings)
    folders = {out / variant.name: variant for variant in variants}
    finished: dict[str, Run] = {}

    def on_run(run: Run) -> None:
        variant = folders[run.path]
        finished[variant.name] = run
        on_variant(variant, run)

    with sole_writer(out):
        run_many(
            store,
            [(variant.applied(base), folder) for folder, variant in folders.items()],
            seeds,
            device,
            engine=engine,
            workers=workers,
            overwrite=overwrite,
            on_epoch=lambda folder, epoch: on_epoch(folders[folder], epoch),
            on_run=on_run,
            on_note=on_note,
        )
        results = [(variant, finished[variant.name]) for variant in variants]
        rows = [(variant, run.metrics) for variant, run in results]
        differences = compare(store, results)
        publish_text(out / "table.csv", csv_table(rows))
        publish_text(out / "table.md", markdown_table(rows, differences))
        publish_text(out / "table.tex", latex_table(rows))
        if differences:
            publish_text(out / "comparison.csv", csv_comparison(differences))
    return results


Differences = dict[str, dict[str, Difference]]  # variant -> metric key -> less `full`


def compare(store: FeatureStore, results: Sequence[tuple[Variant, Run]]) -> Differences:
    """Every variant against `full`, on the test split; nothing where `full` is not among them."""
    runs = {variant.name: run for variant, run in results}
    if BASELINE not in runs:
        return {}
    roles = streams_by_role(store, RunConfig().model)
    data = FeatureData(store, roles, torch.device("cpu"))
    truth = data.labels[data.labelled_rows("test")].double().numpy()
    scores = {
        name: np.stack([outcome.predictions["test"] for outcome in run.outcomes])
        for name, run in runs.items()
    }
    return {
        name: paired_differences(preds, scores[BASELINE], truth)
        for name, preds in scores.items()
        if name != BASELINE
    }


Row = tuple[Variant, dict[str, Any]]


def csv_table(rows: Sequence[Row]) -> str:
    """One line a variant: variant, row, then mean and standard deviation of every metric."""
    kinds = [(key, kind) for key in METRICS for kind in ("mean", "std")]
    lines = []
    for variant, metrics in rows:
        numbers = [metrics["test"][key][kind] for key, kind in kinds]
        lines.append([variant.name, variant.row, *("" if _nan(n) else n for n in numbers)])
    return csv_text(["variant", "row", *(f"{key}_{kind}" for key, kind in kinds)], lines)


def csv_comparison(differences: Differences) -> str:
    """One line a variant and metric: the difference to `full`, its 95 % interval, p."""
    lines = [
        [name, key, *("" if _nan(n) else n for n in value)]
        for name, metrics in differences.items()
        for key, value in metrics.items()
    ]
    return csv_text(["variant", "metric", "difference", "low", "high", "p"], lines)


def markdown_table(rows: Sequence[Row], differences: Differences | None = None) -> str:
    """The paper's Table 2 with standard deviations, and below it what differs from `full`."""
    header = [name for name, *_ in (*_PERCENT, *_PLAIN)]
    lines = [
        f"| Model | {' | '.join(h + (' ↓' if h == 'MAE' else '') for h in header)} |",
        f"|---{'|---:' * len(header)}|",
        *(f"| {variant.row} | {' | '.join(_cells(metrics, '±'))} |" for variant, metrics in rows),
    ]
    compared = _compared(rows, differences or {})
    return "\n".join([*lines, "", *_notes(rows), "", *compared, *_verdicts(rows)])


def _verdicts(rows: Sequence[Row]) -> list[str]:
    """Markdown lines: which rows are not better than a constant, or than ridge."""
    said = [
        f"- {variant.row}: {verdict}"
        for variant, metrics in rows
        for verdict in verdicts(metrics["test"]["mae"]["mean"], metrics, metrics["against"])
    ]
    return [*said, ""] if said else []


def _compared(rows: Sequence[Row], differences: Differences) -> list[str]:
    """Markdown lines: MAE and Corr of each variant less those of `full`, interval and p."""
    if not differences:
        return []
    shown = ("mae", "corr")
    lines = [
        f"| Less {BASELINE} | "
        f"{' | '.join(f'{METRICS[key]}, 95 % interval | p' for key in shown)} |",
        f"|---{'|---:' * 2 * len(shown)}|",
    ]
    for variant, _ in rows:
        if variant.name in differences:
            found = [differences[variant.name][key] for key in shown]
            cells = [f"{d.mean:+.3f} ({d.low:+.3f} .. {d.high:+.3f}) | {_p(d.p)}" for d in found]
            lines.append(f"| {variant.row} | {' | '.join(cells)} |")
    note = (
        "Paired bootstrap over the test utterances and over seeds. Few seeds say little of how "
        "much seeds differ: where a difference matters, take more."
    )
    return [*lines, "", note, ""]


def _p(value: float) -> str:
    return "-" if _nan(value) else "< 0.005" if value < 0.005 else f"{value:.2f}"


def latex_table(rows: Sequence[Row]) -> str:
    r"""The same as a LaTeX tabular, for `\input`."""
    lines = [
        *(f"% {note}" for note in _notes(rows)),
        r"\begin{tabular}{lcccc}",
        r"\hline",
        r"Model & Acc-2 & F1-Score & MAE$\downarrow$ & Corr \\",
        r"\hline",
        *(
            f"{_latex(variant.row)} & {' & '.join(_cells(metrics, chr(92) + 'pm'))} " + r"\\"
            for variant, metrics in rows
        ),
        r"\hline",
        r"\end{tabular}",
    ]
    return "\n".join([*lines, ""])


def _cells(metrics: dict[str, Any], plus_minus: str) -> list[str]:
    test, math_mode = metrics["test"], plus_minus.startswith("\\")

    def pair(keys: Sequence[str], scale: float, digits: int) -> str:
        means = "/".join(_fixed(scale * test[key]["mean"], digits) for key in keys)
        stds = "/".join(_fixed(scale * test[key]["std"], digits) for key in keys)
        text = f"{means} {plus_minus} {stds}"
        return f"${text}$" if math_mode else text

    return [
        *(pair(keys, 100, 2) for _, *keys in _PERCENT),
        *(pair(keys, 1, 3) for _, *keys in _PLAIN),
    ]


def _notes(rows: Sequence[Row]) -> list[str]:
    seeds = rows[0][1]["seeds"]
    untrained = sorted({name for _, metrics in rows for name in metrics["features"]["untrained"]})
    notes = [
        f"Test split; mean and standard deviation over {len(seeds)} seeds "
        f"({', '.join(map(str, seeds))}). Left of the slash negative/non-negative, right "
        f"negative/positive."
    ]
    if untrained:
        notes.append(
            f"Untrained encoders ({', '.join(untrained)}): figures say nothing about CLIP-MSA."
        )
    return notes


def _fixed(value: float, digits: int) -> str:
    return "-" if _nan(value) else f"{value:.{digits}f}"


def _nan(value: float) -> bool:
    return math.isnan(value)


def _latex(text: str) -> str:
    return "".join(f"\\{c}" if c in "&%$#_{}" else c for c in text)
