"""Features and results as other tools want them: vectors, tables, what a notebook shows."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd  # which is loaded when a table is asked for

    from .store import Stream

_ROWS = 20  # of a table in a notebook; the middle of a longer one is left out
_CHARACTERS = 80  # of a text in it


class Framed:
    """What has a table: `to_frame` gives it, and its `repr` the line above it."""

    def to_frame(self) -> pd.DataFrame:
        """The table, a copy of one's own."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """What a notebook shows; texts and names come from files, and are no markup."""
        import pandas as pd

        with pd.option_context("display.max_colwidth", _CHARACTERS):
            table = self.to_frame().to_html(max_rows=_ROWS, border=0, float_format="{:.3f}".format)
        return f"<p><code>{escape(repr(self))}</code></p>\n{table}"


def pooled(stream: Stream) -> NDArray[np.float32]:
    """(n, D): the mean over each utterance's rows, NaN where the modality is missing."""
    out = np.full((len(stream.lengths), stream.spec.dim), np.nan, np.float32)
    for row, vector in means(stream, 0, len(out)):
        out[row] = vector
    return out


def means(stream: Stream, start: int, end: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Rows from `start` to `end` that have the modality, each with its pooled vector (D,)."""
    for row in range(start, end):
        rows = stream[row]
        if len(rows):
            yield row, rows.mean(axis=0, dtype=np.float32)
