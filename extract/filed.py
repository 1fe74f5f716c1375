"""What has been encoded so far, in whichever files it lies, and the store assembled from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache import FeatureStore, Stream, StreamColumn, StreamSpec, Utterance, write_store
from clipmsa.cache.store import Failure

_Part = tuple[str, float, float]


def _part(utterance: Utterance) -> _Part:
    """What sound and pictures are of: an id, and seconds in its file."""
    return utterance.id, utterance.start, utterance.end


class Filed:
    """An index over feature stores: where the features of a (stream, utterance) pair lie.

    `wanted` gives the fingerprint of each stream; features made in another way do not count, nor
    do text features of another text or others of another part of the file. `sources` are searched
    in order.
    """

    def __init__(self, sources: Iterable[FeatureStore], wanted: Mapping[str, str]) -> None:
        self.specs: dict[str, StreamSpec] = {}
        self.failures: dict[str, Failure] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._where: dict[str, dict[str, tuple[Stream, FeatureStore, int]]] = {
            name: {} for name in wanted
        }
        self._durations: dict[_Part, float] = {}
        for store in sources:
            for row in range(len(store)):
                if not math.isnan(store.durations[row]):
                    part = _part(store.utterance(row))
                    self._durations.setdefault(part, float(store.durations[row]))
            for failure in store.failed:
                self.failures.setdefault(failure.id, failure)
            for name, stream in store.streams.items():
                if name in wanted and stream.spec.fingerprint == wanted[name]:
                    self.specs.setdefault(name, stream.spec)
                    self._dtypes.setdefault(name, stream.dtype)
                    for id_, row in store.index.items():
                        self._where[name].setdefault(id_, (stream, store, row))

    def lacking(self, utterance: Utterance, names: Iterable[str]) -> frozenset[str]:
        """The streams, of `names`, that this utterance has not been encoded for."""
        return frozenset(name for name in names if self._find(name, utterance) is None)

    def failed(self, utterance: Utterance) -> bool:
        """Whether the clip was tried and failed, and has not been encoded whole since."""
        return utterance.id in self.failures and bool(self.lacking(utterance, self._where))

    def assemble(
        self,
        path: Path,
        *,
        dataset: str,
        profile: str,
        splits_from: str,
        utterances: Sequence[Utterance],
        failures: Sequence[Failure],
    ) -> None:
        """Write the store of these utterances, in order, and of the clips that are left out."""
        write_store(
            path,
            dataset=dataset,
            profile=profile,
            splits_from=splits_from,
            utterances=[self._timed(utterance) for utterance in utterances],
            streams=[self._column(name, utterances) for name in self.specs],
            failures=failures,
        )

    def _find(self, name: str, utterance: Utterance) -> tuple[Stream, int] | None:
        found = self._where[name].get(utterance.id)
        if found is None:
            return None
        stream, store, row = found
        there = store.utterance(row)
        if stream.spec.modality == "text":
            same = there.text == utterance.text
        else:
            same = _part(there) == _part(utterance)
        return (stream, row) if same else None

    def _timed(self, utterance: Utterance) -> Utterance:
        return replace(utterance, duration=self._durations.get(_part(utterance), math.nan))

    def _column(self, name: str, utterances: Sequence[Utterance]) -> StreamColumn:
        places = [self._find(name, utterance) for utterance in utterances]
        lengths = [0 if p is None else int(p[0].lengths[p[1]]) for p in places]

        def rows() -> Iterator[NDArray[Any]]:
            open_: Stream | None = None  # one file at a time, however many parts there are
            for place in places:
                if place is None:
                    continue
                stream, row = place
                if open_ is not None and open_ is not stream:
                    open_.release()
                open_ = stream
                yield np.array(stream[row])  # a copy, which does not hold the map
            if open_ is not None:
                open_.release()

        return StreamColumn(
            self.specs[name], np.array(lengths, np.int64), rows(), self._dtypes[name]
        )
