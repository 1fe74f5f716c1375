"""What importers of other programs' features share."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache.provenance import fingerprint, sha256_of_files
from clipmsa.cache.spec import ID_SEPARATOR, StreamSpec, Utterance
from clipmsa.cache.store import LABEL_LIMIT


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
    told: list[str] = field(default_factory=list)  # what else was done, in words

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
        return self.told + replaced + missing


def clip_of(id_: str) -> tuple[str, str]:
    """The video and the clip of an utterance's id: `<video>$_$<clip>`, or `<video>[<row>]`, as
    CMU's SDK has it; any other is a video of one clip.

    >>> clip_of("a_b$_$3"), clip_of("a_b[3]"), clip_of("a_b")
    (('a_b', '3'), ('a_b', '3'), ('a_b', '0'))
    """
    video, separator, clip = id_.rpartition(ID_SEPARATOR)
    if separator:
        return video, clip
    row = re.fullmatch(r"(.+)\[(\d{1,9})\]", id_, re.DOTALL)
    return (row[1], row[2]) if row else (id_, "0")


def table_notes(utterances: Sequence[Utterance]) -> list[str]:
    """What to know of an imported table: labels beyond the scale, videos in several splits."""
    beyond = [u for u in utterances if abs(u.label) > LABEL_LIMIT]
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        homes[utterance.video_id].add(utterance.split)
    shared = [video for video, splits in homes.items() if len(splits) > 1]
    return [
        *(
            [
                f"{len(beyond)} labels are outside [{-LABEL_LIMIT:g}, {LABEL_LIMIT:g}], "
                f"such as {beyond[0].label:g} of '{beyond[0].id}'"
            ]
            if beyond
            else []
        ),
        *(
            [f"{len(shared)} videos have clips in several splits, such as '{shared[0]}'"]
            if shared
            else []
        ),
    ]


def provenance_of(kind: str, file: Path, **more: str) -> dict[str, str]:
    """The configuration of an imported stream: from what file of what kind."""
    name = file.name.encode("utf-8", "backslashreplace").decode()  # which may be any bytes
    return {"imported": kind, "file": name, "sha256": sha256_of_files([file]), **more}


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
