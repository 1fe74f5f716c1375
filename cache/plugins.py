"""Classes by name: what ships with clipmsa, what is installed beside it, what the user points at.

A name is looked up in three places, in this order:

1. what ships with clipmsa, as `transformers-text` or `mult`;
2. entry points of installed packages, groups `clipmsa.encoders`, `clipmsa.networks` and
   `clipmsa.datasets`;
3. an import path `package.module:Class`, in the current folder first, then on Python's path.

Importing a module runs it. So an import path is followed only where the user wrote it: in a profile
or a TOML file, an option, an argument. A checkpoint or a store, which anybody may have written,
finds shipped names and entry points alone, unless the user trusts the module that it names.
"""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Self

from .errors import PluginError

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_trusted: set[str] = set()


def trust(modules: Iterable[str]) -> None:
    """Let files name classes of these modules, and of modules within them, in this process."""
    _trusted.update(module.partition(":")[0] for module in modules)


def trusted() -> tuple[str, ...]:
    """What is trusted, for a process that works for this one."""
    return tuple(sorted(_trusted))


@dataclass(frozen=True)
class Places:
    """What is trusted and where modules are looked for, for a process elsewhere that works for us.

    A process that `multiprocessing` starts looks where we do, and needs to be told the first alone.
    """

    modules: tuple[str, ...]
    folders: tuple[str, ...]

    @classmethod
    def here(cls) -> Self:
        """Those of this process."""
        return cls(trusted(), (str(Path.cwd()), *sys.path))

    def use(self) -> None:
        """Trust and look there in this process, too."""
        trust(self.modules)
        sys.path.extend(folder for folder in self.folders if folder not in sys.path)


def is_import_path(name: str) -> bool:
    """Whether a name has the form `package.module:Class`."""
    return _IMPORT_PATH.fullmatch(name) is not None


@dataclass(frozen=True)
class Registry:
    """Everything of one kind that can be named."""

    kind: str  # encoder, network or dataset: of the entry points' group and in errors
    shipped: Mapping[str, str]  # name -> module:attribute

    def names(self) -> list[str]:
        """Names that need no import path: shipped, then installed."""
        return [*self.shipped, *(name for name in self._installed() if name not in self.shipped)]

    def find(self, name: str, *, written: bool = False) -> Any:
        """The class, or whatever else, that has a name.

        `written` says that the user wrote the name, and not a file that may be another's. What is
        imported from then on is trusted in this process.

        Raises:
            PluginError: there is none, it cannot be imported, or it may not be.
        """
        if name in self.shipped:
            return _imported(self.kind, name, self.shipped[name])
        installed = self._installed()
        if name in installed:
            try:
                return installed[name].load()
            except Exception as error:
                raise _failed(self.kind, name, installed[name].value, error) from error
        if not is_import_path(name):
            raise PluginError(
                f"no {self.kind} '{name}'; there are {', '.join(self.names())}, or give one of "
                f"your own as package.module:Class"
            )
        module = name.partition(":")[0]
        if written:
            trust([module])
        elif not any(f"{module}.".startswith(f"{known}.") for known in _trusted):
            raise PluginError(
                f"the {self.kind} '{name}' is code from outside clipmsa, which a file names; if "
                f"you know what '{module}' does, trust it: `trust={module!r}`"
            )
        folder = str(Path.cwd())
        if sys.path[:1] != [folder]:  # it stays: what is imported may import more of it later
            sys.path.insert(0, folder)
        return _imported(self.kind, name, name)

    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=f"clipmsa.{self.kind}s")}


def _imported(kind: str, name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise _failed(kind, name, module, error) from error
    try:
        return getattr(found, attribute)
    except AttributeError:
        raise PluginError(f"{kind} '{name}': {found.__file__} has no '{attribute}'") from None


def _failed(kind: str, name: str, module: str, error: Exception) -> PluginError:
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return PluginError(
        f"{kind} '{name}': importing {module} failed with {said}; it is looked for in the current "
        f"folder and on Python's path (PYTHONPATH, or install its package)"
    )


def told(error: Exception) -> str:
    """What code from outside raised, and where, in a line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
