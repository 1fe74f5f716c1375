"""What a store speaks of: utterances, streams, and the words for their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import StoreError

if TYPE_CHECKING:
    pass  # only `utterances` and `failures` need it; training must start fast


ID_SEPARATOR = "$_$"
SPLITS = ("train", "valid", "test")
DRAWN = "drawn"  # how the source of splits begins where no one but us made them
MODALITIES = ("text", "audio", "vision")
BRANCHES = ("own", "clip")
LEVELS = ("utterance", "sequence")


def is_drawn(splits_from: str) -> bool:
    """Whether splits are a draw of clipmsa's, by their source in words: figures on them compare
    with no published ones.
    """
    return splits_from.startswith(DRAWN)


@dataclass(frozen=True)
class Utterance:
    """One row of `/utterances`. `label` is NaN where unknown; `duration` is in seconds.

    `start` and `end` are seconds in the file that the clip is a part of; those of a whole file are
    0 and infinity.
    """

    video_id: str
    clip_id: str
    split: str
    label: float
    text: str
    duration: float = float("nan")
    start: float = 0.0
    end: float = float("inf")

    @property
    def id(self) -> str:
        return f"{self.video_id}{ID_SEPARATOR}{self.clip_id}"


class Failure(NamedTuple):
    """A clip left out: at which stage (media, or a stream's name) and why."""

    id: str
    stage: str
    error: str


@dataclass(frozen=True)
class StreamSpec:
    """What a stream is and what made it: the attributes of `/streams/<name>`, and its width."""

    name: str
    modality: str  # text | audio | vision
    branch: str  # own: the modality's own encoder | clip: the one that shares CLIP's space
    level: str  # utterance: one row each | sequence: any number of rows
    dim: int
    encoder: str = ""
    weights: str = ""
    weights_sha256: str = ""
    fingerprint: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    states_of: str = ""  # the stream whose vectors are made from these rows, if there is one

    def __post_init__(self) -> None:
        for key, allowed in (("modality", MODALITIES), ("branch", BRANCHES), ("level", LEVELS)):
            value = getattr(self, key)
            if value not in allowed:
                raise StoreError(
                    f"stream '{self.name}': {key} is '{value}', must be one of {', '.join(allowed)}"
                )

    @property
    def untrained(self) -> bool:
        """True where the encoder's weights were drawn at random, so the features mean little."""
        return self.weights.startswith("random")
