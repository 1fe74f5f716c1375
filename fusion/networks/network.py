"""What a network is: its settings, its layers, its losses, and how an epoch trains it.

One file in this folder, or of one's own, holds all of it; the trainer knows no network by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    get_type_hints,
)

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass, is_pydantic_dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec
from clipmsa.cache.checked import one_line
from clipmsa.cache.errors import ConfigError
from clipmsa.cache.spec import BRANCHES, MODALITIES

from .ragged import Ragged

if TYPE_CHECKING:
    from .coattention import CoAttentionMap

Normalise = Literal["standard", "none"]
ROLES = tuple(f"{modality}/{branch}" for modality in MODALITIES for branch in BRANCHES)
CHECKED = ConfigDict(extra="forbid", strict=True)  # strict: no text is a number, nor is true
Width = Annotated[int, Field(ge=1, le=16_384)]
Layers = Annotated[int, Field(ge=1, le=64)]
Heads = Annotated[int, Field(ge=1, le=1_024)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1_000)]  # of a term in a loss
Steps = Annotated[int, Field(ge=1, le=1_000_000)]


def _listed(value: Any) -> Any:
    """TOML has lists for tuples; of one item, its text will do."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_listed)]


@dataclass(frozen=True, config=CHECKED)
class NetworkConfig:
    """What every network is told: which one it is, and which streams it is given.

    A network's own settings are a frozen dataclass derived from this one, pydantic's or Python's;
    types and ranges are checked either way. `network` is the name that the network is found by.
    """

    network: str = ""
    drop: Words = ()  # roles left out, such as "text/clip"
    streams: Mapping[str, str] = field(default_factory=dict, hash=False)  # role -> stream
    normalise: Normalise = "standard"  # inputs by the training split (standardise.py), or "none"

    def __post_init__(self) -> None:
        if not is_pydantic_dataclass(type(self)):
            _check(self)
        for key, roles in (("drop", self.drop), ("streams", self.streams)):
            for role in roles:
                if role not in ROLES:
                    raise ConfigError(f"{key}: no role '{role}'; there are {', '.join(ROLES)}")


def _check(config: NetworkConfig) -> None:
    """What pydantic does by itself where a class was decorated by it: types and ranges by field."""
    types = get_type_hints(type(config), include_extras=True)
    for setting in fields(config):
        kind: TypeAdapter[Any] = TypeAdapter(types[setting.name])
        try:
            value = kind.validate_python(getattr(config, setting.name), strict=True)
        except ValidationError as error:
            raise ConfigError(f"{setting.name}: {one_line(error)}") from None
        object.__setattr__(config, setting.name, value)


def check_heads(d: int, heads: int) -> None:
    """Raise ConfigError unless the heads of an attention share its width d."""
    if d % heads:
        raise ConfigError(f"d = {d} must be a multiple of heads = {heads}")


class Batch(NamedTuple):
    """Utterances of the store: their row numbers (B,), streams by role, and labels (B,)."""

    rows: Tensor
    streams: Mapping[str, Ragged]
    labels: Tensor


Losses = dict[str, Tensor]  # named terms of what training makes smaller, scalars


class Pass(NamedTuple):
    """Once over the training utterances: the terms that are summed, and which optimiser steps."""

    losses: Callable[[Batch], Losses]
    optimiser: int = 0


class Network(nn.Module):
    """A network over a batch's streams by role, and how it is trained.

    Subclasses have `Config`, a constructor of (config, streams), where `streams` are the store's
    descriptions by role, and `forward`; the rest has a default, that of CLIP-MSA. What is given to
    any of them is standardised already, but labels.

    What training alone needs from one step to the next (labels that it makes, a memory, a phase)
    is kept in buffers with `persistent=False`: they are in the progress that an interrupted run
    goes on from, and not in checkpoints.
    """

    Config: ClassVar[type[NetworkConfig]] = NetworkConfig

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> Losses:
        """The terms of a batch's loss, which are summed; by default SmoothL1 (Sec. 2.4)."""
        return {"task": F.smooth_l1_loss(self(batch.streams), batch.labels)}

    def begin(self, rows: Tensor, labels: Tensor) -> None:
        """Told before the first epoch: row numbers (N,) and labels (N,) of split train."""

    def optimisers(self, schedule: Schedule) -> Sequence[torch.optim.Optimizer]:
        """What steps the parameters; by default one AdamW over all of them.

        Raises:
            ConfigError: the schedule is none that this network can be trained by.
        """
        return [adamw(self.parameters(), schedule)]

    def epoch(self, number: int) -> Sequence[Pass]:
        """The passes of an epoch, counted from 1; by default one, by `losses`."""
        return [Pass(self.losses)]

    def judged(self, number: int) -> bool:
        """Whether an epoch's validation counts, for the best weights and for patience."""
        return True

    def after_step(self, batch: Batch) -> None:
        """Told after each step of an optimiser, of the batch it was made by."""

    def attention_maps(self, streams: Mapping[str, Ragged]) -> list[CoAttentionMap]:
        """At one utterance, in eval mode: what attended to what; by default nothing."""
        return []


class Schedule(Protocol):
    """What a network may read of the settings under [training]."""

    @property
    def epochs(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def adamw(
    parameters: Any, schedule: Schedule, *, learning_rate: float | None = None
) -> torch.optim.AdamW:
    """AdamW by the schedule's rate, or another, and its weight decay."""
    return torch.optim.AdamW(
        parameters,
        schedule.learning_rate if learning_rate is None else learning_rate,
        weight_decay=schedule.weight_decay,
        fused=True,
    )


def roles_by_modality(streams: Mapping[str, StreamSpec]) -> dict[str, list[str]]:
    """By modality, of those that have any, the roles of its streams."""
    roles = {m: [role for role in streams if role.startswith(f"{m}/")] for m in MODALITIES}
    return {modality: found for modality, found in roles.items() if found}
