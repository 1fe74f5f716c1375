"""The feature store: all that passes between ``extract`` and ``fusion`` (contract: FORMAT.md)."""

from .frames import pooled
from .spec import StreamSpec, Utterance
from .store import FeatureStore, Stream
from .writer import StreamColumn, write_store

__all__ = [
    "FeatureStore",
    "Stream",
    "StreamColumn",
    "StreamSpec",
    "Utterance",
    "pooled",
    "write_store",
]
