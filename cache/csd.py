"""CMU's computational sequences (.csd): per video, feature rows and the seconds they are for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import ExchangeError
from .exchange import Imported, Tally, finite, imported_spec
from .provenance import sha256_of_files
from .store import Utterance
from .writer import StreamColumn, write_store


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
        try:
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise ExchangeError(f"{path}: not a readable HDF5 file ({error})") from None
        roots = [name for name in self._file if f"{name}/data" in self._file]
        if not roots:
            self._file.close()
            raise ExchangeError(f"{path}: not a computational sequence, no /<name>/data in it")
        self.name = str(roots[0])
        self._data = self._file[f"{self.name}/data"]
        self._last: tuple[str, TimedRows] = ("", TimedRows(np.empty((0, 2)), np.empty(0)))
        self.videos = [str(video) for video in self._data]

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

    def __contains__(self, video: str) -> bool:
        return video in self._data

    def __getitem__(self, video: str) -> TimedRows:
        try:
            group = self._data[video]
            rows = TimedRows(group["intervals"][:].astype(np.float64), group["features"][:])
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise ExchangeError(f"{self.path}: video '{video}' cannot be read ({error})") from None
        shape = rows.intervals.shape
        if shape != (len(rows.features), 2):
            raise ExchangeError(
                f"{self.path}: video '{video}' has {len(rows.features)} rows and intervals of "
                f"shape {shape}, must be ({len(rows.features)}, 2)"
            )
        return rows

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
    tally = Tally()
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
    lengths = np.array([len(sequence.within(u)) for u in utterances], np.int64)
    if not lengths.any():
        raise ExchangeError(f"{sequence.path}: has no row within any of the utterances")
    if len(sequence.shape) != 1:
        raise ExchangeError(
            f"{sequence.path}: a row has shape {sequence.shape}, must be one vector"
        )
    config = {
        "imported": "computational sequence",
        "file": sequence.path.name,
        "sha256": sha256_of_files([sequence.path]),
        "name": sequence.name,
    }
    spec = imported_spec(name, sequence.shape[0], sequence.name, config)

    def rows() -> Iterator[NDArray[np.float32]]:
        for utterance in utterances:
            clean, replaced = finite(sequence.within(utterance))
            tally.replaced[name] += replaced
            yield clean

    return StreamColumn(spec, lengths, rows(), np.dtype(np.float32))


def _text(words: NDArray[Any]) -> str:
    """Words as CMU stores them: bytes, one a row, "sp" for a pause."""
    decoded = (word.decode("utf-8", "replace") for word in words.reshape(-1).tolist())
    return " ".join(word for word in decoded if word != "sp")
