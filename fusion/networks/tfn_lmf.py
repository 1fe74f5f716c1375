"""TFN and LMF: a product of all modalities' vectors, and a linear layer on it of low rank."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .branches import MeanBranch
from .network import CHECKED, Dropout, Network, NetworkConfig, Width, roles_by_modality
from .ragged import Ragged


@dataclass(frozen=True, config=CHECKED)
class TFNConfig(NetworkConfig):
    """Tensor Fusion Network; sizes and rates of MMSA's configuration for MOSI."""

    network: str = "tfn"
    text_width: Width = 32  # of z_text, and of the layers of its sub-network
    audio_width: Width = 32
    vision_width: Width = 128
    post_fusion: Width = 64  # width of the layers over the tensor
    dropout: Dropout = 0.5  # of the tensor
    feature_dropout: Dropout = 0.3  # of the frozen features, after their normalisation


@dataclass(frozen=True, config=CHECKED)
class LMFConfig(NetworkConfig):
    """Low-rank Multimodal Fusion; sizes and rates of MMSA's configurations, rank for MOSI."""

    network: str = "lmf"
    text_width: Width = 64  # of z_text, and of the layers of its sub-network
    audio_width: Width = 16
    vision_width: Width = 128
    rank: Width = 3  # MMSA's for MOSI; 4 for MOSEI
    feature_dropout: Dropout = 0.3  # of the frozen features, after their normalisation


class SubNetwork(nn.Module):
    """z of one modality: BatchNorm, then three fully connected layers with ReLU (TFN, Sec. 4.1).

    TFN and LMF have it for sound and picture, and an LSTM over words for text. Here the frozen
    encoder has read the words, so text has what the others have.
    """

    def __init__(self, in_dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(in_dim)
        self.dropout = nn.Dropout(dropout)
        widths = (in_dim, width, width, width)
        self.layers = nn.ModuleList(nn.Linear(widths[i], widths[i + 1]) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> (B, width)."""
        z: Tensor = self.dropout(self.norm(x))
        for layer in self.layers:
            z = F.relu(layer(z))
        return z


class PooledModalities(nn.Module):
    """[z; 1] of each modality, from the means over its streams' rows, side by side."""

    def __init__(self, config: TFNConfig | LMFConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.means = nn.ModuleDict({role: MeanBranch(spec.dim) for role, spec in streams.items()})
        self.roles = roles_by_modality(streams)
        widths = {
            "text": config.text_width,
            "audio": config.audio_width,
            "vision": config.vision_width,
        }
        self.widths = {modality: widths[modality] + 1 for modality in self.roles}
        self.subnetworks = nn.ModuleDict(
            {
                modality: SubNetwork(
                    sum(streams[role].dim for role in roles),
                    widths[modality],
                    config.feature_dropout,
                )
                for modality, roles in self.roles.items()
            }
        )

    def forward(self, streams: Mapping[str, Ragged]) -> dict[str, Tensor]:
        """Streams by role -> (B, width + 1) by modality."""
        out = {}
        for modality, subnetwork in self.subnetworks.items():
            means = [self.means[role](streams[role]) for role in self.roles[modality]]
            out[modality] = F.pad(subnetwork(torch.cat(means, dim=-1)), (0, 1), value=1.0)
        return out


class TFN(Network):
    """Tensor Fusion Network: the outer product of [z; 1] of all modalities (TFN, Sec. 4.2).

        z_m = [z_text; 1] x [z_audio; 1] x [z_vision; 1]        y' = 6 sigmoid(MLP(z_m)) - 3

    so that the tensor holds each modality, each pair and all three. The output is bounded by the
    labels' range, as the paper and its authors' code have it (Sec. 4.3).
    """

    Config = TFNConfig

    def __init__(self, config: TFNConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.modalities = PooledModalities(config, streams)
        self.dropout = nn.Dropout(config.dropout)
        width = config.post_fusion
        self.layers = nn.Sequential(
            nn.Linear(math.prod(self.modalities.widths.values()), width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,) in [-3, 3]."""
        first, *others = self.modalities(streams).values()
        tensor = first
        for z in others:
            tensor = (tensor[:, :, None] * z[:, None, :]).flatten(1)
        score: Tensor = self.layers(self.dropout(tensor)).squeeze(-1)
        return 6 * torch.sigmoid(score) - 3


class LMF(Network):
    """Low-rank Multimodal Fusion: TFN's tensor and a linear layer on it, never built (Sec. 3.2).

        y' = b + sum_r v_r (w_t^r [z_text; 1]) (w_a^r [z_audio; 1]) (w_v^r [z_vision; 1])

    is linear in the tensor, with a weight tensor of rank `rank`. v_r and b are in the authors' code
    (the paper sums over r with v_r = 1 and no b), and so is that the output is not bounded.
    """

    Config = LMFConfig

    def __init__(self, config: LMFConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.modalities = PooledModalities(config, streams)
        self.factors = nn.ParameterDict(
            {
                modality: nn.init.xavier_normal_(torch.empty(config.rank, width))
                for modality, width in self.modalities.widths.items()
            }
        )
        self.weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, config.rank)))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        product = torch.ones((), device=self.weights.device)
        for modality, z in self.modalities(streams).items():
            product = product * F.linear(z, self.factors[modality])  # (B, rank)
        return F.linear(product, self.weights).squeeze(-1) + self.bias
