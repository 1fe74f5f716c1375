"""What people have on disk, read as one table of clips: CSV, MMSA's layout, CMU's own folders.

The names below are what a layout of one's own is made of (docs/extending.md); they are loaded when
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipmsa.cache import Utterance
    from clipmsa.extract.datasets.clips import Clip, Manifest, Published
    from clipmsa.extract.datasets.layout import Layout
    from clipmsa.extract.datasets.read import read_dataset

__all__ = ["Clip", "Layout", "Manifest", "Published", "Utterance", "read_dataset"]

_HOME = {
    "Layout": "clipmsa.extract.datasets.layout",
    "Utterance": "clipmsa.cache",
    "read_dataset": "clipmsa.extract.datasets.read",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, f"{__name__}.clips")), name)
