"""The figures that the paper prints, beside those of runs made here; never mixed into them.

A run's row is compared where the paper has one for its variant. What differs besides the network is
said: the paper's baselines had features of their own, most with a text encoder that was tuned, and
runs here have those of a store.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from clipmsa.cache.csvtext import csv_text
from clipmsa.cache.errors import ConfigError
from clipmsa.fusion.metrics.regression import METRICS

_FILE = Path(__file__).with_name("paper.toml")
PAPER_METRICS = (
    "has0_acc2",
    "non0_acc2",
    "has0_f1",
    "non0_f1",
    "mae",
    "corr",
)  # as the file has them
_PERCENT = 4  # of them are printed in percent
DATASETS = ("mosi", "mosei")
Source = Literal["Self-MM", "original", "reproduced", "paper"]
SOURCES: dict[Source, str] = {
    "Self-MM": "taken over from Self-MM's paper",
    "original": "from the system's own paper",
    "reproduced": "reproduced by the paper's authors",
    "paper": "measured by the paper's authors",
}


@dataclass(frozen=True, eq=False)  # a row is itself, and no other with its figures
class Published:
    """A row of Table 1 or 2: the variant that stands for it here, and its figures by metric."""

    table: str  # table1 or table2
    row: str  # as printed
    variant: str
    source: Source
    figures: Mapping[str, float]  # Acc-2 and F1 from 0 to 1; none where the paper has "-"


@dataclass(frozen=True)
class Beside:
    """One figure of the paper beside ours on the test split."""

    published: Published
    metric: str
    here: float  # mean over seeds
    low: float  # of our 95 % interval over utterances, NaN where there is none
    high: float
    same_features: bool

    @property
    def paper(self) -> float:
        return self.published.figures[self.metric]

    @property
    def difference(self) -> float:
        """Ours less the paper's."""
        return self.here - self.paper

    @property
    def words(self) -> str:
        """Ours, the paper's, the difference, and `=` where the paper's lies in our interval."""
        if math.isnan(self.here):
            return f"-, {self.paper:.3f}"
        same = " =" if self.inside else ""
        return f"{self.here:.3f}, {self.paper:.3f} ({self.difference:+.3f}){same}"

    @property
    def inside(self) -> bool | None:
        """Whether the paper's figure lies in our interval; None where there is no interval."""
        return None if math.isnan(self.low) else self.low <= self.paper <= self.high


@cache
def published(dataset: str) -> tuple[Published, ...]:
    """Every row of the paper's tables for a data set.

    Raises:
        ConfigError: the paper has no results for it.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"the paper has results for {' and '.join(DATASETS)}, not '{dataset}'")
    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    found = []
    for table, rows in tables.items():
        for row in rows:
            numbers = row.get(dataset, [])
            scaled = [round(n / 100, 4) if i < _PERCENT else n for i, n in enumerate(numbers)]
            figures = {
                k: n for k, n in zip(PAPER_METRICS, scaled, strict=False) if not math.isnan(n)
            }
            if figures:
                found.append(Published(table, row["row"], row["variant"], row["from"], figures))
    return tuple(found)


def beside(metrics: Mapping[str, Mapping[str, Any]], dataset: str, profile: str) -> list[Beside]:
    """The paper's figures beside those of runs, by the variant's name each one's metrics.json.

    A row of the paper that both of its tables have is taken once. Features are the paper's where
    the network is CLIP-MSA's and the store is of profile `paper` with trained encoders.
    """
    found: dict[tuple[str, Source, str], Beside] = {}
    for row in published(dataset):
        if row.variant not in metrics:
            continue
        of = metrics[row.variant]
        own = row.table == "table2" or row.variant == "full"
        same = own and profile == "paper" and not of["features"]["untrained"]
        for key in row.figures:
            test = of["test"].get(key, {})
            low, high = map(_number, test.get("ci95", (None, None)))
            one = Beside(row, key, _number(test.get("mean")), low, high, same)
            found.setdefault((row.variant, row.source, key), one)
    return list(found.values())


def csv_beside(found: Sequence[Beside]) -> str:
    """One line a row of the paper and metric."""
    header = ["row", "variant", "from", "metric", "paper", "here", "low", "high", "difference"]
    lines = [
        [
            one.published.row,
            one.published.variant,
            one.published.source,
            one.metric,
            one.paper,
            *("" if math.isnan(n) else n for n in (one.here, one.low, one.high, one.difference)),
            "" if one.inside is None else str(one.inside).lower(),
            str(one.same_features).lower(),
        ]
        for one in found
    ]
    return csv_text([*header, "inside", "same_features"], lines)


def markdown_beside(found: Sequence[Beside], dataset: str) -> str:
    """A table of one row of the paper a line: ours, the paper's, and how far apart."""
    if not found:
        return f"The paper has no row for these variants on {dataset}.\n"
    rows: dict[Published, dict[str, Beside]] = {}
    for one in found:
        rows.setdefault(one.published, {})[one.metric] = one
    header = [METRICS[key] for key in PAPER_METRICS]
    lines = [
        f"| Here, paper ({dataset}) | {' | '.join(header)} |",
        f"|---{'|---:' * len(header)}|",
    ]
    for row, cells in rows.items():
        same = next(iter(cells.values())).same_features
        name = f"{row.row}{'' if same else ' †'}"
        written = [cells[key].words if key in cells else "-" for key in PAPER_METRICS]
        lines.append(f"| {name} | {' | '.join(written)} |")
    notes = [
        "Ours, the paper's, and ours less the paper's in brackets; `=` where the paper's figure "
        "lies in our 95 % interval.",
        "† other features: the paper's baselines had their own, most with a tuned text encoder; "
        "CLIP-MSA is marked where the store is not of profile `paper` with trained encoders.",
    ]
    sources = dict.fromkeys(row.source for row in rows)
    said = "; ".join(
        f"{', '.join(r.row for r in rows if r.source == s)}: {SOURCES[s]}" for s in sources
    )
    return "\n".join([*lines, "", *notes, "", f"Where the paper's figures are from. {said}.", ""])


def _number(value: float | None) -> float:
    """JSON has no NaN: a run writes null."""
    return math.nan if value is None else value
