"""WSCL-CL, in our reading: how far apart sentiments are, learnt from pairs, the easy ones first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .network import (
    CHECKED,
    Batch,
    Dropout,
    Heads,
    Layers,
    Losses,
    Network,
    Pass,
    Steps,
    Weight,
    Width,
)
from .ragged import Ragged
from .vectors import ModalityVectors, TransformedConfig

_RANGE = 6.0  # between the labels' ends
_NEAREST = 0.1  # keeps a negative pair's target above a positive one's


@dataclass(frozen=True, config=CHECKED)
class WSCLCLConfig(TransformedConfig):
    """Correlation learning with a curriculum; d and heads are near its authors' later code."""

    network: str = "wscl-cl"
    d: Width = 40
    heads: Heads = 5
    layers: Layers = 3
    d_ff: Width = 160
    dropout: Dropout = 0.1
    correlation: Weight = 0.1  # lambda, weight of L_correlation in the loss
    negatives: Width = 4  # k, an utterance and two modalities
    pretraining: Steps = 5  # epochs on all pairs
    discarded: Dropout = 0.1  # rho, share of the pairs, the hardest
    buckets: Width = 10  # n_b
    threshold: Annotated[float, Field(ge=0)] = 0.01  # tau


class Pairs(NamedTuple):
    """Of two vectors each: those of combination c's modalities, of utterances i and j (n,)."""

    c: Tensor
    i: Tensor
    j: Tensor


class WSCLCL(Network):
    """Weakly supervised correlation learning, by a curriculum (Mai, Sun, Hu, EMNLP 2022).

        y' = Linear([x_t; x_a; x_v])     correlation of a pair = Linear_mn([x_m; x_n])
        loss = L_task + lambda L_correlation over the pairs that are fed

    There is no code of the authors', and of the paper we had abstract and introduction: this is our
    reading. Certain: pairs of two modalities' vectors, positive if of one utterance; a negative
    pair's score is from its labels; pairs are as difficult as their losses under a pre-trained and
    the current predictor are large, the hardest are discarded as noise, and the change of the loss
    decides whether to stay, step back or step forward. Ours: all numbers and formulas.

    A pair's target is 0, or (|y_i - y_j| + 0.1) / (6 + 0.1) of two utterances; its loss L1. The
    first `pretraining` epochs are over all pairs, after which a copy of the predictors is kept.
    From then on a batch's pairs are sorted by the mean of their losses under both, the hardest
    discarded, the others cut into buckets, and the first of those fed (`curriculum`). After each
    epoch the buckets fed are one more or one less, by the change of the mean loss of all pairs, fed
    or not: of the fed ones it would rise with each step forward (`step`). Pairs are drawn inside
    the batch, by torch's global generator.

    Text is frozen (there BERT is tuned). A sequence becomes a vector by a Transformer. L_task is
    SmoothL1, as every network's. A modality without rows has a learned vector and no pairs.
    """

    Config = WSCLCLConfig
    kept_weight: Tensor
    kept_bias: Tensor
    fed: Tensor
    previous: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, config: WSCLCLConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        d, self.config = config.d, config
        self.vectors = ModalityVectors(streams, config.branch)
        modalities = list(self.vectors.widths)
        self.project = nn.ModuleDict({m: nn.Linear(w, d) for m, w in self.vectors.widths.items()})
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(d * len(modalities), 1)
        self.combinations = list(itertools.combinations(range(len(modalities)), 2))
        C = len(self.combinations)
        bound = 1 / math.sqrt(2 * d)
        self.weight = nn.Parameter(torch.empty(C, 2 * d).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(C))
        state = {
            "kept_weight": torch.zeros(C, 2 * d),  # of the predictors as pre-training left them
            "kept_bias": torch.zeros(C),
            "fed": torch.ones((), dtype=torch.long),  # buckets
            "previous": torch.zeros(()),  # mean loss of the epoch before
            "total": torch.zeros(()),  # of the pairs' losses, in this epoch
            "count": torch.zeros(()),
        }
        for name, value in state.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        return self._scores(self.embedded(streams))

    def embedded(self, streams: Mapping[str, Ragged]) -> Tensor:
        """x of M modalities in the order of MODALITIES: (B, M, d)."""
        found = self.vectors(streams)
        return torch.stack([self.project[m](x) for m, x in found.items()], dim=1)

    def losses(self, batch: Batch) -> Losses:
        """Of an epoch of pre-training."""
        return self._losses(batch, None)

    def epoch(self, number: int) -> Sequence[Pass]:
        """On all pairs or, after pre-training, on the buckets that the last epoch's loss opens."""
        since = number - self.config.pretraining  # the first epoch of the curriculum is 1
        with torch.no_grad():
            now = self.total / self.count.clamp(min=1)
            if since == 1:
                self.kept_weight.copy_(self.weight)
                self.kept_bias.copy_(self.bias)
            elif since > 1:
                config = self.config
                change = float(self.previous - now)
                self.fed.fill_(step(int(self.fed), change, config.buckets, config.threshold))
            self.previous.copy_(now)
            self.total.zero_()
            self.count.zero_()
        return [Pass(partial(self._losses, fed=int(self.fed) if since > 0 else None))]

    def _losses(self, batch: Batch, fed: int | None) -> Losses:
        x = self.embedded(batch.streams)
        terms = {"task": F.smooth_l1_loss(self._scores(x), batch.labels)}
        present = torch.stack([*self.vectors.present(batch.streams).values()], dim=1).to(x.device)
        pairs = self.drawn(present)
        if len(pairs.c) == 0:
            return terms
        goal = targets(pairs, batch.labels)
        each = (self.scores(x, pairs, self.weight, self.bias) - goal).abs()
        with torch.no_grad():
            self.total += each.sum()
            self.count += len(each)
            if fed is not None:
                kept = (self.scores(x, pairs, self.kept_weight, self.kept_bias) - goal).abs()
                config = self.config
                order, bucket = curriculum(kept, each, config.discarded, config.buckets)
        chosen = each if fed is None else each[order[bucket < fed]]
        if len(chosen) == 0:  # a single pair is discarded as the hardest
            return terms
        return {**terms, "correlation": self.config.correlation * chosen.mean()}

    def drawn(self, present: Tensor) -> Pairs:
        """Of every combination each utterance with itself and with k others that are there."""
        B = len(present)
        parts = []
        for c, (m, n) in enumerate(self.combinations):
            k = min(self.config.negatives, B - 1)
            draw = torch.rand(B, B, device=present.device).fill_diagonal_(-1).topk(k, dim=1).indices
            i = torch.arange(B, device=present.device)
            i, j = torch.cat([i, i.repeat_interleave(k)]), torch.cat([i, draw.flatten()])
            there = present[i, m] & present[j, n]
            parts.append((torch.full_like(i, c)[there], i[there], j[there]))
        empty = present.new_zeros(0, dtype=torch.long)
        return Pairs(*(torch.cat(of) for of in zip((empty, empty, empty), *parts, strict=True)))

    def scores(self, x: Tensor, pairs: Pairs, weight: Tensor, bias: Tensor) -> Tensor:
        """Of pairs of vectors (B, M, d), by a predictor a combination (C, 2 d): (n,)."""
        first, second = torch.tensor(self.combinations, device=x.device).T
        both = torch.cat([x[pairs.i, first[pairs.c]], x[pairs.j, second[pairs.c]]], dim=-1)
        return (both * weight[pairs.c]).sum(-1) + bias[pairs.c]

    def _scores(self, x: Tensor) -> Tensor:
        score: Tensor = self.out(self.dropout(x.flatten(1)))
        return score.squeeze(-1)


def targets(pairs: Pairs, labels: Tensor) -> Tensor:
    """How far apart a pair is to be: 0 for one of an utterance, else by its labels, up to 1."""
    apart = (labels[pairs.i] - labels[pairs.j]).abs()
    return torch.where(pairs.i == pairs.j, 0.0, (apart + _NEAREST) / (_RANGE + _NEAREST))


def curriculum(kept: Tensor, now: Tensor, discarded: float, buckets: int) -> tuple[Tensor, Tensor]:
    """Pairs by difficulty, from their losses (n,) under two predictors.

    Gives the indices of those that are not discarded, the easiest first, and the bucket of each.
    """
    order = ((kept + now) / 2).argsort(stable=True)
    left = len(order) - math.ceil(discarded * len(order))
    order = order[:left]
    return order, torch.arange(left, device=order.device) * buckets // max(1, left)


def step(fed: int, fallen: float, buckets: int, threshold: float) -> int:
    """How many buckets are fed next: one more where the loss has fallen, one less where risen."""
    forward = int(fallen > threshold) - int(-fallen > threshold)
    return min(max(fed + forward, 1), buckets)
