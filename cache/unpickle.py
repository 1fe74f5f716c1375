"""Pickles of arrays and plain containers, and of nothing else: no code in them is run."""

from __future__ import annotations

import collections
import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

from .errors import ExchangeError

# What the pickles of NumPy arrays name, in NumPy 1 and 2. None of these runs what a file says.
_NUMPY = {
    "multiarray": {"_reconstruct", "scalar"},
    "numeric": {"_frombuffer"},
}
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # bytes, in pickles of protocol 2 and below
    ("collections", "OrderedDict"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, names in _NUMPY.items()
        for name in names
    ),
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _RefusedError(f"{module}.{name}")
        if module == "collections":
            return collections.OrderedDict
        # NumPy 2 moved what it keeps to itself, and warns of the old places.
        found = import_module(module.replace("numpy.core.", "numpy._core."))
        return getattr(found, name)


class _RefusedError(Exception):
    """A pickle names something that is neither an array nor a plain container."""


def load_plain(path: Path) -> Any:
    """Read a pickle of numbers, texts, lists, dicts and NumPy arrays.

    Raises:
        ExchangeError: it cannot be read, or names anything else; says what.
    """
    try:
        with path.open("rb") as file:
            return _Plain(file, encoding="latin1").load()  # latin1: arrays of Python 2
    except _RefusedError as error:
        raise ExchangeError(
            f"{path}: names {error}, and a pickle that names more than NumPy arrays can run any "
            f"code: it is not loaded; save it again with arrays, lists and dicts alone"
        ) from None
    except FileNotFoundError:
        raise ExchangeError(f"{path}: no such file") from None
    except Exception as error:  # of any kind, where bytes are not what they should be
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ExchangeError(f"{path}: not a readable pickle ({reason})") from None
