"""What has been encoded so far, in whichever files it lies, and the store assembled from it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache import FeatureStore, Stream, StreamColumn, StreamSpec, Utterance, write_store
from clipmsa.cache.errors import StoreError
from clipmsa.cache.hdf5 import Hdf5File
from clipmsa.cache.spec import Failure

_HASHED_ROWS = 4096  # at a time

_Excerpt = tuple[str, float, float]


def _excerpt(utterance: Utterance) -> _Excerpt:
    """What sound and pictures are of: an id, and seconds in its file."""
    return utterance.id, utterance.start, utterance.end


def _encoded_of(modality: str, utterance: Utterance) -> _Excerpt | tuple[str, str]:
    """What features of a modality are of; those of anything else are not this utterance's."""
    return (utterance.id, utterance.text) if modality == "text" else _excerpt(utterance)


def refuse_damage(store: FeatureStore) -> None:
    """Read all values of a store whose rows are about to be copied, under a new checksum.

    Raises:
        StoreError: they are not those that were written, or the file is gone.
    """
    try:
        with Hdf5File(store.path, StoreError) as file:
            for name, stream in store.streams.items():
                digest, values = hashlib.sha256(), file.dataset(f"streams/{name}/values", rank=2)
                for start in range(0, len(values), _HASHED_ROWS):
                    digest.update(np.ascontiguousarray(values[start : start + _HASHED_ROWS]).data)
                if stream.checksum not in ("", digest.hexdigest()):
                    raise StoreError(
                        f"{store.path}: /streams/{name}/values are not those that were written "
                        f"(SHA-256); the file is damaged: copy it anew, or extract it again"
                    )
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise StoreError(f"{store.path}: cannot be read any more ({error})") from None


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
        self._where: dict[str, dict[tuple[Any, ...], tuple[Stream, int]]] = {
            name: {} for name in wanted
        }
        self._durations: dict[_Excerpt, float] = {}
        for store in sources:
            utterances = [store.utterance(row) for row in range(len(store))]
            for utterance in utterances:
                if not math.isnan(utterance.duration):
                    self._durations.setdefault(_excerpt(utterance), utterance.duration)
            for failure in store.failed:
                self.failures.setdefault(failure.id, failure)
            texts = [_encoded_of("text", utterance) for utterance in utterances]
            excerpts = [_excerpt(utterance) for utterance in utterances]
            for name, stream in store.streams.items():
                if name in wanted and stream.spec.fingerprint == wanted[name]:
                    self.specs.setdefault(name, stream.spec)
                    self._dtypes.setdefault(name, stream.dtype)
                    of = texts if stream.spec.modality == "text" else excerpts
                    for row, what in enumerate(of):
                        self._where[name].setdefault(what, (stream, row))

    def lacking(self, utterance: Utterance, names: Iterable[str]) -> frozenset[str]:
        """The streams, of `names`, that this utterance has not been encoded for."""
        return frozenset(name for name in names if self._find(name, utterance) is None)

    def incomplete(self, utterance: Utterance) -> bool:
        """Whether any stream that is wanted, be it of the existing store, lacks the utterance."""
        return bool(self.lacking(utterance, self._where))

    def failed(self, utterance: Utterance) -> bool:
        """Whether the clip was tried and failed, and has not been encoded whole since."""
        return utterance.id in self.failures and self.incomplete(utterance)

    def empty(self, utterance: Utterance) -> bool:
        """Whether nothing came of encoding it, though streams are of several modalities."""
        if len({spec.modality for spec in self.specs.values()}) < 2 or self.incomplete(utterance):
            return False
        places = [self._find(name, utterance) for name in self.specs]
        return not any(p and p[0].offsets[p[1]] < p[0].offsets[p[1] + 1] for p in places)

    def assemble(
        self,
        path: Path,
        *,
        dataset: str,
        profile: str,
        splits_from: str,
        shard: str,
        utterances: Sequence[Utterance],
        failures: Sequence[Failure],
    ) -> None:
        """Write the store of these utterances, in order, and of the clips that are left out."""
        write_store(
            path,
            dataset=dataset,
            profile=profile,
            splits_from=splits_from,
            shard=shard,
            utterances=[self._timed(utterance) for utterance in utterances],
            streams=[self._column(name, utterances) for name in self.specs],
            failures=failures,
        )

    def _find(self, name: str, utterance: Utterance) -> tuple[Stream, int] | None:
        if name not in self.specs:
            return None
        return self._where[name].get(_encoded_of(self.specs[name].modality, utterance))

    def _timed(self, utterance: Utterance) -> Utterance:
        return replace(utterance, duration=self._durations.get(_excerpt(utterance), math.nan))

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
