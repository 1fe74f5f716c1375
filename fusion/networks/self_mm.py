"""Self-MM: each modality learns from labels of its own, which training makes as it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .branches import SLSTM, MeanBranch, VectorBranch
from .network import (
    CHECKED,
    Batch,
    Dropout,
    Losses,
    Network,
    NetworkConfig,
    Pass,
    Width,
    roles_by_modality,
)
from .ragged import Ragged


@dataclass(frozen=True, config=CHECKED)
class SelfMMConfig(NetworkConfig):
    """Self-supervised Multi-task Multimodal network; sizes of MMSA's configuration for MOSI."""

    network: str = "self-mm"
    audio_lstm: Width = 16
    vision_lstm: Width = 32
    audio_out: Width = 16  # of F_a
    vision_out: Width = 32  # of F_v
    fusion_width: Width = 128  # of F*_m
    text_width: Width = 32  # of F*_t
    audio_width: Width = 16
    vision_width: Width = 32
    fusion_dropout: Dropout = 0.0
    text_dropout: Dropout = 0.1
    audio_dropout: Dropout = 0.1
    vision_dropout: Dropout = 0.0
    label_limit: Annotated[float, Field(gt=0, le=1_000)] = 3.0  # of a label that is made
    exclude_zero: bool = True  # label 0 is in no class (MMSA), or counts as positive (Self-MM's)


class SelfMM(Network):
    """Self-MM (Yu, Xu, Yuan, Wu, AAAI 2021), on frozen text.

        F*_m = ReLU(Linear([F_t; F_a; F_v]))   F*_s = ReLU(Linear(F_s))   y'_k = MLP(F*_k)

    F_t is the text's vector (of a sequence, the mean); F_a and F_v are linear in an LSTM's last
    state, or in the vector of an utterance-level stream. y'_m is the score. The loss is SmoothL1 of
    it (the original has L1) and, for each modality s, the mean over the batch of
    tanh|y_s - y_m| |y'_s - y_s|, where y_s are `MadeLabels`. Those of one modality alone have none.

    One AdamW steps everything at one rate. The original has a rate for each part, weight decay in
    the gradient, and sums the gradients of four batches.
    """

    Config = SelfMMConfig

    def __init__(self, config: SelfMMConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.roles = roles_by_modality(streams)
        lstm = {"audio": config.audio_lstm, "vision": config.vision_lstm}
        out = {"audio": config.audio_out, "vision": config.vision_out}
        self.branches, self.project = nn.ModuleDict(), nn.ModuleDict()
        widths = {}
        for modality, roles in self.roles.items():
            width = 0
            for role in roles:
                dim, level = streams[role].dim, streams[role].level
                branch: MeanBranch | SLSTM | VectorBranch
                if modality == "text":
                    branch = MeanBranch(dim)
                elif level == "sequence":
                    branch = SLSTM(dim, lstm[modality])
                else:
                    branch = VectorBranch(dim)
                self.branches[role] = branch
                width += branch.out_dim
            if modality == "text":
                widths[modality] = width
            else:
                self.project[modality] = nn.Linear(width, out[modality])
                widths[modality] = out[modality]
        self.hidden = {
            "fusion": config.fusion_width,
            **{m: getattr(config, f"{m}_width") for m in self.roles},
        }
        dropouts = {k: getattr(config, f"{k}_dropout") for k in self.hidden}
        self.heads = nn.ModuleDict(
            {
                k: Head(widths.get(k, sum(widths.values())), width, dropouts[k])
                for k, width in self.hidden.items()
            }
        )
        self.made = MadeLabels(self.hidden, config.label_limit, config.exclude_zero)
        self._epoch = 0
        self._rows = torch.empty(0, dtype=torch.int64)
        self._seen: dict[str, Tensor] = {}  # F* of the batch that is being learned from

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        fusion = torch.cat([*self.vectors(streams).values()], dim=-1)
        score: Tensor = self.heads["fusion"](fusion)[1]
        return score

    def vectors(self, streams: Mapping[str, Ragged]) -> dict[str, Tensor]:
        """F_t, F_a and F_v, (B, width), by modality."""
        out = {}
        for modality, roles in self.roles.items():
            found = torch.cat([self.branches[role](streams[role]) for role in roles], dim=-1)
            out[modality] = self.project[modality](found) if modality in self.project else found
        return out

    def heads_of(
        self, vectors: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """F* (B, width) and scores (B,), of "fusion" and by modality."""
        given = {"fusion": torch.cat([*vectors.values()], dim=-1), **vectors}
        both = {k: self.heads[k](x) for k, x in given.items()}
        return {k: f for k, (f, _) in both.items()}, {k: score for k, (_, score) in both.items()}

    def losses(self, batch: Batch) -> Losses:
        """SmoothL1 of the score, and each modality's own loss by the labels made so far."""
        features, scores = self.heads_of(self.vectors(batch.streams))
        self._seen = {k: f.detach() for k, f in features.items()}
        at = self._places(batch)
        terms = {"task": F.smooth_l1_loss(scores["fusion"], batch.labels)}
        if len(self.roles) > 1:
            for modality in self.roles:
                terms[modality] = unimodal_loss(
                    scores[modality],
                    self.made.labels(modality)[at],
                    batch.labels,
                    self._there(modality, batch),
                )
        return terms

    def begin(self, rows: Tensor, labels: Tensor) -> None:
        order = rows.argsort()
        self._rows = rows[order]
        self.made.begin(labels[order.to(labels.device)])

    def epoch(self, number: int) -> Sequence[Pass]:
        self._epoch = number
        return super().epoch(number)

    def after_step(self, batch: Batch) -> None:
        there = {modality: self._there(modality, batch) for modality in self.roles}
        self.made.update(self._places(batch), self._seen, there, self._epoch)

    def _places(self, batch: Batch) -> Tensor:
        places = torch.searchsorted(self._rows, batch.rows.to(self._rows.device))
        return places.to(batch.labels.device)

    def _there(self, modality: str, batch: Batch) -> Tensor:
        lengths = [batch.streams[role].lengths for role in self.roles[modality]]
        return (torch.stack(lengths).amax(0) > 0).to(batch.labels.device)


class Head(nn.Module):
    """F* = ReLU(Linear(Dropout(F))), and Linear(ReLU(Linear(F*))) of it."""

    def __init__(self, in_dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first, self.second = nn.Linear(in_dim, width), nn.Linear(width, width)
        self.out = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_dim) -> F* (B, width) and scores (B,)."""
        feature = self.first(self.dropout(x)).relu()
        return feature, self.out(self.second(feature).relu()).squeeze(-1)


def unimodal_loss(score: Tensor, made: Tensor, label: Tensor, there: Tensor) -> Tensor:
    """The mean over a batch of tanh|y_s - y_m| |y'_s - y_s|; 0 where the modality is missing."""
    weight = (made - label).abs().tanh() * there
    return (weight * (score - made).abs()).mean()


class MadeLabels(nn.Module):
    """A label of each modality for every training utterance (Self-MM, Sec. 3.3 and 3.4).

    They begin as the utterances' own, y_m, and move from the second epoch n on, after each step,
    for its batch. With C^+ and C^- the mean features F* of positive and of negative utterances,
    each modality's by its own labels, d^+ and d^- their distances from an utterance's F*, and
    a = (d^- - d^+) / d^+:

        new = a_s / a_m y_m / 2 + (y_m + a_s - a_m) / 2      limited to [-label_limit, label_limit]
        y_s <- (n - 1)/(n + 1) y_s + 2/(n + 1) new

    Distances are plain, and new labels limited, as in the authors' code (the paper divides the
    distance by the root of the width). Features are those of an utterance's last time in a batch; 0
    before the first, which counts in the means too, as there.

    Two things are this project's: a class without members keeps all labels where they are (there
    they become NaN), and an utterance whose modality is missing, in the store or withheld by
    modality dropout, keeps that label and is in neither class.
    """

    def __init__(self, widths: Mapping[str, int], limit: float, exclude_zero: bool) -> None:
        super().__init__()
        self.widths, self.limit, self.exclude_zero = dict(widths), limit, exclude_zero
        self.begin(torch.empty(0))

    def begin(self, labels: Tensor) -> None:
        """Start from the labels y_m (N,) of all training utterances."""
        for k, width in self.widths.items():
            self._state(f"label_{k}", labels.clone())
            self._state(f"feature_{k}", labels.new_zeros(len(labels), width))
            self._state(f"there_{k}", torch.ones_like(labels, dtype=torch.bool))

    def labels(self, k: str) -> Tensor:
        """y_k (N,), of a modality or of "fusion", whose are y_m."""
        return self.get_buffer(f"label_{k}")

    def centres(self, k: str) -> tuple[Tensor, Tensor]:
        """C_k^+ and C_k^- (width,); NaN of a class without members."""
        label, feature = self.labels(k), self.get_buffer(f"feature_{k}")
        there = self.get_buffer(f"there_{k}")
        positive = label > 0 if self.exclude_zero else label >= 0
        members = torch.stack([positive & there, (label < 0) & there]).to(feature.dtype)
        above, below = (members @ feature) / members.sum(1, keepdim=True)
        return above, below

    @torch.no_grad()
    def update(
        self, at: Tensor, features: Mapping[str, Tensor], there: Mapping[str, Tensor], epoch: int
    ) -> None:
        """Move the labels of the utterances `at` (B,), then keep their features F*."""
        if epoch > 1:
            y_m = self.labels("fusion")[at]
            a_m = self._nearness("fusion", features)
            for s in self.widths:
                if s != "fusion":
                    a_s = self._nearness(s, features)
                    new = a_s / (a_m + 1e-8) * y_m / 2 + (y_m + a_s - a_m) / 2
                    new = new.clamp(-self.limit, self.limit)
                    old = self.labels(s)[at]
                    moved = (epoch - 1) / (epoch + 1) * old + 2 / (epoch + 1) * new
                    may = there[s] & moved.isfinite()
                    self.labels(s)[at] = torch.where(may, moved, old)
        for k, feature in features.items():
            table = self.get_buffer(f"feature_{k}")
            here = there[k] if k in there else torch.ones_like(at, dtype=torch.bool)
            table[at] = torch.where(here[:, None], feature.to(table.dtype), table[at])
            self.get_buffer(f"there_{k}")[at] = here

    def _nearness(self, k: str, features: Mapping[str, Tensor]) -> Tensor:
        above, below = (
            torch.linalg.vector_norm(features[k] - centre, dim=1) for centre in self.centres(k)
        )
        nearness: Tensor = (below - above) / (above + 1e-8)
        return nearness

    def _state(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)
