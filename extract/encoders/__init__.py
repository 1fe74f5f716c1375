"""Frozen pretrained encoders, one file a family: what they consume, and the rows they give.

The names below are what an encoder of one's own is made of (docs/extending.md); they are loaded
when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipmsa.extract.encoders.encoder import Encoder, Setup, StatesEncoder, in_batches, seeded
    from clipmsa.extract.encoders.transformers_models import load_pretrained
    from clipmsa.extract.weights.tensors import load_strictly, read_state

__all__ = [
    "Encoder",
    "Setup",
    "StatesEncoder",
    "in_batches",
    "load_pretrained",
    "load_strictly",
    "read_state",
    "seeded",
]

_HOME = {
    "load_pretrained": "clipmsa.extract.encoders.transformers_models",
    "load_strictly": "clipmsa.extract.weights.tensors",
    "read_state": "clipmsa.extract.weights.tensors",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, f"{__name__}.encoder")), name)
