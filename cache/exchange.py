"""What importers of other programs' features share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .provenance import fingerprint
from .store import StreamSpec


class Imported(NamedTuple):
    """How many utterances a store got, and what had to be done to the features, in words."""

    utterances: int
    notes: list[str]


def finite(rows: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
    """(T, D) float32 with 0 where a value was not finite, as MMSA has it, and how many were."""
    with np.errstate(over="ignore"):
        clean: NDArray[np.float32] = rows.astype(np.float32)
    bad = ~np.isfinite(clean)
    clean[bad] = 0
    return clean, int(bad.sum())


@dataclass
class Tally:
    """What was changed on the way, by stream."""

    replaced: Counter[str] = field(default_factory=Counter)  # values
    missing: Counter[str] = field(default_factory=Counter)  # utterances

    def notes(self) -> list[str]:
        replaced = [
            f"{name}: {count} values that were not finite are 0 now, as MMSA reads them"
            for name, count in self.replaced.items()
            if count
        ]
        missing = [
            f"{name}: {count} utterances have nothing but zeros and now no rows: it is missing"
            for name, count in self.missing.items()
            if count
        ]
        return replaced + missing


def imported_spec(modality: str, dim: int, encoder: str, config: Mapping[str, Any]) -> StreamSpec:
    """A sequence of the modality's own branch, named after it; `config` says where it is from."""
    return StreamSpec(
        name=modality,
        modality=modality,
        branch="own",
        level="sequence",
        dim=dim,
        encoder=encoder,
        weights="imported",
        fingerprint=fingerprint(config),
        config=config,
    )
