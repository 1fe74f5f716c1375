"""HyCon, in our reading: modalities' vectors near one another where sentiments agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .network import (
    CHECKED,
    Batch,
    Losses,
    Network,
    Weight,
)
from .ragged import Ragged
from .vectors import ModalityVectors, TransformedConfig


@dataclass(frozen=True, config=CHECKED)
class HyConConfig(TransformedConfig):
    """Hybrid contrastive learning. Of its numbers only alpha is known, and that at second hand."""

    network: str = "hycon"
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.8  # margin: similarity of two modalities
    intra: Weight = 0.1  # lambda_1, weight of L_intra in the loss
    inter: Weight = 0.1  # lambda_2, of L_inter
    semi: Weight = 0.1  # lambda_3, of L_semi


class HyCon(Network):
    """Hybrid contrastive learning (Mai, Zeng, Zheng, Hu, IEEE TAC 2022), our reading.

        e_m = softplus(Linear(m's vector)) >= 0      y' = MLP(e_t + e_a + e_v)
        loss = L_task + lambda_1 L_intra + lambda_2 L_inter + lambda_3 L_semi     (`contrasts`)

    There is no code of the authors', and of the paper we had the abstracts. Certain: contrastive
    learning within a modality and between two, semi-contrastive learning at once, and a refinement
    term. At second hand, of two who had the text: what is compared in each, that positives are of
    the same class, what similarities are drawn to, the ratio, and the sum of the three vectors.
    Ours: classes are y >= 0 and y < 0, every lambda and size, softplus, an MLP of two layers, no
    logarithm of the ratio. The journal's modality margin by pairs and pair selection are left out.

    Text is frozen (there BERT is tuned). A sequence becomes a vector by a Transformer. L_task is
    SmoothL1, as every network's. A modality without rows has a learned vector in the sum, and
    takes no part in what is contrasted.
    """

    Config = HyConConfig

    def __init__(self, config: HyConConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        d, self.config = config.d, config
        self.vectors = ModalityVectors(streams, config.branch)
        self.project = nn.ModuleDict({m: nn.Linear(w, d) for m, w in self.vectors.widths.items()})
        self.layers = nn.Sequential(
            nn.Linear(d, d), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(d, 1)
        )

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        return self._scores(self.embedded(streams))

    def embedded(self, streams: Mapping[str, Ragged]) -> Tensor:
        """e, not negative, of M modalities in the order of MODALITIES: (B, M, d)."""
        found = self.vectors(streams)
        return torch.stack([F.softplus(self.project[m](x)) for m, x in found.items()], dim=1)

    def losses(self, batch: Batch) -> Losses:
        """SmoothL1, and what is contrasted, each with its weight."""
        config, e = self.config, self.embedded(batch.streams)
        present = torch.stack([*self.vectors.present(batch.streams).values()], dim=1)
        found = contrasts(e, present.to(e.device), batch.labels, config.alpha)
        return {
            "task": F.smooth_l1_loss(self._scores(e), batch.labels),
            "intra": config.intra * (found["intra_ratio"] + found["intra_refinement"]),
            "inter": config.inter * (found["inter_ratio"] + found["inter_refinement"]),
            "semi": config.semi * found["semi"],
        }

    def _scores(self, e: Tensor) -> Tensor:
        score: Tensor = self.layers(e.sum(1))
        return score.squeeze(-1)


def contrasts(e: Tensor, present: Tensor, labels: Tensor, alpha: float) -> Losses:
    """What HyCon contrasts, of vectors e (B, M, d), those that are present (B, M), and labels (B,).

    With s the products of unit vectors, an anchor (i, m), its candidates K and of those the ones of
    its class P:

        ratio = - (sum of s over P) / (sum of s over K)      refinement = mean over P of (s - tau)^2

    Within a modality K = (j, m), j != i, and tau = 1; between two K = (j, n), j != i, n != m, and
    tau = alpha; means are over the anchors that have a positive. Semi-contrastive is the mean of
    (s - alpha)^2 over any two modalities of one utterance. What there is no anchor for is 0.
    """
    B, M, _ = e.shape
    unit = F.normalize(e.flatten(0, 1), dim=-1)
    s = unit @ unit.T  # (B M, B M), row M i + m
    utterance = torch.arange(B, device=e.device).repeat_interleave(M)
    modality = torch.arange(M, device=e.device).repeat(B)
    there = present.flatten()
    pair = there[:, None] & there
    same_utterance = utterance[:, None] == utterance
    same_modality = modality[:, None] == modality
    positive_label = (labels >= 0).repeat_interleave(M)
    same_class = positive_label[:, None] == positive_label
    out: Losses = {}
    for name, kind, tau in (("intra", same_modality, 1.0), ("inter", ~same_modality, alpha)):
        K = (pair & kind & ~same_utterance).to(s.dtype)
        P = K * same_class
        positives = P.sum(1)
        anchors = positives > 0
        count = anchors.sum().clamp(min=1)
        ratio = (s * P).sum(1) / (s * K).sum(1).clamp(min=1e-12)
        refinement = ((s - tau) ** 2 * P).sum(1) / positives.clamp(min=1)
        out[f"{name}_ratio"] = -(ratio * anchors).sum() / count
        out[f"{name}_refinement"] = (refinement * anchors).sum() / count
    own = (pair & same_utterance & ~same_modality).to(s.dtype)
    out["semi"] = ((s - alpha) ** 2 * own).sum() / own.sum().clamp(min=1)
    return out
