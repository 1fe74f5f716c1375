"""One vector of each modality, and who has that modality: where networks over vectors begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .branches import Branch
from .network import roles_by_modality
from .ragged import Ragged


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
