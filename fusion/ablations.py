"""Many variants over one store, each a run of its own, and the table of them (paper, Table 2)."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ConfigError
from clipmsa.cache.files import publish_text

from .config import RunConfig, configured
from .data import streams_by_role
from .metrics import METRICS
from .runs import Run, run
from .trainer import Epoch
from .variants import Variant, find_variant, table2

# The paper's columns: both schemes of Acc-2 and F1 in one cell, has0 left and non0 right.
_PERCENT = (("Acc-2", "has0_acc2", "non0_acc2"), ("F1-Score", "has0_f1", "non0_f1"))
_PLAIN = (("MAE", "mae"), ("Corr", "corr"))


def choose_variants(text: str) -> list[Variant]:
    """`table2` for all nine rows, or names and files separated by commas.

    Raises:
        ConfigError: an unknown variant, or one named twice.
    """
    chosen = table2() if text == "table2" else [find_variant(name) for name in text.split(",")]
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
    on_variant: Callable[[Variant, Run, bool], None] = lambda variant, run, fresh: None,
    on_epoch: Callable[[Variant, Epoch], None] = lambda variant, epoch: None,
) -> list[tuple[Variant, Run]]:
    """Run every variant that is not finished yet, and write table.md, table.csv and table.tex.

    A run is finished when its metrics.json was made from this configuration, these seeds and
    features with these fingerprints; it is then read, not run again.
    """
    base = configured(RunConfig(), config, settings)
    results = []
    for variant in variants:
        run_config = variant.applied(base)
        folder = out / variant.name
        result = _finished(folder, store, run_config, seeds)
        fresh = result is None
        if result is None:
            result = run(
                store,
                run_config,
                folder,
                seeds,
                device,
                lambda epoch, variant=variant: on_epoch(variant, epoch),  # type: ignore[misc]
            )
        results.append((variant, result))
        on_variant(variant, result, fresh)
    rows = [(variant, result.metrics) for variant, result in results]
    publish_text(out / "table.csv", csv_table(rows))
    publish_text(out / "table.md", markdown_table(rows))
    publish_text(out / "table.tex", latex_table(rows))
    return results


Row = tuple[Variant, dict[str, Any]]


def csv_table(rows: Sequence[Row]) -> str:
    """One line a variant: variant, row, then mean and standard deviation of every metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = [(key, kind) for key in METRICS for kind in ("mean", "std")]
    writer.writerow(["variant", "row", *(f"{key}_{kind}" for key, kind in kinds)])
    for variant, metrics in rows:
        numbers = [metrics["test"][key][kind] for key, kind in kinds]
        writer.writerow([variant.name, variant.row, *("" if _nan(n) else n for n in numbers)])
    return text.getvalue()


def markdown_table(rows: Sequence[Row]) -> str:
    """The paper's Table 2 with standard deviations, as Markdown."""
    header = [name for name, *_ in (*_PERCENT, *_PLAIN)]
    lines = [
        f"| Model | {' | '.join(h + (' ↓' if h == 'MAE' else '') for h in header)} |",
        f"|---{'|---:' * len(header)}|",
        *(f"| {variant.row} | {' | '.join(_cells(metrics, '±'))} |" for variant, metrics in rows),
    ]
    return "\n".join([*lines, "", *_notes(rows), ""])


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


def _finished(
    folder: Path, store: FeatureStore, config: RunConfig, seeds: Sequence[int]
) -> Run | None:
    """The run in a folder, if it is the one that would be made now."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        made = configured(RunConfig(), folder / "config.toml")
    except (FileNotFoundError, json.JSONDecodeError, ConfigError):
        return None
    streams = streams_by_role(store, config.model)
    fingerprints = {spec.name: spec.fingerprint for spec in streams.values()}
    same = (
        made == config
        and metrics["seeds"] == list(seeds)
        and metrics["features"]["fingerprints"] == fingerprints
        and metrics["features"]["utterances"] == len(store)
    )
    return Run(folder, _with_nan(metrics)) if same else None


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


def _with_nan(value: Any) -> Any:
    """metrics.json as it was before NaN became null."""
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value
