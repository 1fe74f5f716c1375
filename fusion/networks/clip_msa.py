"""CLIP-MSA, wired: six streams -> F_t, F_a, F_v -> F_m -> y' (paper, Sec. 2).

| paper                 | here                                  | shape   |
|-----------------------|---------------------------------------|---------|
| F_t^albert, F_t^clip  | branches "text/own", "text/clip"      | (B, D)  |
| F_a^wav2vec, ESResNeXt| branches "audio/own", "audio/clip"    | (B, D)  |
| F_v^trans, F_v^clip   | branches "vision/own", "vision/clip"  | (B, d)  |
| F_t, F_a, F_v         | `ModalProjection` of each modality    | (B, d)  |
| F_av, F_m             | `HierarchicalFusion`                  | (B, d)  |
| y'                    | `Predictor`                           | (B,)    |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec
from clipmsa.cache.errors import ConfigError
from clipmsa.cache.spec import MODALITIES

from .branches import SLSTM, Branch, FrameTransformer, StackedBiLSTM, Temporal, VectorBranch
from .coattention import CoAttentionMap, Concatenation, HierarchicalFusion, Residual
from .network import (
    CHECKED,
    Dropout,
    Heads,
    Layers,
    Network,
    NetworkConfig,
    Width,
    Words,
    roles_by_modality,
)
from .ragged import Ragged


@dataclass(frozen=True, config=CHECKED)
class ClipMSAConfig(NetworkConfig):
    """The trainable part of CLIP-MSA. The paper gives no sizes: these are the project's."""

    network: str = "clip-msa"
    d: Width = 128  # width of F_t, F_a, F_v and all that follows
    heads: Heads = 8  # m, heads of a CT unit
    d_ff: Width = 256  # width of a CT unit's feed-forward network
    residual: Residual = "gated"  # "X_1 + hX_1" read as a gate, or "additive": X_1 + h
    fusion: Literal["coattention", "concat"] = "coattention"  # "concat": the paper's "w/o Co-Attn"
    order: Words = ("audio", "vision", "text")  # the first two meet first
    temporal: Temporal = "slstm"  # of the CLIP branch, or "stacked-bilstm"
    transformer_layers: Layers = 1  # of the own branch's sequences
    transformer_heads: Heads = 4
    transformer_ff: Width = 256
    predictor_hidden: Width = 64
    norm_start: NormStart = "shifted"  # of the projections' BatchNorms, or torch's own "unit"
    dropout: Dropout = 0.1
    feature_dropout: Dropout = 0.5  # of the frozen features, rows of sequences too

    def __post_init__(self) -> None:
        super().__post_init__()
        if sorted(self.order) != sorted(MODALITIES):
            raise ConfigError(
                f"order is {list(self.order)}, must hold each of {', '.join(MODALITIES)} once"
            )
        if self.d % self.heads or self.d % self.transformer_heads:
            raise ConfigError(
                f"d = {self.d} must be a multiple of heads = {self.heads} "
                f"and of transformer_heads = {self.transformer_heads}"
            )


class ModalProjection(nn.Module):
    """F_t, F_a or F_v = BatchNorm(Linear([own; clip])) (Sec. 2.2.1 to 2.2.3).

    BatchNorm starts at scale 0.5 and a random shift of deviation 1 (`norm_start="shifted"`) or at
    torch's own 1 and 0 (`"unit"`). The layer norms of the CT units forget a vector's length, and
    around 0 length is what says how strong a sentiment is; around a shift, strength is direction,
    which they keep.
    """

    def __init__(self, in_dim: int, d: int, norm_start: NormStart = "shifted") -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, d)
        self.norm = nn.BatchNorm1d(d)
        if norm_start == "shifted":
            nn.init.constant_(self.norm.weight, 0.5)
            nn.init.normal_(self.norm.bias)

    def forward(self, branches: Tensor) -> Tensor:
        """(B, sum of the branches' widths) -> (B, d)."""
        out: Tensor = self.norm(self.linear(branches))
        return out


class Predictor(nn.Module):
    """y' from F_m by a fully connected network (Sec. 2.4)."""

    def __init__(self, in_dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )

    def forward(self, f_m: Tensor) -> Tensor:
        """(B, in_dim) -> (B,)."""
        score: Tensor = self.layers(f_m)
        return score.squeeze(-1)


class ClipMSA(Network):
    """The trainable part of CLIP-MSA over the streams it is given.

    `streams` maps roles ("text/own", "vision/clip", ...) to the store's description of the stream
    in that role; widths are read from it. A modality without any stream takes no part.
    """

    Config = ClipMSAConfig

    def __init__(self, config: ClipMSAConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.feature_dropout)
        self.branches = nn.ModuleDict({role: _branch(s, config) for role, s in streams.items()})
        self.roles = roles_by_modality(streams)
        order = [modality for modality in config.order if modality in self.roles]
        self.projections = nn.ModuleDict(
            {
                modality: ModalProjection(
                    sum(self._branch(role).out_dim for role in self.roles[modality]),
                    config.d,
                    config.norm_start,
                )
                for modality in order
            }
        )
        self.fusion: nn.Module
        if config.fusion == "concat":
            self.fusion = Concatenation(order)
        else:
            self.fusion = HierarchicalFusion(
                order, config.d, config.heads, config.d_ff, config.residual, config.dropout
            )
        width = config.d * (len(order) if config.fusion == "concat" else 1)
        self.predictor = Predictor(width, config.predictor_hidden, config.dropout)

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores y' (B,)."""
        return self.intermediates(streams)["y"]

    def intermediates(self, streams: Mapping[str, Ragged]) -> dict[str, Tensor]:
        """The paper's quantities by name: F_text, F_audio, F_vision (B, d), F_m, and y (B,)."""
        vectors = {
            role: branch(Ragged(self.dropout(streams[role].rows), streams[role].lengths))
            for role, branch in self.branches.items()
        }
        modalities = {
            modality: projection(torch.cat([vectors[r] for r in self.roles[modality]], dim=-1))
            for modality, projection in self.projections.items()
        }
        f_m = self.fusion(modalities)
        return {
            **{f"F_{modality}": f for modality, f in modalities.items()},
            "F_m": f_m,
            "y": self.predictor(f_m),
        }

    def attention_maps(self, streams: Mapping[str, Ragged]) -> list[CoAttentionMap]:
        """The maps of every CT unit at one utterance, in the order they are computed.

        Four of them with three modalities: in the paper's order A<-V, V<-A, AV<-T and T<-AV. None
        without co-attention (the paper's "w/o Co-Attn").
        """
        if not isinstance(self.fusion, HierarchicalFusion):
            return []
        out = self.intermediates(streams)
        return self.fusion.maps({m: out[f"F_{m}"] for m in self.fusion.order})

    def _branch(self, role: str) -> Branch:
        branch = self.branches[role]
        assert isinstance(branch, Branch)
        return branch


def _branch(stream: StreamSpec, config: ClipMSAConfig) -> Branch:
    """The layer that makes one vector of a stream: by its level, and for sequences its branch."""
    if stream.level == "utterance":
        return VectorBranch(stream.dim)
    if stream.branch == "own":
        return FrameTransformer(
            stream.dim,
            config.d,
            config.transformer_heads,
            config.transformer_layers,
            config.transformer_ff,
            config.dropout,
        )
    recurrent = SLSTM if config.temporal == "slstm" else StackedBiLSTM
    return recurrent(stream.dim, config.d)


NormStart = Literal["shifted", "unit"]
