"""The one way in which HDF5 files are read: stores, parts of stores, computational sequences.

HDF5 follows what a file says: a link to another file, data that lie in /etc/passwd, a device that
never ends, 8 TB of values that were never written. A file of someone else's must not choose what is
opened, nor how much memory it takes; so everything is looked at before it is opened or read.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from .errors import ClipmsaError
from .texts import HDF5, kind_of

_HOPS = 16  # soft links on the way to one object; HDF5 itself stops there
_PACKED = (
    100  # times that compression may make data smaller; features shrink by 13 %, zeros by 1000
)
_SMALL = 16 << 20  # bytes that are never too many


class Hdf5File:
    """An HDF5 file opened for reading; used in a `with` statement.

    What is asked for lies in this file, is as large as it says, and is of a type that has a meaning
    here; everything else is an error of the class `fault`, which names the file and the key.

    Raises:
        fault: no regular file, or none whose root HDF5 can open.
    """

    def __init__(self, path: Path, fault: type[ClipmsaError]) -> None:
        self.path = path
        self._fault = fault
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever, a device never end
                raise fault(f"{path}: not a regular file")
            # What is published never changes, and locks fail on many network file systems.
            self._file = h5py.File(path, "r", locking=False)
        except FileNotFoundError:
            raise fault(f"{path}: no such file") from None
        except (OSError, RuntimeError, ValueError) as error:
            kind = kind_of(path)
            reason = error if kind in (None, HDF5) else f"it is {kind}"
            raise fault(f"{path}: not a readable HDF5 file ({reason})") from None
        self._size = status.st_size
        self._groups: dict[str, h5py.Group] = {}  # by key, found before
        with self.reading(""):
            self._groups[""] = self._file["/"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def error(self, message: str) -> ClipmsaError:
        """The error that says this of the file."""
        return self._fault(f"{self.path}: {message}")

    @contextmanager
    def reading(self, key: str) -> Iterator[None]:
        """Name the file and the key in what goes wrong in HDF5, as it does in damaged files."""
        try:
            yield
        except UnicodeDecodeError as error:
            raise self.error(f"/{key} is not UTF-8 ({error})") from None
        except MemoryError:
            raise self.error(f"/{key} does not fit in memory") from None
        except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
            raise self.error(f"/{key} cannot be read ({error})") from error

    # -- finding --------------------------------------------------------------------------------

    def has(self, key: str) -> bool:
        """Whether there is a link of this name; what it leads to is another matter."""
        parent, _, name = key.rpartition("/")
        group = self.group(parent)  # which must live while its links are asked
        with self.reading(key):
            return bool(group.id.links.exists(name.encode()))

    def names(self, key: str) -> list[str]:
        """The names in a group, those of links that lead nowhere too."""
        group = self.group(key)
        with self.reading(key):
            names = [str(name) for name in group]
            for name in names:
                name.encode()  # h5py lets any byte pass
        return names

    def group(self, key: str) -> h5py.Group:
        found = self._find(key)
        if not isinstance(found, h5py.Group):
            raise self.error(f"/{key} is not a group")
        return found

    def dataset(self, key: str, rank: int | None = 1) -> Any:
        """A dataset of so many axes (of any number, for None), all of whose values are there."""
        found = self._find(key)
        if not isinstance(found, h5py.Dataset):
            raise self.error(f"/{key} is not a dataset")
        with self.reading(key):
            elsewhere = found.is_virtual or found.external
            shape, _ = found.shape, found.dtype
        if elsewhere:
            # HDF5 reads the parts of a virtual dataset that it cannot find as zeros.
            raise self.error(f"/{key} is kept in other files, must be in this one")
        if shape is None or (rank is not None and len(shape) != rank):
            raise self.error(f"/{key} has shape {shape}, must have {rank or 1} axes")
        with self.reading(key):
            fault = self._size_fault(found)
        if fault:
            raise self.error(f"/{key} {fault}")
        return found

    def _find(self, key: str) -> Any:
        """What a path leads to, one link after another: opening it would follow all of them."""
        parent, _, name = key.rpartition("/")
        known_parent = self._groups.get(parent)
        here: Any = known_parent or self._groups[""]
        path = name if known_parent else key
        steps = [part for part in reversed(path.split("/")) if part]
        hops = 0
        while steps:
            step = steps.pop().encode()
            with self.reading(key):
                known = isinstance(here, h5py.Group) and here.id.links.exists(step)
                kind = here.id.links.get_info(step).type if known else None
                target = here.id.links.get_val(step) if kind == h5py.h5l.TYPE_SOFT else b""
            if kind is None and hops:
                raise self.error(f"/{key} cannot be read (it is a link that leads nowhere)")
            if kind is None:
                raise self.error(f"/{key} is missing")
            if kind == h5py.h5l.TYPE_SOFT:
                hops += 1
                if hops > _HOPS:
                    raise self.error(f"/{key} cannot be read (its links lead in a circle)")
                with self.reading(key):
                    parts = target.decode().split("/")
                steps.extend(part for part in reversed(parts) if part not in ("", "."))
                here = here if parts[0] else self._groups[""]
            elif kind == h5py.h5l.TYPE_HARD:
                with self.reading(key):
                    here = here[step]
            else:
                raise self.error(f"/{key} links to another file, must be in this one")
        if isinstance(here, h5py.Group):
            self._groups[key] = here
        return here

    def _size_fault(self, dataset: Any) -> str | None:
        """What is wrong where a dataset says that it is larger than what there is of it."""
        stored = dataset.id.get_storage_size()
        declared = math.prod(dataset.shape) * dataset.id.get_type().get_size()
        if declared == 0:
            return None
        if dataset.chunks is None:
            offset = dataset.id.get_offset()
            end = stored if offset is None else offset + stored
            if stored < declared or end > self._size:
                return f"declares {declared} bytes, of which the file holds {stored}"
            return None
        counts = [-(-n // size) for n, size in zip(dataset.shape, dataset.chunks, strict=True)]
        wanted, there = math.prod(counts), dataset.id.get_num_chunks()
        if there < wanted or stored > self._size:
            # HDF5 reads chunks that were never written as zeros.
            return f"declares {wanted} chunks, of which the file holds {there} in {stored} bytes"
        unpacked = wanted * math.prod(dataset.chunks) * dataset.id.get_type().get_size()
        if unpacked > _PACKED * stored + _SMALL:
            return f"declares {unpacked} bytes, packed in {stored}: more than can be meant"
        return None

    # -- reading --------------------------------------------------------------------------------

    def strings(self, key: str, rank: int | None = 1) -> list[str]:
        """A column of UTF-8 texts, also where the file calls them ASCII, as NumPy's bytes are.

        Where `rank` is None, it may be a single text too.
        """
        dataset = self.dataset(key, rank)
        kind = h5py.check_string_dtype(dataset.dtype)
        if kind is None:
            raise self.error(f"/{key} is {dataset.dtype}, must be UTF-8 strings")
        if not dataset.ndim:
            with self.reading(key):
                return [str(dataset.asstr("utf-8")[()])]
        if kind.length is not None:
            with self.reading(key):
                return [str(text) for text in dataset.asstr("utf-8")[:]]
        # Nothing says how long these are, and many rows may share one long text.
        texts: list[str] = []
        step = min(8192, max(64, (1 << 31) // self._size))
        size, limit = 0, _PACKED * self._size + _SMALL
        for start in range(0, len(dataset), step):
            with self.reading(key):
                block = [str(text) for text in dataset.asstr("utf-8")[start : start + step]]
            size += sum(map(len, block))
            if size > limit:
                raise self.error(f"/{key} holds more text than can be meant")
            texts.extend(block)
        return texts

    def attribute(self, key: str, name: str) -> str | None:
        """An attribute as text, or None: by who wrote it, a number, or any of HDF5's strings."""
        item = self._find(key)
        place = f"{key} attribute '{name}'"
        with self.reading(place):
            if name not in item.attrs:  # damage anywhere among the attributes shows here
                return None
            stored = item.attrs.get_id(name)
            kind = stored.get_type().get_class()
            size = stored.get_space().get_simple_extent_npoints() * stored.get_type().get_size()
        if size > self._size or kind not in (h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT):
            raise self.error(f"/{place} is not a text or a number")
        with self.reading(place):
            value = item.attrs[name]
            if isinstance(value, h5py.Empty):
                return ""
            if isinstance(value, np.ndarray) and value.size == 1:
                value = value.item()
            if isinstance(value, bytes):
                return value.decode()
            return str(value).encode(errors="surrogateescape").decode()  # h5py lets any byte pass
