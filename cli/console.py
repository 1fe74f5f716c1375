"""What verbs say: notes and warnings to stderr, tables of figures to stdout."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from clipmsa.cache.spec import is_drawn
from clipmsa.terminal import note, out

from .flags import as_flags

if TYPE_CHECKING:
    from clipmsa.cache import FeatureStore
    from clipmsa.extract.datasets.clips import Manifest
    from clipmsa.results import Run


class LogNotes(logging.Handler):
    """What the package logs, as notes; the same one once a run."""

    def __init__(self, verb: str) -> None:
        super().__init__(logging.INFO)
        self._verb = verb
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = as_flags(record.getMessage(), self._verb)
        if message not in self._told:
            self._told.add(message)
            if record.levelno > logging.INFO:
                note("[yellow]{}:[/] {}", record.levelname.lower(), message)
            else:
                note("{}", message)


def warn_untrained(streams: list[str]) -> None:
    """Say that encoders had random weights, wherever their figures are about to be shown."""
    if streams:
        note(
            "[bold yellow]untrained encoders:[/] {} had random weights; figures from such "
            "features say nothing about CLIP-MSA",
            ", ".join(streams),
        )


def warn_empty(streams: list[str]) -> None:
    """Say which streams a network could learn nothing about."""
    if streams:
        note(
            "[bold yellow]no rows:[/] of {} split train has none; a network takes it as 0 "
            "wherever else it has any",
            ", ".join(streams),
        )


def warn_not_better(run: Run) -> None:
    """Say what a run is not better than: a constant, or ridge."""
    for said in run.verdicts:
        note("[bold yellow]'{}':[/] {}", run.variant, said)


def tell_splits(source: str) -> None:
    """Say where splits come from, and what follows where they are our own draw."""
    warn_drawn(source)
    if source and not is_drawn(source):
        note("splits: {}", source)


def warn_drawn(source: str) -> None:
    """Say what follows, wherever figures are about to be shown, from splits of our own draw."""
    if is_drawn(source):
        note(
            "[bold yellow]splits:[/] {}, and not CMU's: figures cannot be compared with published "
            "ones; extract with CMU's, by --folds FILE.json or with its SDK (mmsdk) installed",
            source,
        )


def tell_oddities(table: Manifest | FeatureStore) -> None:
    """Say what a table may hold and seldom means, wherever a dataset or a store is read."""
    from clipmsa.cache import FeatureStore
    from clipmsa.cache.verify import odd_labels_and_splits

    if isinstance(table, FeatureStore):
        columns = (table.ids, table.video_ids, table.splits, table.labels.tolist())
    else:
        rows = [clip.utterance for clip in table.clips]
        columns = (
            [row.id for row in rows],
            [row.video_id for row in rows],
            [row.split for row in rows],
            [row.label for row in rows],
        )
    for oddity in odd_labels_and_splits(*columns):
        note("[bold yellow]check:[/] {}", oddity)


def print_metrics(run: Run) -> None:
    """Test metrics: over seeds, with interval, of the references, of each seed; and a verdict."""
    from rich.table import Table

    from clipmsa.fusion.experiments.reference import REFERENCES
    from clipmsa.fusion.metrics.regression import METRICS

    table = Table(title=f"test, variant '{run.variant}', {len(run.seeds)} seeds")
    table.add_column("metric")
    references = [name for name in REFERENCES if name in run.metrics]
    for heading in ("mean ± std", "95 % interval", *references, *map(str, run.seeds)):
        table.add_column(heading, justify="right", no_wrap=True)
    for key, row in run.metrics.iterrows():
        table.add_row(
            METRICS.get(str(key), str(key)),
            f"{number(row['mean'])} ± {number(row['std'])}",
            f"{number(row['low'])} .. {number(row['high'])}",
            *(number(row[reference]) for reference in references),
            *(number(row[f"seed_{seed}"]) for seed in run.seeds),
        )
    out.print(table)
    warn_not_better(run)


def number(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"
