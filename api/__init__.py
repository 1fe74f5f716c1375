"""CLIP-MSA: multimodal sentiment analysis of video clips (Huang et al.).

    import clipmsa

    store = clipmsa.extract_features("clips.csv", "clips.h5")
    run = clipmsa.train(store, "runs/clips")
    scorer = clipmsa.load(run)
    scorer.score("talk.mp4", text="The ending though!")

Four parts, in the order in which a clip becomes a score:

- ``clipmsa.extract``  clips on disk -> frozen encoders -> features
- ``clipmsa.cache``    the HDF5 feature store, all that passes between the two stages
- ``clipmsa.fusion``   features -> co-attention fusion -> score, trained and evaluated
- ``clipmsa.cli``      the ``clipmsa`` command over the three

The names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from clipmsa import environment as environment  # for its effect, before torch is loaded

if TYPE_CHECKING:
    from clipmsa.cache import FeatureStore
    from clipmsa.cache.errors import ClipmsaError
    from clipmsa.extract.transcripts.cut import Script
    from clipmsa.judging import evaluate, load, write_report
    from clipmsa.results import Run
    from clipmsa.scoring import Scorer
    from clipmsa.workflows import ablate, extract_features, read_dataset, train

__version__ = version("clipmsa")

__all__ = [
    "ClipmsaError",
    "FeatureStore",
    "Run",
    "Scorer",
    "Script",
    "ablate",
    "evaluate",
    "extract_features",
    "load",
    "read_dataset",
    "train",
    "write_report",
]

_HOME = {
    "ClipmsaError": "cache.errors",
    "FeatureStore": "cache",
    "Run": "results",
    "Scorer": "scoring",
    "Script": "extract.transcripts.cut",
    "ablate": "workflows",
    "evaluate": "judging",
    "extract_features": "workflows",
    "load": "judging",
    "read_dataset": "workflows",
    "train": "workflows",
    "write_report": "judging",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
