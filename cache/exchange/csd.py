"""CMU's computational sequences (.csd): per video, feature rows and the seconds they are for."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache.errors import ExchangeError
from clipmsa.cache.hdf5 import Hdf5File
from clipmsa.cache.spec import Utterance
from clipmsa.cache.writer import StreamColumn, write_store

from .imported import Imported, Tally, finite, imported_spec, provenance_of, table_notes


class TimedRows(NamedTuple):
    """`intervals` (n, 2): start and end in seconds of the full video; `features` (n, ...)."""

    intervals: NDArray[np.float64]
    features: NDArray[Any]


class ComputationalSequence:
    """A `.csd` file opened for reading, one video at a time; used in a `with` statement.

    The file holds `/<root>/data/<video_id>/{features, intervals}`. As in CMU's SDK, only the first
    root is read. The SDK itself is not needed.

    Raises:
        ExchangeError: not such a file, or a video in it is damaged; names file and video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = Hdf5File(path, ExchangeError)
        try:
            roots = [name for name in self._file.names("") if self._file.has(f"{name}/data")]
            if not roots:
                raise self._file.error("not a computational sequence, no /<name>/data in it")
            self.name = roots[0]
            self._keys: defaultdict[str, list[tuple[int | None, str]]] = defaultdict(list)
            for key in self._file.names(f"{self.name}/data"):
                part = re.fullmatch(r"(.+)\[(\d{1,9})\]", key, re.DOTALL)
                video, number = (part[1], int(part[2])) if part else (key, None)
                self._keys[video].append((number, key))
        except ExchangeError:
            self.close()
            raise
        for keys in self._keys.values():
            keys.sort(key=lambda part: (part[0] is not None, part[0] or 0))
        self._last: tuple[str, TimedRows] = ("", TimedRows(np.empty((0, 2)), np.empty(0)))
        self.videos = list(self._keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row of features."""
        shape = self[self.videos[0]].features.shape[1:] if self.videos else (0,)
        return tuple(int(size) for size in shape)

    @cached_property
    def dimensions(self) -> list[str]:
        """The names that the file gives to its columns; none, where it gives none."""
        return self._metadata("dimension names")

    @cached_property
    def about(self) -> str:
        """Its name and that of its dataset, as the file and its metadata have them."""
        return " ".join([self.name, *self._metadata("dataset name")])

    def __contains__(self, video: str) -> bool:
        return video in self._keys

    def __getitem__(self, video: str) -> TimedRows:
        """The rows of a video, also where the file has them in parts, as `<video>[<number>]`."""
        parts = [self._read(key) for _, key in self._keys[video]]
        if len({part.features.shape[1:] for part in parts}) > 1:
            raise self._file.error(f"video '{video}' has parts of several widths")
        return TimedRows(
            np.concatenate([part.intervals for part in parts]),
            np.concatenate([part.features for part in parts]),
        )

    def numbers(self, video: str) -> list[int]:
        """The number of each row of a video: that of its part, or else its place."""
        keys = self._keys[video]
        if len(keys) == 1 and keys[0][0] is None:
            return list(range(len(self[video].intervals)))
        return [number or 0 for number, key in keys for _ in self._read(key).intervals]

    def _read(self, key: str) -> TimedRows:
        place = f"{self.name}/data/{key}"
        stored = self._file.dataset(f"{place}/features", rank=None)
        times = self._file.dataset(f"{place}/intervals", rank=2)
        if not stored.ndim:
            raise self._file.error(f"video '{key}' has features of shape (), must be rows")
        if times.shape != (len(stored), 2) or times.dtype.kind not in "fiu":
            raise self._file.error(
                f"video '{key}' has {len(stored)} rows and intervals of shape {times.shape}, "
                f"must be ({len(stored)}, 2) of numbers"
            )
        if stored.dtype.kind not in "fiuSO":
            raise self._file.error(f"video '{key}' has features of {stored.dtype}")
        with self._file.reading(place):
            rows = TimedRows(times[:].astype(np.float64), stored[:])
        if not np.isfinite(rows.intervals).all():
            raise self._file.error(f"video '{key}' has an interval that is not a number of seconds")
        return rows

    def _metadata(self, what: str) -> list[str]:
        """One entry of CMU's metadata, each of which is a text of JSON: a text or some."""
        key = f"{self.name}/metadata/{what}"
        if not self._file.has(f"{self.name}/metadata") or not self._file.has(key):
            return []
        texts = self._file.strings(key, rank=None)
        try:
            value = json.loads(texts[0]) if len(texts) == 1 else texts
        except (ValueError, RecursionError):
            return texts
        return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]

    def within(self, utterance: Utterance) -> NDArray[Any]:
        """The features of the rows whose middle lies between an utterance's start and end."""
        if utterance.video_id not in self:
            return np.empty((0, *self.shape), np.float32)
        if utterance.video_id != self._last[0]:
            self._last = utterance.video_id, self[utterance.video_id]
        intervals, features = self._last[1]
        middle = intervals.mean(axis=1)
        found: NDArray[Any] = features[(middle >= utterance.start) & (middle < utterance.end)]
        return found


def import_csd(
    out: Path,
    dataset: str,
    utterances: Sequence[Utterance],
    sequences: Mapping[str, Path],
    words: Path | None = None,
) -> Imported:
    """Write the store of `utterances`, parts of videos, with a stream for each modality's csd.

    `words` is CMU's csd of time-stamped words, which an utterance's text is joined from. Rows are
    read a video at a time.

    Raises:
        ExchangeError: a file is no computational sequence, or has no row for any utterance.
    """
    tally = Tally(told=table_notes(utterances))
    if words is not None:
        with ComputationalSequence(words) as said:
            utterances = [replace(u, text=_text(said.within(u))) for u in utterances]
    opened = {name: ComputationalSequence(path) for name, path in sequences.items()}
    try:
        columns = [_column(name, sequence, utterances, tally) for name, sequence in opened.items()]
        write_store(out, dataset=dataset, profile="csd", utterances=utterances, streams=columns)
    finally:
        for sequence in opened.values():
            sequence.close()
    return Imported(len(utterances), tally.notes())


def _column(
    name: str, sequence: ComputationalSequence, utterances: Sequence[Utterance], tally: Tally
) -> StreamColumn:
    if len(sequence.shape) != 1:
        raise ExchangeError(
            f"{sequence.path}: a row has shape {sequence.shape}, must be one vector"
        )
    counts = []
    for utterance in utterances:
        rows = sequence.within(utterance)
        if rows.dtype.kind not in "fiu" or rows.shape[1:] != sequence.shape:
            raise ExchangeError(
                f"{sequence.path}: video '{utterance.video_id}' has rows of {rows.dtype} and shape "
                f"{rows.shape[1:]}, must be numbers of shape {sequence.shape}"
            )
        counts.append(len(rows))
    lengths = np.array(counts, np.int64)
    if not lengths.any():
        raise ExchangeError(f"{sequence.path}: has no row within any of the utterances")
    absent = int((lengths == 0).sum())
    if absent:
        tally.told.append(f"{name}: {absent} utterances have no row in {sequence.path.name}")
    config = provenance_of("computational sequence", sequence.path, name=sequence.name)
    spec = imported_spec(name, sequence.shape[0], sequence.name, config)

    def finite_rows() -> Iterator[NDArray[np.float32]]:
        for utterance in utterances:
            clean, replaced = finite(sequence.within(utterance))
            tally.replaced[name] += replaced
            yield clean

    return StreamColumn(spec, lengths, finite_rows(), np.dtype(np.float32))


def _text(words: NDArray[Any]) -> str:
    """Words as CMU stores them: bytes, one a row, "sp" for a pause."""
    decoded = (
        word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)
        for word in words.reshape(-1).tolist()
    )
    return " ".join(word for word in decoded if word != "sp")


def sentiment_column(sequence: ComputationalSequence) -> int:
    """Which column of a csd of labels is sentiment.

    It is the one of that name. Where columns have no names, there must be one alone, as in MOSI's
    file, or seven, as in CMU_MOSEI_Labels.csd: sentiment and six emotions.

    Raises:
        ExchangeError: none is, such as in CMU_MOSEI_LabelsEmotions.csd or a csd of features.
    """
    width = math.prod(sequence.shape)
    names = [name.strip().lower() for name in sequence.dimensions]
    if len(names) == width:
        found = [n for n, name in enumerate(names) if "sentiment" in name or "opinion" in name]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(name[:20] for name in sequence.dimensions[:8])
        if len(found) > 1 or not (width == 1 and _is_of_labels(sequence)):
            raise ExchangeError(
                f"{sequence.path}: not labels of sentiment: its columns are {listed}"
                f"{', ...' if width > 8 else ''}; give CMU_MOSEI_Labels.csd, or MOSI's"
            )
    elif width not in (1, 7):
        raise ExchangeError(
            f"{sequence.path}: not labels of sentiment: it has {width} columns without names, must "
            f"be one, as MOSI's, or seven, as CMU_MOSEI_Labels.csd"
        )
    return 0


def _is_of_labels(sequence: ComputationalSequence) -> bool:
    return any(word in sequence.name.lower() for word in ("sentiment", "opinion"))
