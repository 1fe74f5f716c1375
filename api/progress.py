"""How far work has come: a bar on a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

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

from . import terminal
from .terminal import note, shown

_PLAIN_SECONDS = 10.0  # between two lines where there is neither terminal nor notebook
_NOTEBOOK_SECONDS = 0.2  # between two pictures of the bar; a browser draws each anew


class Advance(Protocol):
    """Called as work goes on: how much is done, of how much, and a word on how it goes.

    So much of what is done was so `before`; rates and times are of the rest.
    """

    def __call__(self, done: int, total: int, detail: str = "", before: int = 0) -> None: ...


@contextmanager
def progress(label: str, unit: str, show: bool = True) -> Iterator[Advance]:
    """A bar with rate and time left, a plain line now and then, or nothing."""
    if not show:
        yield lambda done, total, detail="", before=0: None
    elif terminal.err.is_jupyter:
        with _in_notebook(label, unit) as advance:
            yield advance
    elif terminal.err.is_terminal:
        with _bar(unit) as bar:
            yield _advancing(bar, label)
    else:
        yield _plain(label, unit)


def _bar(unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=terminal.err,
        redirect_stdout=False,  # data printed meanwhile belongs there, not on stderr
    )


def _advancing(bar: Progress, label: str) -> Advance:
    task = bar.add_task(shown(label), total=None, detail="")

    def advance(done: int, total: int, detail: str = "", before: int = 0) -> None:
        if done == before:  # the bar begins there, and its clock with it
            bar.reset(task, completed=done, total=total, detail="")
        bar.update(task, completed=done, total=total, detail=shown(detail))

    return advance


@contextmanager
def _in_notebook(label: str, unit: str) -> Iterator[Advance]:
    """The same bar as an output that is replaced: a widget would be gone from a saved notebook."""
    from IPython.display import display  # a notebook has it

    bar = _bar(unit)
    move = _advancing(bar, label)
    output = display(bar, display_id=True)
    last = time.monotonic()

    def advance(done: int, total: int, detail: str = "", before: int = 0) -> None:
        nonlocal last
        move(done, total, detail, before)
        now = time.monotonic()
        if now - last >= _NOTEBOOK_SECONDS:
            last = now
            output.update(bar)

    try:
        yield advance
    finally:
        output.update(bar)


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
