"""Write a feature store whole: to a temporary file that is closed, synced and renamed.

HDF5 does not survive a kill in the middle of a write, so a store is never grown in place: what is
at the final path was closed, and read back against the format's rules, before it got there.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
from .spec import Failure, StreamSpec, Utterance
from .store import CHECKSUM, FORMAT, VERSION, FeatureStore

_BLOCK_ROWS = 4096  # rows gathered before one write: tens of MB at the widest stream
_ATTRIBUTE_BYTES = 60_000
_PAGE = 4096  # values start on a page, so that they can be memory-mapped well


class StreamColumn(NamedTuple):
    """One stream to write: rows per utterance (n,), and the rows (T, D) in that order.

    They are stored as `dtype`, float16 or float32; by default as `storage_dtype` says.
    """

    spec: StreamSpec
    lengths: NDArray[np.int64]
    rows: Iterable[NDArray[Any]]
    dtype: np.dtype[Any] | None = None

    @property
    def stored(self) -> np.dtype[Any]:
        return self.dtype or storage_dtype(self.spec.level)


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
    splits_from: str = "",
    shard: str = "",
) -> None:
    """Write a store of format version 1 to `path`, whole or not at all.

    Rows are taken from the columns as they are written, so memory holds a block at a time.
    `splits_from` says in words where the splits come from, `shard` that this is a part of a
    dataset: `3/8` is block 3 of 8, counted from 0.

    Raises:
        StoreError: a column does not have the rows that its `lengths` promise, what was written
            breaks a rule of the format, such as an id that occurs twice, or the disk is full.
    """
    columns = list(streams)
    with publish(path) as temporary:
        with _told(path):
            _reserve(temporary, utterances, columns)
        with (
            _told(path),
            h5py.File(
                temporary,
                "w",
                libver=("earliest", "v110"),  # bytes must not depend on the HDF5 in the h5py wheel
                locking=False,
                alignment_threshold=_PAGE,
                alignment_interval=_PAGE,
            ) as file,
        ):
            _write_head(file, dataset, profile, splits_from, shard)
            _write_table(file, utterances)
            group = file.create_group("streams")
            for column in columns:
                _write_stream(group, column)
            _write_failures(file, failures)
        try:
            FeatureStore(temporary, mapped=False)
        except StoreError as error:  # about a file that is gone when this is read
            raise StoreError(str(error).replace(str(temporary), str(path))) from None


def _reserve(path: Path, utterances: Sequence[Utterance], columns: Sequence[StreamColumn]) -> None:
    """Raise OSError now if the disk has no room: HDF5 makes a mess of it when it finds out."""
    size = 0
    for column in columns:
        rows = int(np.sum(column.lengths))
        size += rows * column.spec.dim * column.stored.itemsize
        size += 8 * (len(column.lengths) + 1) + 2 * _PAGE
    for key in ("id", "video_id", "clip_id", "split", "text"):
        longest = max([1, *(len(getattr(u, key).encode(errors="replace")) for u in utterances)])
        size += longest * len(utterances)
    if size and hasattr(os, "posix_fallocate"):
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say in one line that HDF5 could not write; it raises errors of several kinds for that."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"{path}: could not be written ({reason}); is the disk full?") from None


def _write_head(file: h5py.File, dataset: str, profile: str, splits_from: str, shard: str) -> None:
    _write_attribute(file, "format", FORMAT)
    file.attrs["version"] = VERSION
    _write_attribute(file, "dataset", dataset)
    _write_attribute(file, "created", datetime.now(UTC).isoformat(timespec="seconds"))
    _write_attribute(file, "clipmsa_version", version("clipmsa"))
    _write_attribute(file, "profile", profile)
    if splits_from:
        _write_attribute(file, "splits_from", splits_from)
    if shard:
        _write_attribute(file, "shard", shard)


def _write_table(file: h5py.File, utterances: Sequence[Utterance]) -> None:
    table = file.create_group("utterances")
    for key in ("id", "video_id", "clip_id", "split", "text"):
        _write_strings(table, key, [getattr(u, key) for u in utterances])
    for key in ("label", "duration"):
        table[key] = np.array([getattr(u, key) for u in utterances], np.float32)
    if any((u.start, u.end) != (0.0, math.inf) for u in utterances):
        for key in ("start", "end"):
            table[key] = np.array([getattr(u, key) for u in utterances], np.float64)


def _write_failures(file: h5py.File, failures: Sequence[Failure]) -> None:
    table = file.create_group("failures")
    for key in Failure._fields:
        _write_strings(table, key, [_printable(getattr(f, key)) for f in failures])


def _write_stream(parent: h5py.Group, column: StreamColumn) -> None:
    spec = column.spec
    group = parent.create_group(spec.name)
    for key in ("modality", "branch", "level", "encoder", "weights", "weights_sha256"):
        _write_attribute(group, key, getattr(spec, key))
    if spec.states_of:
        _write_attribute(group, "states_of", spec.states_of)
    _write_attribute(group, "fingerprint", spec.fingerprint)
    _write_attribute(group, "config", canonical_json(spec.config))
    offsets = np.concatenate([[0], np.cumsum(column.lengths)]).astype(np.int64)
    group["offsets"] = offsets
    dtype = column.stored
    values = group.create_dataset("values", (int(offsets[-1]), spec.dim), dtype)
    written, digest = 0, hashlib.sha256()
    for block in _blocks(column.rows, spec):
        end = written + len(block)
        if end <= len(values):
            stored = np.ascontiguousarray(_as_stored(block, dtype, spec))
            values[written:end] = stored
            digest.update(stored.data)
        written = end
    if written != len(values):
        raise StoreError(
            f"stream '{spec.name}': {written} rows were given, its lengths sum to {len(values)}"
        )
    _write_attribute(group, CHECKSUM, digest.hexdigest())


def _blocks(rows: Iterable[NDArray[Any]], spec: StreamSpec) -> Iterator[NDArray[Any]]:
    """Join small arrays of rows into blocks worth a write call."""
    waiting: list[NDArray[Any]] = []
    count = 0
    for array in rows:
        if array.shape[1:] != (spec.dim,):  # HDF5 would repeat one column over all
            raise StoreError(
                f"stream '{spec.name}': rows of shape {array.shape}, must be (T, {spec.dim})"
            )
        waiting.append(array)
        count += len(array)
        if count >= _BLOCK_ROWS:
            yield np.concatenate(waiting)
            waiting, count = [], 0
    if count:
        yield np.concatenate(waiting)


def _as_stored(block: NDArray[Any], dtype: np.dtype[Any], spec: StreamSpec) -> NDArray[Any]:
    try:
        with np.errstate(over="raise"):
            return block.astype(dtype, copy=False)
    except FloatingPointError:
        raise StoreError(
            f"stream '{spec.name}': values beyond {np.finfo(dtype).max:g}, the largest {dtype}"
        ) from None


def _write_strings(group: h5py.Group, key: str, texts: Sequence[str]) -> None:
    """Fixed length, UTF-8: ten times faster to read than variable length."""
    for text in texts:
        if text != _printable(text):
            raise StoreError(
                f"{group.name}/{key}: {text!r} holds a zero byte or is not Unicode; "
                f"the store cannot keep it"
            )
    encoded = [text.encode("utf-8") for text in texts]
    dtype = h5py.string_dtype("utf-8", max([1, *map(len, encoded)]))
    group.create_dataset(key, data=np.array(encoded, dtype), dtype=dtype)


def _write_attribute(item: h5py.Group, name: str, text: str) -> None:
    """Fixed length too: texts of variable length lie in HDF5's global heap, where a few damaged
    bytes make it hang or crash. A header holds 64 KB, so longer ones must go there all the same.
    """
    coded = _printable(text).encode("utf-8")
    fixed = h5py.string_dtype("utf-8", max(1, len(coded)))
    if len(coded) < _ATTRIBUTE_BYTES:
        item.attrs.create(name, np.array(coded, fixed), dtype=fixed)
    else:
        item.attrs[name] = text


def _printable(text: str) -> str:
    """What a store can keep of a text: no zero bytes, which end a string in HDF5, and escapes for
    Python's surrogates, which stand for the bytes of a file name that are not Unicode.
    """
    return text.replace("\0", "").encode("utf-8", "backslashreplace").decode("utf-8")
