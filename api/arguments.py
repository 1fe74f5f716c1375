"""What the public functions take in several forms: paths, names, stores, runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from clipmsa.cache import FeatureStore

from .results import Run

Named = str | os.PathLike[str]
Words = str | Iterable[str]  # names, or one text with commas between them

log = logging.getLogger("clipmsa")


def opened(features: Named | FeatureStore) -> FeatureStore:
    """A store, which is told of in a line."""
    store = features if isinstance(features, FeatureStore) else FeatureStore(Path(features))
    log.info("%s: %d utterances (%s)", store.path, len(store), store.counts_by_split)
    return store


def path_of(name: Named | None) -> Path | None:
    return None if name is None else Path(name)


def folder_of(run: Named | Run) -> Path:
    return run.path if isinstance(run, Run) else Path(run)


def words(names: Words) -> tuple[str, ...]:
    """Names apart.

    >>> words("text, audio"), words(["text"]), words("")
    (('text', 'audio'), ('text',), ())
    """
    parts = names.split(",") if isinstance(names, str) else names
    return tuple(word.strip() for word in parts if word.strip())
