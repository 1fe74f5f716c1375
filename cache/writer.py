"""Write a feature store whole: to a temporary file that is closed, synced and renamed.

HDF5 does not survive a kill in the middle of a write, so a store is never grown in place: what is
at the final path was closed before it got there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import StoreError
from .files import publish
from .provenance import canonical_json
from .store import FORMAT, VERSION, Failure, StreamSpec, Utterance

_BLOCK_ROWS = 4096  # rows gathered before one write: tens of MB at the widest stream
_PAGE = 4096  # values start on a page, so that they can be memory-mapped well


class StreamColumn(NamedTuple):
    """One stream to write: rows per utterance (n,), and the rows (T, D) in that order."""

    spec: StreamSpec
    lengths: NDArray[np.int64]
    rows: Iterable[NDArray[Any]]


def storage_dtype(level: str) -> np.dtype[Any]:
    """Sequences are stored as float16, utterance vectors as float32."""
    return np.dtype(np.float16 if level == "sequence" else np.float32)


def write_store(
    path: Path,
    *,
    dataset: str,
    profile: str,
    utterances: Sequence[Utterance],
    streams: Iterable[StreamColumn],
    failures: Sequence[Failure] = (),
) -> None:
    """Write a store of format version 1 to `path`, whole or not at all.

    Rows are taken from the columns as they are written, so memory holds a block at a time.

    Raises:
        StoreError: a column does not have the rows that its `lengths` promise.
    """
    with (
        publish(path) as temporary,
        h5py.File(
            temporary,
            "w",
            libver=("earliest", "v110"),  # bytes must not depend on the HDF5 in the h5py wheel
            locking=False,
            alignment_threshold=_PAGE,
            alignment_interval=_PAGE,
        ) as file,
    ):
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        file.attrs["dataset"] = dataset
        file.attrs["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        file.attrs["clipmsa_version"] = version("clipmsa")
        file.attrs["profile"] = profile
        table = file.create_group("utterances")
        _write_strings(table, "id", [u.id for u in utterances])
        for key in ("video_id", "clip_id", "split", "text"):
            _write_strings(table, key, [getattr(u, key) for u in utterances])
        for key in ("label", "duration"):
            table[key] = np.array([getattr(u, key) for u in utterances], np.float32)
        group = file.create_group("streams")
        for column in streams:
            _write_stream(group, column)
        table = file.create_group("failures")
        for key in Failure._fields:
            _write_strings(table, key, [getattr(f, key) for f in failures])


def _write_stream(parent: h5py.Group, column: StreamColumn) -> None:
    spec = column.spec
    group = parent.create_group(spec.name)
    for key in ("modality", "branch", "level", "encoder", "weights", "weights_sha256"):
        group.attrs[key] = getattr(spec, key)
    group.attrs["fingerprint"] = spec.fingerprint
    group.attrs["config"] = canonical_json(spec.config)
    offsets = np.concatenate([[0], np.cumsum(column.lengths)]).astype(np.int64)
    group["offsets"] = offsets
    values = group.create_dataset("values", (int(offsets[-1]), spec.dim), storage_dtype(spec.level))
    written = 0
    for block in _blocks(column.rows):
        values[written : written + len(block)] = block
        written += len(block)
    if written != offsets[-1]:
        raise StoreError(
            f"stream '{spec.name}': {written} rows were given, its lengths sum to {offsets[-1]}"
        )


def _blocks(rows: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Join small arrays of rows into blocks worth a write call."""
    waiting: list[NDArray[Any]] = []
    count = 0
    for array in rows:
        waiting.append(array)
        count += len(array)
        if count >= _BLOCK_ROWS:
            yield np.concatenate(waiting)
            waiting, count = [], 0
    if count:
        yield np.concatenate(waiting)


def _write_strings(group: h5py.Group, key: str, texts: Sequence[str]) -> None:
    """Fixed length, UTF-8: ten times faster to read than variable length."""
    encoded = [text.encode("utf-8") for text in texts]
    dtype = h5py.string_dtype("utf-8", max([1, *map(len, encoded)]))
    group.create_dataset(key, data=np.array(encoded, dtype), dtype=dtype)
