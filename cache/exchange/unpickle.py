"""Pickles of arrays and plain containers, and of nothing else: no code in them is run.

Two things are done for that. The instructions of the pickle are read before any is carried out, so
that no size in them is larger than the file. And of all that a pickle may name, what NumPy needs is
met by stand-ins, which keep what they are told: arrays are built from it here, of plain types.
NumPy itself believes a file that says where its numbers lie, and reads memory that is not its own.
"""

from __future__ import annotations

import collections
import math
import pickle
import pickletools
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache.errors import ExchangeError

_DEPTH = 32  # of containers within one another
_SHARED = 16  # times the file's size that its content may be, where parts are used again
_SMALL = 1 << 20  # and what is never too large

_PLAIN_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][0-9]{1,9}")


class _RefusedError(Exception):
    """A pickle names something that is neither an array nor a plain container."""


class _DamagedError(Exception):
    """A pickle that says what cannot be."""


def load_plain(path: Path) -> Any:
    """Read a pickle of numbers, texts, lists, dicts and NumPy arrays.

    Arrays may be of numbers, texts and bytes, and of objects that are all of these.

    Raises:
        ExchangeError: it cannot be read, names anything else, or is larger than its file; says
            what.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ExchangeError(f"{path}: not a regular file")
        with path.open("rb") as file:
            _check_instructions(_Within(file, status.st_size))
            file.seek(0)
            content = _Unpickler(file, encoding="latin1").load()  # latin1: arrays of Python 2
        return _Builder(_SHARED * status.st_size + _SMALL).build(content)
    except _RefusedError as error:
        raise ExchangeError(
            f"{path}: names {error}, and a pickle that names more than NumPy arrays can run any "
            f"code: it is not loaded; save it again with arrays, lists and dicts alone"
        ) from None
    except FileNotFoundError:
        raise ExchangeError(f"{path}: no such file") from None
    except ExchangeError:
        raise
    except Exception as error:  # of any kind, where bytes are not what they should be
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ExchangeError(f"{path}: not a readable pickle ({reason})") from None


# -- the instructions -------------------------------------------------------------------------


class _Within:
    """A file for `pickletools`, which reads no further than it goes."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self.left = size

    def tell(self) -> int:
        return self._size - self.left

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise _DamagedError(f"says that {count} bytes follow, where {self.left} do")
        self.left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline()
        self.left -= len(line)
        return line


def _check_instructions(file: _Within) -> None:
    """Raise where a number in the pickle asks for more memory than the file is large.

    Values are memoised one after another: a place far beyond them makes the table of all that long.
    """
    memoised = 0
    for instruction, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
        name, number = instruction.name, argument or 0
        if name == "FRAME" and number > file.left:
            raise _DamagedError(f"says that {number} bytes follow, where {file.left} do")
        if name == "MEMOIZE":
            memoised += 1
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if number > memoised + _DEPTH:
                raise _DamagedError(f"numbers its {memoised}th value {number}")
            memoised = max(memoised, number + 1)


# -- what NumPy needs -------------------------------------------------------------------------


class _Dtype:
    """What a pickle says of an array's type: that of plain numbers, of texts, or of objects."""

    def __init__(self, name: Any, align: Any = False, copy: Any = True) -> None:
        self._order = "="
        self._name = "O" if name in ("O", "O8") else name
        if self._name != "O" and not (isinstance(name, str) and _PLAIN_DTYPE.fullmatch(name)):
            raise _RefusedError(f"an array of type {str(name)[:40]!r}")

    def __setstate__(self, state: Any) -> None:
        _, order, within, names, fields, *_ = state
        if within is not None or names is not None or fields is not None or order not in "<>=|":
            raise _RefusedError("an array of types within types")
        self._order = order

    @property
    def objects(self) -> bool:
        return self._name == "O"

    def built(self) -> np.dtype[Any]:
        return np.dtype(f"{self._order}{self._name}")


class _Array:
    """What a pickle says of an array: its shape, its type, its bytes or, for objects, a list."""

    def __init__(self, state: tuple[Any, ...] = ()) -> None:
        self._state = state

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self._state = (shape, dtype, "F" if fortran else "C", content)

    def built(self, build: Callable[[Any], Any], limit: int) -> NDArray[Any]:
        """The array; `build` makes the objects that an array of them holds."""
        if not self._state:
            raise _DamagedError("an array without a shape")
        shape, dtype, order, content, *axes = self._state
        if not all(type(size) is int and size >= 0 for size in shape):
            raise _DamagedError(f"an array of shape {shape}")
        if math.prod(max(1, size) for size in shape) > limit or len(shape) > _DEPTH:
            raise _DamagedError(f"an array of shape {shape}, larger than the file")
        if dtype.objects:
            if not isinstance(content, list) or len(content) != math.prod(shape):
                raise _DamagedError(f"an array of shape {shape} without its objects")
            objects = np.empty(len(content), object)
            for place, value in enumerate(content):
                objects[place] = build(value)
            return objects.reshape(shape, order=order)
        if isinstance(content, str):  # of Python 2, where texts were bytes
            content = content.encode("latin1")
        found = dtype.built()
        if math.prod(shape) * found.itemsize != len(content):
            raise _DamagedError(f"an array of shape {shape} in {len(content)} bytes")
        if not len(content) or not found.itemsize:  # of which NumPy makes nothing
            return np.zeros(shape, found)
        array = np.frombuffer(content, found)
        if axes and axes[0] is not None:
            return array.reshape(shape).transpose(axes[0])
        return array.reshape(shape, order="C" if order == "K" else order)


class _Named:
    """What a pickle may name and call, and not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("a change of what it names")


def _scalar(dtype: _Dtype, content: Any = None) -> _Array:
    return _Array(((), dtype, "C", [content] if dtype.objects else content))


def _from_buffer(buffer: Any, dtype: _Dtype, shape: Any, order: Any, axes: Any = None) -> _Array:
    return _Array((shape, dtype, order, bytes(buffer), axes))


def _encoded(text: str, encoding: str = "") -> bytes:
    """Bytes, as pickles of protocol 2 and below hold them."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the encoding {str(encoding)[:40]!r}")
    return text.encode("latin1")


def _made_of_nothing(*arguments: Any) -> Any:
    """NumPy names its class, and calls it nowhere: what that would give is whatever lay there."""
    raise _RefusedError("an array made of no bytes")


def _no_bytes() -> bytes:
    """As those same pickles hold no bytes."""
    return b""


_NUMPY: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": lambda kind, shape, dtype: _Array(),
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _from_buffer,
}
_ALLOWED = {
    "numpy.ndarray": _Named(_made_of_nothing),
    "numpy.dtype": _Named(_Dtype),
    "_codecs.encode": _Named(_encoded),
    "builtins.bytes": _Named(_no_bytes),
    "collections.OrderedDict": _Named(lambda pairs=(): collections.OrderedDict(pairs)),
    # NumPy 2 moved what it keeps to itself.
    **{
        f"numpy.{core}.{name}": _Named(call)
        for core in ("core", "_core")
        for name, call in _NUMPY.items()
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # as Python 2 called it
        named = _ALLOWED.get(f"{module}.{name}")
        if named is None:
            raise _RefusedError(f"{module}.{name}")
        return named


class _Builder:
    """Puts arrays in the place of what was said of them, and weighs what comes out.

    Weights count what is used twice twice, since whoever reads on will: a few lists that hold each
    other can stand for more values than fit anywhere.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._done: dict[int, tuple[Any, Any, int]] = {}  # what was given, what was built, weight

    def build(self, value: Any) -> Any:
        return self._build(value, 0)[0]

    def _build(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, (str, bytes, bytearray)):
            return value, len(value) + 1
        if value is None or isinstance(value, (bool, int, float, complex)):
            return value, 1
        if id(value) in self._done:
            return self._done[id(value)][1:]
        if depth > _DEPTH:
            raise _DamagedError(f"containers within containers, more than {_DEPTH}")
        weight = 1

        def inner(value: Any) -> Any:
            nonlocal weight
            built, more = self._build(value, depth + 1)
            weight += more
            if weight > self._limit:
                raise _DamagedError("more values than the file can hold")
            return built

        built: Any
        if isinstance(value, dict):
            built = type(value)((key, inner(item)) for key, item in value.items())
            weight += sum(self._build(key, depth + 1)[1] for key in value)
        elif isinstance(value, (list, tuple)):
            built = type(value)([inner(item) for item in value])
        elif isinstance(value, _Array):
            built = value.built(inner, self._limit)
            weight += built.nbytes
            built = built[()] if built.ndim == 0 else built
        else:
            raise _RefusedError(f"a {type(value).__name__}")
        self._done[id(value)] = (value, built, weight)
        return built, weight
