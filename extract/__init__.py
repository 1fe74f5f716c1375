"""From clips on disk to features: frozen pretrained encoders over text, sound and picture.

The names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipmsa.extract.datasets.read import read_dataset
    from clipmsa.extract.encoders.esresnext import ESResNeXt
    from clipmsa.extract.engine.pipeline import extract

__all__ = ["ESResNeXt", "extract", "read_dataset"]

_HOME = {
    "ESResNeXt": "encoders.esresnext",
    "extract": "engine.pipeline",
    "read_dataset": "datasets.read",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
