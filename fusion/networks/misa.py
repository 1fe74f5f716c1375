"""MISA: what modalities share, what each has of its own, and losses that keep the two apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec
from clipmsa.cache.errors import ConfigError

from .branches import StackedBiLSTM, VectorBranch
from .network import (
    CHECKED,
    Batch,
    Dropout,
    Losses,
    Network,
    NetworkConfig,
    Weight,
    Width,
    roles_by_modality,
)
from .ragged import Ragged

_MOMENTS = 5  # K of the central moment discrepancy, as in the authors' code
# Of the Transformer over the six vectors; its other sizes are torch's defaults, as there.
_HEADS = 2


@dataclass(frozen=True, config=CHECKED)
class MISAConfig(NetworkConfig):
    """Modality-Invariant and -Specific Representations; sizes and weights of its authors' code."""

    network: str = "misa"
    d: Width = 128  # width of u, h^p and h^c, and of the recurrent layers
    dropout: Dropout = 0.5  # of the predictor
    similarity: Weight = 1.0  # alpha, weight of L_sim in the loss
    difference: Weight = 0.3  # beta, of L_diff
    reconstruction: Weight = 1.0  # gamma, of L_recon

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d % 2:
            raise ConfigError(f"d = {self.d} must be even, since MISA's Transformer has two heads")


class Subspaces(NamedTuple):
    """Of M modalities in the order of MODALITIES, (M, B, d) each."""

    u: Tensor  # the modality as it is
    private: Tensor  # h^p, of the modality's own encoder
    shared: Tensor  # h^c, of the encoder of all


class MISA(Network):
    """Modality-Invariant and -Specific Representations (MISA, Sec. 3).

        u_m = Norm(ReLU(Linear_m(m)))    h^p_m = sigma(Linear'_m(u_m))    h^c_m = sigma(Linear(u_m))

    and y' is an MLP's on all the h, side by side, after a Transformer layer over them. In training
    `own_losses` are added to SmoothL1. A sequence becomes a vector by MISA's stacked
    bidirectional LSTM, here with d hidden units (there with as many as the features are wide, which
    at 4,096 would be over half a billion weights). Text is a frozen encoder's; MISA tunes BERT.
    """

    Config = MISAConfig

    def __init__(self, config: MISAConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        d, self.config = config.d, config
        self.roles = roles_by_modality(streams)
        M = len(self.roles)
        self.branches = nn.ModuleDict()
        self.project, self.private, self.decode = (nn.ModuleDict() for _ in range(3))
        for modality, roles in self.roles.items():
            width = 0
            for role in roles:
                spec = streams[role]
                sequence = spec.level == "sequence"
                branch = StackedBiLSTM(spec.dim, d) if sequence else VectorBranch(spec.dim)
                self.branches[role] = branch
                width += branch.out_dim
            self.project[modality] = nn.Sequential(nn.Linear(width, d), nn.ReLU(), nn.LayerNorm(d))
            self.private[modality] = nn.Sequential(nn.Linear(d, d), nn.Sigmoid())
            self.decode[modality] = nn.Linear(d, d)
        self.shared = nn.Sequential(nn.Linear(d, d), nn.Sigmoid())
        self.transformer = nn.TransformerEncoderLayer(d, _HEADS)
        self.layers = nn.Sequential(
            nn.Linear(2 * M * d, M * d), nn.Dropout(config.dropout), nn.ReLU(), nn.Linear(M * d, 1)
        )

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        return self._scores(self.subspaces(streams))

    def losses(self, batch: Batch) -> Losses:
        """SmoothL1, and MISA's own terms with their weights."""
        subspaces = self.subspaces(batch.streams)
        task = F.smooth_l1_loss(self._scores(subspaces), batch.labels)
        return {"task": task, **self.own_losses(subspaces)}

    def subspaces(self, streams: Mapping[str, Ragged]) -> Subspaces:
        """Streams by role -> each modality, what it has of its own and what all share."""
        u = {
            modality: self.project[modality](
                torch.cat([self.branches[role](streams[role]) for role in roles], dim=-1)
            )
            for modality, roles in self.roles.items()
        }
        return Subspaces(
            torch.stack(list(u.values())),
            torch.stack([self.private[modality](u_m) for modality, u_m in u.items()]),
            torch.stack([self.shared(u_m) for u_m in u.values()]),
        )

    def own_losses(self, of: Subspaces) -> Losses:
        """alpha L_sim, beta L_diff and gamma L_recon (MISA, Sec. 3.5), of one batch.

        L_sim is the CMD of the h^c, mean over pairs of modalities; L_diff the overlap of h^p and
        h^c, and of the h^p of two modalities, summed; L_recon the error of u from h^p + h^c.
        """
        pairs = list(itertools.combinations(range(len(of.u)), 2))
        zero = of.u.new_zeros(())
        sim = sum((central_moment_discrepancy(of.shared[i], of.shared[j]) for i, j in pairs), zero)
        diff = sum((overlap(p, c) for p, c in zip(of.private, of.shared, strict=True)), zero)
        diff = sum((overlap(of.private[i], of.private[j]) for i, j in pairs), diff)
        decoders = zip(self.decode.values(), of.private + of.shared, strict=True)
        recon = F.mse_loss(torch.stack([decode(h) for decode, h in decoders]), of.u)
        config = self.config
        return {
            "similarity": config.similarity * sim / max(1, len(pairs)),
            "difference": config.difference * diff,
            "reconstruction": config.reconstruction * recon,
        }

    def _scores(self, of: Subspaces) -> Tensor:
        h = self.transformer(torch.cat([of.private, of.shared]))  # (2 M, B, d)
        score: Tensor = self.layers(h.transpose(0, 1).flatten(1))
        return score.squeeze(-1)


def central_moment_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """CMD_K of two samples (B, d) of values in [0, 1]: how far moments 1 to K are apart."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    distance: Tensor = torch.linalg.vector_norm(x_mean - y_mean)
    for k in range(2, _MOMENTS + 1):
        moments = ((x - x_mean) ** k).mean(0) - ((y - y_mean) ** k).mean(0)
        distance = distance + torch.linalg.vector_norm(moments)
    return distance


def overlap(x: Tensor, y: Tensor) -> Tensor:
    """|| X^T Y ||_F^2 of two samples (B, d), less their means, each row of length 1.

    With the authors' code it is the mean over the d x d elements, not the sum, and no gradient
    goes through a row's length.
    """
    x, y = x - x.mean(0), y - y.mean(0)
    x = x / (torch.linalg.vector_norm(x, dim=1, keepdim=True).detach() + 1e-6)
    y = y / (torch.linalg.vector_norm(y, dim=1, keepdim=True).detach() + 1e-6)
    product: Tensor = x.T @ y
    return product.square().mean()
