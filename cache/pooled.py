"""Features as other tools want them: one vector an utterance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .store import Stream


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
