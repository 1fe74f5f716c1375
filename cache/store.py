"""Read a feature store (format version 1, FORMAT.md), whoever wrote it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sized
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import StoreError
from .frames import Framed
from .hdf5 import Hdf5File
from .spec import SPLITS, Failure, StreamSpec, Utterance

if TYPE_CHECKING:
    import pandas as pd  # only `utterances` and `failures` need it; training must start fast

FORMAT = "clipmsa-features"
VERSION = 1
LABEL_LIMIT = 3.0  # of MOSI and MOSEI; CH-SIMS stays within 1
CHECKSUM = "values_sha256"  # the attribute of a stream: SHA-256 of the bytes of its values


@dataclass(frozen=True)
class Stream:
    """A stream's rows: utterance i owns `values[offsets[i]:offsets[i + 1]]`.

    `values` is (N, D), float16 or float32, memory-mapped where the file's layout allows;
    `offsets` is (n + 1,) int64.
    """

    spec: StreamSpec
    offsets: NDArray[np.int64]
    path: Path
    dtype: np.dtype[Any]
    checksum: str = ""  # SHA-256 of the bytes of `values`, where the writer recorded it

    @cached_property
    def values(self) -> NDArray[Any]:
        return _map(self.path, f"streams/{self.spec.name}/values")

    def release(self) -> None:
        """Let the memory map go, and with it an open file; it is made again when needed."""
        vars(self).pop("values", None)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Rows of each utterance, (n,); 0 where the modality is missing."""
        return np.diff(self.offsets)

    def __getitem__(self, utterance: int) -> NDArray[Any]:
        """The rows of one utterance, (T, D)."""
        return self.values[self.offsets[utterance] : self.offsets[utterance + 1]]


class FeatureStore(Framed):
    """A feature store opened for reading.

    Opening reads the table and the offsets, checks them, and closes the file; features are
    memory-mapped, so a store larger than memory costs nothing until its rows are used. A map
    keeps its file open: with `mapped=False` it is made only when `values` is first used, for those
    who open more stores than a process may have files.

    Raises:
        StoreError: not a feature store, another version, or a broken rule of the format; the
            message names the file and the key.
    """

    def __init__(self, path: str | Path, *, mapped: bool = True) -> None:
        self.path = Path(path)
        if not self.path.exists() or self.path.is_dir():
            raise StoreError(
                f"{self.path}: no such feature store; `clipmsa extract --dataset NAME "
                f"--out {self.path}` writes one"
            )
        with Hdf5File(self.path, StoreError) as file:
            self._read_head(file)
            self._read_table(file)
            self.streams = {name: self._read_stream(file, name) for name in file.names("streams")}
            self.failed = self._read_failures(file)
        if mapped:
            for stream in self.streams.values():
                _ = stream.values

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        streams = ", ".join(f"{name} {stream.spec.dim}" for name, stream in self.streams.items())
        untrained = ", untrained encoders" if self.untrained_streams else ""
        return (
            f"FeatureStore({str(self.path)!r}: {len(self)} utterances "
            f"({self.counts_by_split}); {streams or 'no streams'}{untrained})"
        )

    def to_frame(self) -> pd.DataFrame:
        """The table of `utterances`, and of each stream the rows that an utterance has."""
        rows = {f"rows_{name}": stream.lengths for name, stream in self.streams.items()}
        return self.utterances.assign(**rows)

    @property
    def counts_by_split(self) -> str:
        """How many utterances: `train 28, valid 8, test 12`."""
        return ", ".join(f"{split} {self.splits.count(split)}" for split in SPLITS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing stays open; the store is a context manager so that callers need not know."""

    @cached_property
    def utterances(self) -> pd.DataFrame:
        """The table, one row an utterance: id, video_id, clip_id, split, label, text, duration."""
        import pandas as pd

        return pd.DataFrame(
            {
                "id": self.ids,
                "video_id": self.video_ids,
                "clip_id": self.clip_ids,
                "split": self.splits,
                "label": self.labels,
                "text": self.texts,
                "duration": self.durations,
            }
        )

    @cached_property
    def failures(self) -> pd.DataFrame:
        """The clips left out: id, stage, error."""
        import pandas as pd

        return pd.DataFrame(self.failed, columns=list(Failure._fields), dtype=object)

    @cached_property
    def index(self) -> dict[str, int]:
        """Row of each utterance id."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    def with_streams(self, streams: Mapping[str, Stream]) -> FeatureStore:
        """The same utterances with some of the streams."""
        chosen = copy(self)
        chosen.streams = dict(streams)
        return chosen

    def utterance(self, row: int) -> Utterance:
        """One row of the table."""
        return Utterance(
            self.video_ids[row],
            self.clip_ids[row],
            self.splits[row],
            float(self.labels[row]),
            self.texts[row],
            float(self.durations[row]),
            float(self.starts[row]),
            float(self.ends[row]),
        )

    def rows_of_split(self, split: str) -> NDArray[np.int64]:
        """Row numbers of one split, in the store's order."""
        return np.array([row for row, name in enumerate(self.splits) if name == split], np.int64)

    @property
    def untrained_streams(self) -> list[str]:
        """Streams whose encoder had random weights; their figures say nothing about the method."""
        return [name for name, stream in self.streams.items() if stream.spec.untrained]

    # -- reading ------------------------------------------------------------------------------

    def _read_head(self, file: Hdf5File) -> None:
        if file.attribute("", "format") != FORMAT:
            raise StoreError(
                f"{self.path}: attribute 'format' is not '{FORMAT}'; "
                f"this HDF5 file is not a feature store"
            )
        version = self._attribute(file, "", "version")
        if version not in (str(VERSION), f"{VERSION}.0"):  # some programs write doubles only
            raise StoreError(
                f"{self.path}: attribute 'version' is {version}, this clipmsa reads {VERSION}; "
                f"install the release that wrote it, or extract again"
            )
        self.dataset = file.attribute("", "dataset") or ""
        self.profile = file.attribute("", "profile") or ""
        self.splits_from = file.attribute("", "splits_from") or ""
        self.shard = file.attribute("", "shard") or ""
        self.created = file.attribute("", "created") or ""
        self.clipmsa_version = file.attribute("", "clipmsa_version") or ""

    def _read_table(self, file: Hdf5File) -> None:
        file.group("utterances")
        self.ids = file.strings("utterances/id")
        self.video_ids = file.strings("utterances/video_id")
        self.clip_ids = file.strings("utterances/clip_id")
        self.splits = file.strings("utterances/split")
        self.texts = file.strings("utterances/text")
        self.labels = self._floats(file, "utterances/label")
        self.durations = self._floats(file, "utterances/duration")
        self.starts = self._times(file, "utterances/start", whole=0.0)
        self.ends = self._times(file, "utterances/end", whole=np.inf)
        columns: dict[str, Sized] = {
            "video_id": self.video_ids,
            "clip_id": self.clip_ids,
            "split": self.splits,
            "text": self.texts,
            "label": self.labels,
            "duration": self.durations,
            "start": self.starts,
            "end": self.ends,
        }
        for key, column in columns.items():
            if len(column) != len(self.ids):
                raise StoreError(
                    f"{self.path}: /utterances/{key} has {len(column)} rows, "
                    f"/utterances/id has {len(self.ids)}"
                )
        twice = [id_ for id_, count in Counter(self.ids).items() if count > 1]
        if twice:
            raise StoreError(
                f"{self.path}: utterance id '{twice[0]}' occurs twice in /utterances/id"
            )
        for row, split in enumerate(self.splits):
            if split not in SPLITS:
                raise StoreError(
                    f"{self.path}: /utterances/split of '{self.ids[row]}' is '{split}', "
                    f"must be one of {', '.join(SPLITS)}"
                )
        if np.isinf(self.labels).any():
            row = int(np.argmax(np.isinf(self.labels)))
            raise StoreError(
                f"{self.path}: /utterances/label of '{self.ids[row]}' is {self.labels[row]}, "
                f"must be a number, or NaN where unknown"
            )

    def _read_stream(self, file: Hdf5File, name: str) -> Stream:
        key = f"streams/{name}"
        where = f"{self.path}: /{key}"
        file.group(key)
        values = file.dataset(f"{key}/values", rank=2)
        if values.dtype.kind != "f" or values.dtype.itemsize not in (2, 4) or not values.shape[1]:
            raise StoreError(
                f"{where}/values is {values.dtype} of shape {values.shape}, "
                f"must be float16 or float32 of shape (N, D), D at least 1"
            )
        starts = file.dataset(f"{key}/offsets")
        if starts.dtype.kind not in "iu":
            raise StoreError(f"{where}/offsets is {starts.dtype}, must be int64")
        with file.reading(f"{key}/offsets"):
            offsets: NDArray[np.int64] = starts[:].astype(np.int64)
        if len(offsets) != len(self.ids) + 1:
            raise StoreError(
                f"{where}/offsets has {len(offsets)} entries, must have one more than the "
                f"{len(self.ids)} utterances"
            )
        if offsets[0] != 0 or offsets[-1] != len(values) or (offsets[1:] < offsets[:-1]).any():
            raise StoreError(
                f"{where}/offsets must rise from 0 to the {len(values)} rows of values"
            )
        needed = {
            role: self._attribute(file, key, role) for role in ("modality", "branch", "level")
        }
        told = {
            what: file.attribute(key, what) or ""
            for what in ("encoder", "weights", "weights_sha256", "fingerprint", "states_of")
        }
        try:
            config = json.loads(file.attribute(key, "config") or "{}")
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{where}: attribute 'config' is not JSON ({error})") from None
        if not isinstance(config, dict):
            raise StoreError(f"{where}: attribute 'config' must be a JSON object")
        try:
            spec = StreamSpec(name=name, dim=values.shape[1], config=config, **needed, **told)
        except StoreError as error:
            raise StoreError(f"{self.path}: {error}") from None
        if spec.level == "utterance" and (np.diff(offsets) > 1).any():
            row = int(np.argmax(np.diff(offsets) > 1))
            raise StoreError(
                f"{where}/offsets: level is 'utterance', yet '{self.ids[row]}' has "
                f"{offsets[row + 1] - offsets[row]} rows"
            )
        checksum = file.attribute(key, CHECKSUM) or ""
        return Stream(spec, offsets, self.path, values.dtype.newbyteorder("="), checksum)

    def _read_failures(self, file: Hdf5File) -> list[Failure]:
        if not file.has("failures"):
            return []
        file.group("failures")
        columns = [file.strings(f"failures/{key}") for key in Failure._fields]
        if len({len(column) for column in columns}) > 1:
            raise StoreError(
                f"{self.path}: /failures/id, stage and error have "
                f"{', '.join(str(len(column)) for column in columns)} rows, must have as many"
            )
        return [Failure(*row) for row in zip(*columns, strict=True)]

    def _floats(self, file: Hdf5File, key: str) -> NDArray[np.float32]:
        dataset = file.dataset(key)
        if dataset.dtype.kind != "f":
            raise StoreError(f"{self.path}: /{key} is {dataset.dtype}, must be float32")
        with file.reading(key), np.errstate(over="ignore"):
            numbers: NDArray[np.float32] = dataset[:].astype(np.float32)
        return numbers

    def _times(self, file: Hdf5File, key: str, whole: float) -> NDArray[np.float64]:
        """A column that is there where some clips are parts of longer files; else `whole`."""
        if not file.has(key):
            return np.full(len(self.ids), whole)
        dataset = file.dataset(key)
        if dataset.dtype.kind != "f":
            raise StoreError(f"{self.path}: /{key} is {dataset.dtype}, must be float64")
        with file.reading(key):
            times: NDArray[np.float64] = dataset[:].astype(np.float64)
        return times

    def _attribute(self, file: Hdf5File, key: str, name: str) -> str:
        """An attribute that must be there, as text."""
        value = file.attribute(key, name)
        if value is None:
            raise StoreError(f"{self.path}: /{key} has no attribute '{name}'")
        return value


def _map(path: Path, key: str) -> NDArray[Any]:
    """Memory-map a dataset that lies in the file as it does in memory; read any other layout."""
    with Hdf5File(path, StoreError) as file, file.reading(key):
        dataset = file.dataset(key, rank=2)
        offset = dataset.id.get_offset()  # None where rows lie apart: chunked, compact, empty
        dtype, shape = dataset.dtype, dataset.shape
        # h5py gives the nearest type of NumPy: bfloat16 counts as float32 and needs converting.
        same = dtype.isnative and dataset.id.get_type() == h5py.h5t.py_create(dtype)
        if offset is None or not same or offset % dtype.itemsize:
            array: NDArray[Any] = dataset[:].astype(dtype.newbyteorder("="), copy=False)
            return array
    # Copy-on-write: torch shares memory with writable arrays only, and the file stays as it is.
    return np.memmap(path, dtype, "c", offset, shape)
