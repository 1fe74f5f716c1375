"""One vector of each modality, and who has that modality: where networks over vectors begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .branches import Branch, FrameTransformer, VectorBranch
from .network import (
    CHECKED,
    Dropout,
    Heads,
    Layers,
    NetworkConfig,
    Width,
    check_heads,
    roles_by_modality,
)
from .ragged import Ragged


@dataclass(frozen=True, config=CHECKED)
class TransformedConfig(NetworkConfig):
    """Settings of a network over vectors whose sequences go through a Transformer first."""

    d: Width = 128  # width of a modality's vector
    heads: Heads = 4  # of the Transformer over a sequence
    layers: Layers = 1
    d_ff: Width = 256
    dropout: Dropout = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.d, self.heads)

    def branch(self, stream: StreamSpec) -> Branch:
        """The layer that makes one vector of a stream."""
        if stream.level == "utterance":
            return VectorBranch(stream.dim)
        return FrameTransformer(
            stream.dim, self.d, self.heads, self.layers, self.d_ff, self.dropout
        )


class ModalityVectors(nn.Module):
    """The vectors of a modality's streams, each by its branch, side by side.

    `branch` makes the layer of a stream by its description. `widths` has by modality, in the order
    of MODALITIES, how wide its vector is; a modality without streams is not there.
    """

    def __init__(
        self, streams: Mapping[str, StreamSpec], branch: Callable[[StreamSpec], Branch]
    ) -> None:
        super().__init__()
        branches = {role: branch(spec) for role, spec in streams.items()}
        self.roles = roles_by_modality(streams)
        self.widths = {
            modality: sum(branches[role].out_dim for role in roles)
            for modality, roles in self.roles.items()
        }
        self.branches = nn.ModuleDict(branches)

    def forward(self, streams: Mapping[str, Ragged]) -> dict[str, Tensor]:
        """Streams by role, of one batch -> (B, width) by modality."""
        return {
            modality: torch.cat([self.branches[role](streams[role]) for role in roles], dim=-1)
            for modality, roles in self.roles.items()
        }

    def present(self, streams: Mapping[str, Ragged]) -> dict[str, Tensor]:
        """By modality, which utterances have a row in any of its streams: (B,) bool, on the CPU."""
        return {
            modality: torch.stack([streams[role].lengths > 0 for role in roles]).any(0)
            for modality, roles in self.roles.items()
        }
