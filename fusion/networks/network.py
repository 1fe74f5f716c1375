"""What every network is told: which one it is, and which streams it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from clipmsa.cache import StreamSpec
from clipmsa.cache.errors import ConfigError

MODALITIES = ("text", "audio", "vision")
Normalise = Literal["standard", "none"]
ROLES = tuple(f"{modality}/{branch}" for modality in MODALITIES for branch in ("own", "clip"))
CHECKED = ConfigDict(extra="forbid", strict=True)  # strict: no text is a number, nor is true
Width = Annotated[int, Field(ge=1, le=16_384)]
Layers = Annotated[int, Field(ge=1, le=64)]
Heads = Annotated[int, Field(ge=1, le=1_024)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1_000)]  # of a term in a loss


def _listed(value: Any) -> Any:
    """TOML has lists for tuples; of one item, its text will do."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_listed)]


@dataclass(frozen=True, config=CHECKED)
class NetworkConfig:
    """What every network is told: which one it is, and which streams it is given."""

    network: str = "clip-msa"
    drop: Words = ()  # roles left out, such as "text/clip"
    streams: Mapping[str, str] = field(default_factory=dict, hash=False)  # role -> stream
    normalise: Normalise = "standard"  # inputs by the training split (standardise.py), or "none"

    def __post_init__(self) -> None:
        own = type(self).network
        if self.network != own:
            raise ConfigError(f"network is '{self.network}', must be '{own}' with these settings")
        for key, roles in (("drop", self.drop), ("streams", self.streams)):
            for role in roles:
                if role not in ROLES:
                    raise ConfigError(f"{key}: no role '{role}'; there are {', '.join(ROLES)}")


def roles_by_modality(streams: Mapping[str, StreamSpec]) -> dict[str, list[str]]:
    """By modality, of those that have any, the roles of its streams."""
    roles = {m: [role for role in streams if role.startswith(f"{m}/")] for m in MODALITIES}
    return {modality: found for modality, found in roles.items() if found}
