"""Tables of many runs side by side, as CSV, Markdown and LaTeX in the paper's layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from clipmsa.cache.csvtext import csv_text
from clipmsa.fusion.metrics.bootstrap import Difference
from clipmsa.fusion.metrics.regression import METRICS

from .reference import verdicts
from .variants import Variant

BASELINE = "full"  # what every other variant is compared with, where it is among them


# The paper's columns: both schemes of Acc-2 and F1 in one cell, has0 left and non0 right.
_PERCENT = (("Acc-2", "has0_acc2", "non0_acc2"), ("F1-Score", "has0_f1", "non0_f1"))
_PLAIN = (("MAE", "mae"), ("Corr", "corr"))
Differences = dict[str, dict[str, Difference]]  # variant -> metric key -> less `full`
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
