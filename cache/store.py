"""Read a feature store (format version 1, FORMAT.md), whoever wrote it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sized
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import StoreError

if TYPE_CHECKING:
    import pandas as pd  # only `utterances` and `failures` need it; training must start fast

FORMAT = "clipmsa-features"
VERSION = 1
ID_SEPARATOR = "$_$"
SPLITS = ("train", "valid", "test")
MODALITIES = ("text", "audio", "vision")
BRANCHES = ("own", "clip")
LEVELS = ("utterance", "sequence")


@dataclass(frozen=True)
class Utterance:
    """One row of `/utterances`. `label` is NaN where unknown; `duration` is in seconds."""

    video_id: str
    clip_id: str
    split: str
    label: float
    text: str
    duration: float = float("nan")

    @property
    def id(self) -> str:
        return f"{self.video_id}{ID_SEPARATOR}{self.clip_id}"


class Failure(NamedTuple):
    """A clip left out: at which stage (media, or a stream's name) and why."""

    id: str
    stage: str
    error: str


@dataclass(frozen=True)
class StreamSpec:
    """What a stream is and what made it: the attributes of `/streams/<name>`, and its width."""

    name: str
    modality: str  # text | audio | vision
    branch: str  # own: the modality's own encoder | clip: the one that shares CLIP's space
    level: str  # utterance: one row each | sequence: any number of rows
    dim: int
    encoder: str = ""
    weights: str = ""
    weights_sha256: str = ""
    fingerprint: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for key, allowed in (("modality", MODALITIES), ("branch", BRANCHES), ("level", LEVELS)):
            value = getattr(self, key)
            if value not in allowed:
                raise StoreError(
                    f"stream '{self.name}': {key} is '{value}', must be one of {', '.join(allowed)}"
                )

    @property
    def untrained(self) -> bool:
        """True where the encoder's weights were drawn at random, so the features mean little."""
        return self.weights.startswith("random")


@dataclass(frozen=True)
class Stream:
    """A stream's rows: utterance i owns `values[offsets[i]:offsets[i + 1]]`.

    `values` is (N, D), float16 or float32, memory-mapped where the file's layout allows;
    `offsets` is (n + 1,) int64.
    """

    spec: StreamSpec
    values: NDArray[Any]
    offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Rows of each utterance, (n,); 0 where the modality is missing."""
        return np.diff(self.offsets)

    def __getitem__(self, utterance: int) -> NDArray[Any]:
        """The rows of one utterance, (T, D)."""
        return self.values[self.offsets[utterance] : self.offsets[utterance + 1]]


class FeatureStore:
    """A feature store opened for reading.

    Opening reads the table and the offsets, checks them, and closes the file; features are
    memory-mapped, so a store larger than memory costs nothing until its rows are used.

    Raises:
        StoreError: not a feature store, another version, or a broken rule of the format; the
            message names the file and the key.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(
                f"{self.path}: no such feature store; `clipmsa extract --dataset NAME "
                f"--out {self.path}` writes one"
            )
        try:
            # Finished stores never change in place, and locks fail on many network file systems.
            file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise StoreError(f"{self.path}: not a readable HDF5 file ({error})") from None
        with file:
            self._read_head(file)
            self._read_table(file)
            self.streams = {
                name: self._read_stream(name, group) for name, group in file["streams"].items()
            }
            self.failed = self._read_failures(file)

    def __len__(self) -> int:
        return len(self.ids)

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
        )

    def rows_of_split(self, split: str) -> NDArray[np.int64]:
        """Row numbers of one split, in the store's order."""
        return np.array([row for row, name in enumerate(self.splits) if name == split], np.int64)

    @property
    def untrained_streams(self) -> list[str]:
        """Streams whose encoder had random weights; their figures say nothing about the method."""
        return [name for name, stream in self.streams.items() if stream.spec.untrained]

    # -- reading ------------------------------------------------------------------------------

    def _read_head(self, file: h5py.File) -> None:
        if _text(file.attrs.get("format", "")) != FORMAT:
            raise StoreError(
                f"{self.path}: attribute 'format' is not '{FORMAT}'; "
                f"this HDF5 file is not a feature store"
            )
        version = int(file.attrs.get("version", 0))
        if version != VERSION:
            raise StoreError(
                f"{self.path}: format version {version}, this clipmsa reads version {VERSION}; "
                f"install the release that wrote it, or extract again"
            )
        for key in ("utterances", "streams"):
            if key not in file:
                raise StoreError(f"{self.path}: group '/{key}' is missing")
        self.dataset = _text(file.attrs.get("dataset", ""))
        self.profile = _text(file.attrs.get("profile", ""))
        self.created = _text(file.attrs.get("created", ""))
        self.clipmsa_version = _text(file.attrs.get("clipmsa_version", ""))

    def _read_table(self, file: h5py.File) -> None:
        self.ids = self._strings(file, "utterances/id")
        self.video_ids = self._strings(file, "utterances/video_id")
        self.clip_ids = self._strings(file, "utterances/clip_id")
        self.splits = self._strings(file, "utterances/split")
        self.texts = self._strings(file, "utterances/text")
        self.labels = self._floats(file, "utterances/label")
        self.durations = self._floats(file, "utterances/duration")
        columns: dict[str, Sized] = {
            "video_id": self.video_ids,
            "clip_id": self.clip_ids,
            "split": self.splits,
            "text": self.texts,
            "label": self.labels,
            "duration": self.durations,
        }
        for key, column in columns.items():
            if len(column) != len(self.ids):
                raise StoreError(
                    f"{self.path}: /utterances/{key} has {len(column)} rows, "
                    f"/utterances/id has {len(self.ids)}"
                )
        if len(set(self.ids)) != len(self.ids):
            twice = next(id_ for row, id_ in enumerate(self.ids) if id_ in self.ids[:row])
            raise StoreError(f"{self.path}: utterance id '{twice}' occurs twice in /utterances/id")
        for row, split in enumerate(self.splits):
            if split not in SPLITS:
                raise StoreError(
                    f"{self.path}: /utterances/split of '{self.ids[row]}' is '{split}', "
                    f"must be one of {', '.join(SPLITS)}"
                )

    def _read_stream(self, name: str, group: h5py.Group) -> Stream:
        where = f"{self.path}: /streams/{name}"
        for key in ("values", "offsets"):
            if key not in group:
                raise StoreError(f"{where}/{key} is missing")
        values = group["values"]
        if values.ndim != 2 or values.dtype.kind != "f" or values.dtype.itemsize not in (2, 4):
            raise StoreError(
                f"{where}/values is {values.dtype} of shape {values.shape}, "
                f"must be float16 or float32 of shape (N, D)"
            )
        offsets = group["offsets"][:].astype(np.int64)
        if len(offsets) != len(self.ids) + 1:
            raise StoreError(
                f"{where}/offsets has {len(offsets)} entries, must have one more than the "
                f"{len(self.ids)} utterances"
            )
        if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
            raise StoreError(
                f"{where}/offsets must rise from 0 to the {len(values)} rows of values"
            )
        missing = [key for key in ("modality", "branch", "level") if key not in group.attrs]
        if missing:
            raise StoreError(f"{where} has no attribute '{missing[0]}'")
        attributes = {key: _text(value) for key, value in group.attrs.items()}
        try:
            config = json.loads(attributes.get("config", "{}"))
        except json.JSONDecodeError as error:
            raise StoreError(f"{where}: attribute 'config' is not JSON ({error})") from None
        try:
            spec = StreamSpec(
                name=name,
                modality=attributes["modality"],
                branch=attributes["branch"],
                level=attributes["level"],
                dim=values.shape[1],
                encoder=attributes.get("encoder", ""),
                weights=attributes.get("weights", ""),
                weights_sha256=attributes.get("weights_sha256", ""),
                fingerprint=attributes.get("fingerprint", ""),
                config=config,
            )
        except StoreError as error:
            raise StoreError(f"{self.path}: {error}") from None
        if spec.level == "utterance" and (np.diff(offsets) > 1).any():
            row = int(np.argmax(np.diff(offsets) > 1))
            raise StoreError(
                f"{where}: level is 'utterance', yet '{self.ids[row]}' has "
                f"{offsets[row + 1] - offsets[row]} rows"
            )
        return Stream(spec, _map(self.path, values), offsets)

    def _read_failures(self, file: h5py.File) -> list[Failure]:
        if "failures" not in file:
            return []
        columns = [self._strings(file, f"failures/{key}") for key in Failure._fields]
        return [Failure(*row) for row in zip(*columns, strict=True)]

    def _strings(self, file: h5py.File, key: str) -> list[str]:
        dataset = self._dataset(file, key)
        if h5py.check_string_dtype(dataset.dtype) is None:
            raise StoreError(f"{self.path}: /{key} is {dataset.dtype}, must be UTF-8 strings")
        try:
            return [str(text) for text in dataset.asstr()[:]]
        except UnicodeDecodeError as error:
            raise StoreError(f"{self.path}: /{key} is not UTF-8 ({error})") from None

    def _floats(self, file: h5py.File, key: str) -> NDArray[np.float32]:
        dataset = self._dataset(file, key)
        if dataset.dtype.kind != "f":
            raise StoreError(f"{self.path}: /{key} is {dataset.dtype}, must be float32")
        numbers: NDArray[np.float32] = dataset[:].astype(np.float32)
        return numbers

    def _dataset(self, file: h5py.File, key: str) -> Any:
        if key not in file:
            raise StoreError(f"{self.path}: dataset '/{key}' is missing")
        return file[key]


def _map(path: Path, dataset: Any) -> NDArray[Any]:
    """Memory-map a contiguous little-endian dataset; read any other layout into memory."""
    offset = dataset.id.get_offset()
    plain = dataset.chunks is None and offset is not None and not dataset.external
    native = dataset.dtype.byteorder in "=<" and sys.byteorder == "little"
    if not (plain and native and offset % dataset.dtype.itemsize == 0):
        array: NDArray[Any] = dataset[:].astype(dataset.dtype.newbyteorder("="), copy=False)
        return array
    # Copy-on-write: torch shares memory with writable arrays only, and the file stays as it is.
    return np.memmap(path, dataset.dtype, "c", offset, dataset.shape)


def _text(value: object) -> str:
    """An attribute as text: h5py gives str, bytes or numpy scalars, by who wrote it."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return str(value)
