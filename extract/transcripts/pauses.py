"""Sound to utterances: cut where nobody speaks, for videos without subtitles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipmsa.extract import media

FRAME = 0.02  # seconds, the grid that loudness is measured on
_SILENCE = -90.0  # dB of full scale; nothing counts as less
_BLOCK_SECONDS = 600.0  # of sound in memory at once

Span = tuple[float, float]  # (start, end), seconds or frames


def spoken_spans(path: Path, duration: float, longest: float) -> list[Span]:
    """Where to cut a file of `duration` seconds into utterances of at most `longest` seconds.

    What lies between them is silence. Without sound, or where nothing stands out from the
    background, pieces of one length.

    Raises:
        MediaError: its sound cannot be decoded.
    """
    levels = []
    for start in np.arange(0, duration, _BLOCK_SECONDS).tolist():
        sound = media.read_waveform(path, start, min(start + _BLOCK_SECONDS, duration))
        if sound is not None:
            levels.append(loudness(*sound))
    spans = cut_at_pauses(np.concatenate(levels), longest) if levels else []
    if spans:
        return [(start, min(end, duration)) for start, end in spans]
    edges = np.linspace(0, duration, math.ceil(duration / longest) + 1).tolist()
    return list(pairwise(edges))


def loudness(waveform: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """(samples,) in [-1, 1] -> the level of every FRAME in dB of full scale."""
    count = max(1, round(len(waveform) / rate / FRAME))
    # At 11,025 Hz a frame is no whole number of samples: edges are rounded, and do not drift.
    edges = np.round(np.linspace(0, len(waveform), count + 1)).astype(int)
    power = np.add.reduceat(np.square(waveform, dtype=np.float64), edges[:-1]) / np.diff(edges)
    levels: NDArray[np.float64] = 10 * np.log10(np.maximum(power, 1e-12))
    return levels.clip(_SILENCE)


def cut_at_pauses(
    levels: NDArray[np.float64],
    longest: float,
    *,
    pause: float = 0.5,
    margin: float = 0.25,
    shortest: float = 1.0,
) -> list[Span]:
    """Spans of speech in seconds, from the level of every FRAME; none if nothing stands out.

    A frame is quiet below a quarter of the way from the background (the 10th percentile of levels)
    to the speech (the 95th), or 35 dB below the speech if that is more. Where it stays so for
    `pause` seconds, an utterance ends; at most `margin` seconds of the pause stay with it. One
    that is shorter than `shortest` joins a neighbour that is nearer than that; one that is longer
    than `longest` is cut at its quietest place.
    """
    background, speech = np.percentile(levels, [10, 95])
    if speech < _SILENCE + 20 or speech - background < 6:
        return []
    quiet = levels < max(background + (speech - background) / 4, speech - 35)
    spans = _between_pauses(quiet, round(pause / FRAME))
    spans = _widened(spans, round(margin / FRAME), len(levels))
    spans = _joined(spans, round(shortest / FRAME), round(longest / FRAME))
    kernel = np.full(11, 1 / 11)  # a fifth of a second: between words, not within one
    smooth = np.convolve(np.pad(levels, 5, mode="edge"), kernel, mode="valid")
    return [
        (first * FRAME, last * FRAME)
        for span in spans
        for first, last in _split(smooth, *span, math.floor(longest / FRAME))
    ]


def _between_pauses(quiet: NDArray[np.bool_], shortest: int) -> list[tuple[int, int]]:
    """Spans between runs of quiet of at least `shortest` frames."""
    edges = np.flatnonzero(np.diff(quiet, prepend=False, append=False)).reshape(-1, 2)
    pauses = [(0, 0), *((a, b) for a, b in edges.tolist() if b - a >= shortest)]
    pauses.append((len(quiet), len(quiet)))
    return [(end, start) for (_, end), (start, _) in pairwise(pauses) if start > end]


def _widened(spans: list[tuple[int, int]], margin: int, length: int) -> list[tuple[int, int]]:
    """Each span with `margin` frames around it, of a shorter pause with half of it."""
    starts = [0, *(start for start, _ in spans), length]
    ends = [0, *(end for _, end in spans), length]
    return [
        (
            start - min(margin, (start - before) // (2 if before else 1)),
            end + min(margin, (after - end) // (2 if after < length else 1)),
        )
        for (start, end), before, after in zip(spans, ends, starts[2:], strict=False)
    ]


def _joined(spans: list[tuple[int, int]], shortest: int, longest: int) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for span in spans:
        if joined:
            (start, before), (after, end) = joined[-1], span
            short = min(before - start, end - after) < shortest
            if short and after - before < shortest and end - start <= longest:
                joined[-1] = (start, end)
                continue
        joined.append(span)
    return joined


def _split(
    levels: NDArray[np.float64], first: int, last: int, longest: int
) -> Iterator[tuple[int, int]]:
    """Cut a span at its quietest frame, away from its ends, until no piece is too long."""
    if last - first <= longest:
        yield first, last
        return
    quarter = (last - first) // 4
    middle = levels[first + quarter : last - quarter]
    cut = first + quarter + int(np.argmin(middle))
    yield from _split(levels, first, cut, longest)
    yield from _split(levels, cut, last, longest)
