"""What every verb prints with: data to stdout, notes and progress to stderr.

Ids, texts, names, paths and errors come from files that anybody may have written. `shown` is what
all of them go through: a console here applies it to every string that it prints, in tables too, and
takes none for markup; `styled` is how our own words get their colours.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from clipmsa.cache.spec import is_drawn

if TYPE_CHECKING:
    from clipmsa.cache import FeatureStore
    from clipmsa.extract.datasets.clips import Manifest

# What a terminal acts upon, or shows other than it stands: control characters of ASCII and of
# ISO 6429, marks that turn the direction of what follows, halves of a character.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN_SECONDS = 10.0  # between two lines of progress where there is no terminal


def shown(text: str) -> str:
    r"""A text with its control characters spelt out, so that a terminal shows and does not obey.

    >>> print(shown("\x1b[31mred"))
    \x1b[31mred
    """
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown_in_json(text: str) -> str:
    r"""The same of a JSON text, which stays one, of the same values.

    >>> print(shown_in_json('"\x9b31m"'))
    "\u009b31m"
    """
    return _ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Terminal(Console):
    """A console to which every string is text: nothing in it sets a colour, a link or a title."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **options)


# Where there is no terminal to say how wide it is, tables are not cut.
out = _Terminal(width=None if sys.stdout.isatty() else 160)
err = _Terminal(stderr=True, width=None if sys.stderr.isatty() else 160)


def styled(message: str, *values: object) -> Text:
    """Words of our own with rich's markup; `{}` in them takes values, each a line of plain text."""
    rest, line = Text.from_markup(message, emoji=False), Text()
    for value in values:
        place = rest.plain.index("{}")
        style = rest.get_style_at_offset(err, place)
        line.append_text(rest[:place]).append(shown(str(value)).replace("\n", r"\n"), style)
        rest = rest[place + 2 :]
    return line.append_text(rest)


def note(message: str, *values: object) -> None:
    """One line to stderr, as `styled` makes it."""
    err.print(styled(message, *values), soft_wrap=True, highlight=False)


class LogNotes(logging.Handler):
    """What the package logs, as notes; the same one once a run."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._told:
            self._told.add(message)
            note("[yellow]{}:[/] {}", record.levelname.lower(), message)


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


def warn_not_better(metrics: Mapping[str, Any]) -> None:
    """Say what a run, by its metrics.json, is not better than: a constant, or ridge."""
    from clipmsa.fusion.experiments.reference import verdicts

    mae = metrics["test"]["mae"]["mean"]
    for said in verdicts(mae, metrics, metrics["against"]):
        note("[bold yellow]'{}':[/] {}", metrics["variant"], said)


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


class Advance(Protocol):
    """Called as work goes on: how much is done, of how much, and a word on how it goes.

    So much of what is done was so `before`; rates and times are of the rest.
    """

    def __call__(self, done: int, total: int, detail: str = "", before: int = 0) -> None: ...


@contextmanager
def progress(label: str, unit: str) -> Iterator[Advance]:
    """A bar with rate and time left on a terminal, a plain line now and then elsewhere."""
    if not err.is_terminal:
        yield _plain(label, unit)
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=err,
        redirect_stdout=False,  # data printed meanwhile belongs there, not on stderr
    ) as bar:
        task = bar.add_task(shown(label), total=None, detail="")

        def advance(done: int, total: int, detail: str = "", before: int = 0) -> None:
            if done == before:  # the bar begins there, and its clock with it
                bar.reset(task, completed=done, total=total, detail="")
            bar.update(task, completed=done, total=total, detail=shown(detail))

        yield advance


def _plain(label: str, unit: str) -> Advance:
    started = time.monotonic()
    last = started

    def advance(done: int, total: int, detail: str = "", before: int = 0) -> None:
        nonlocal last
        now = time.monotonic()
        if done <= before or (done < total and now - last < _PLAIN_SECONDS):
            return
        last = now
        rate = (done - before) / max(now - started, 1e-9)
        left = f"{(total - done) / rate:.0f} s left" if done < total else f"{now - started:.0f} s"
        line = f"{label} {done}/{total} {unit}, {rate:.1f} {unit}/s, {left}"
        note("{}", f"{line}, {detail}" if detail else line)

    return advance


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} {self.unit}/s" if task.speed else f"- {self.unit}/s")


def counts_by_split(store: FeatureStore) -> str:
    """`train 28, valid 8, test 12`."""
    return ", ".join(f"{split} {store.splits.count(split)}" for split in ("train", "valid", "test"))


class EpochTally:
    """Epochs done and to do of seeds that train side by side and may stop early."""

    def __init__(self, seeds: int, epochs: int) -> None:
        self.total = seeds * epochs
        self.epochs = epochs
        self.before = 0  # those that an interrupted run had done
        self.done: dict[object, int] = {}

    def count(self, key: object, epoch: int) -> int:
        """Note an epoch of one seed; gives all that are done."""
        if key not in self.done:
            self.before += epoch - 1
        self.done[key] = epoch
        return sum(self.done.values())

    def ended(self, key: object) -> None:
        """What a seed that stopped early has left will not be waited for."""
        self.total -= self.epochs - self.done.get(key, 0)


def print_metrics(metrics: dict[str, Any]) -> None:
    """Test metrics: over seeds, with interval, of the references, of each seed; and a verdict."""
    from rich.table import Table

    from clipmsa.fusion.experiments.reference import REFERENCES
    from clipmsa.fusion.metrics.regression import METRICS

    table = Table(title=f"test, variant '{metrics['variant']}', {len(metrics['seeds'])} seeds")
    table.add_column("metric")
    seeds = map(str, metrics["seeds"])
    for heading in ("mean ± std", "95 % interval", *REFERENCES, *seeds):
        table.add_column(heading, justify="right", no_wrap=True)
    for key, words in METRICS.items():
        row = metrics["test"][key]
        low, high = row["ci95"]
        table.add_row(
            words,
            f"{number(row['mean'])} ± {number(row['std'])}",
            f"{number(low)} .. {number(high)}",
            *(number(metrics[reference][key]) for reference in REFERENCES),
            *map(number, row["per_seed"]),
        )
    out.print(table)
    warn_not_better(metrics)


def number(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"
