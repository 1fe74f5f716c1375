"""MulT: sequences of which each attends to each other one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .network import (
    CHECKED,
    Dropout,
    Heads,
    Layers,
    Network,
    NetworkConfig,
    Width,
    check_heads,
    roles_by_modality,
)
from .ragged import Padding, Ragged


class Sequence(NamedTuple):
    """Rows of a batch side by side: T of each utterance, of which some may be padding."""

    rows: Tensor  # (B, T, width)
    padding: Tensor  # (B, T) bool, True where there is no row
    step: Tensor  # (T,) a row's number in its stream, from 0
    last: Tensor  # (B, S) the place of the last row of each of S streams


@dataclass(frozen=True, config=CHECKED)
class MulTConfig(NetworkConfig):
    """Multimodal Transformer; sizes and rates of its authors' code."""

    network: str = "mult"
    d: Width = 30  # width of a modality's rows; twice that where two modalities' are joined
    heads: Heads = 5
    layers: Layers = 5  # of a cross-modal Transformer, and, but at least 3, of one over its own
    dropout: Dropout = 0.1  # of the hidden layers, and of what is added to a row
    attention_dropout: Dropout = 0.1  # of weights on text's rows and on a modality's own, not on
    # those of sound and picture to another modality: so the authors' defaults have it
    embed_dropout: Dropout = 0.25  # of the rows that go into a Transformer
    feature_dropout: Dropout = 0.25  # of text's frozen features alone, before they are projected
    output_dropout: Dropout = 0.0  # between the two layers of the output

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.d, self.heads)


class MulT(Network):
    """Multimodal Transformer: every modality attends to every other one (MulT, Sec. 3).

    For a modality m with others o: Z_{o->m} is a cross-modal Transformer's, queries m, keys and
    values o; the Z_{o->m} side by side go through a Transformer of their own; its last rows, of all
    modalities, h, give y' = Linear(h + Linear(ReLU(Linear(h)))). The output is not bounded.

    A modality's sequence is the rows of its own stream, then those of its CLIP stream, each
    projected to d: the paper's temporal convolution with a kernel of 1, the default of the authors'
    code. The last rows of the two are averaged: by the last alone, a label that was planted in the
    first stream was learnt worse than in the second. An utterance-level stream is a sequence of
    one. What is learned for a stream without rows is one row of width d. Padding is masked, and the
    last row is an utterance's own: in the authors' code neither is, so that a score depends on the
    batch. Nor is there that code's mask of later steps, which the paper does not have, and whose
    place depends on the padding as well. Positions and dropouts are those of the authors' code
    (MMSA's port of it has no positions).
    """

    Config = MulTConfig

    def __init__(self, config: MulTConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        d = config.d
        self.roles = roles_by_modality(streams)
        self.text_dropout = nn.Dropout(config.feature_dropout)
        self.projections = nn.ModuleDict(
            {role: nn.Linear(spec.dim, d, bias=False) for role, spec in streams.items()}
        )
        self.missing = nn.ParameterDict({role: torch.zeros(d) for role in streams})
        self.cross = nn.ModuleDict(
            {
                f"{target}<-{source}": CrossModalTransformer(
                    d, config.layers, config, config.attention_dropout if source == "text" else 0.0
                )
                for target in self.roles
                for source in self.roles
                if source != target
            }
        )
        width = d * max(1, len(self.roles) - 1)
        self.own = nn.ModuleDict(
            {
                target: CrossModalTransformer(
                    width, max(config.layers, 3), config, config.attention_dropout
                )
                for target in self.roles
            }
        )
        width *= len(self.roles)
        self.layers = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(config.output_dropout),
            nn.Linear(width, width),
        )
        self.out = nn.Linear(width, 1)

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        sequences = {modality: self._sequence(modality, streams) for modality in self.roles}
        last = []
        for target, sequence in sequences.items():
            attended = [
                self.cross[f"{target}<-{source}"](sequence, other)
                for source, other in sequences.items()
                if source != target
            ]
            joined = torch.cat(attended, dim=-1) if attended else sequence.rows
            out = self.own[target](sequence._replace(rows=joined))
            utterance = torch.arange(len(out), device=out.device)
            last.append(out[utterance[:, None], sequence.last].mean(dim=1))
        h = torch.cat(last, dim=-1)
        score: Tensor = self.out(h + self.layers(h))
        return score.squeeze(-1)

    def _sequence(self, modality: str, streams: Mapping[str, Ragged]) -> Sequence:
        """The streams of a modality, projected, one after the other."""
        parts = [self._projected(role, streams[role]) for role in self.roles[modality]]
        starts = itertools.accumulate((len(part.step) for part in parts[:-1]), initial=0)
        last = [start + part.last for start, part in zip(starts, parts, strict=True)]
        return Sequence(
            torch.cat([part.rows for part in parts], dim=1),
            torch.cat([part.padding for part in parts], dim=1),
            torch.cat([part.step for part in parts]),
            torch.cat(last, dim=1),
        )

    def _projected(self, role: str, stream: Ragged) -> Sequence:
        rows = self.text_dropout(stream.rows) if role.startswith("text/") else stream.rows
        rows = self.projections[role](rows)
        lengths = stream.lengths.clamp(min=1)
        there = (stream.lengths > 0).repeat_interleave(lengths).to(rows.device)
        filled = self.missing[role].expand(len(there), -1)
        filled = filled.index_put((there.nonzero().squeeze(1),), rows.to(filled.dtype))
        padding = Padding(lengths, rows.device)
        return Sequence(
            padding.pad(filled),
            ~padding.mask,
            torch.arange(padding.T, device=rows.device),
            lengths[:, None].to(rows.device) - 1,
        )


class CrossModalTransformer(nn.Module):
    """Layers in which a sequence attends to another one, or to itself (MulT, Sec. 3.1 and 3.2).

        Z^0 = sqrt(d) X + PE        Z^i = layer_i(Z^{i-1}, Z_source^0)        out = Norm(Z^D)

    The factor sqrt(d) and the last norm are in the authors' code, not in the paper.
    """

    def __init__(
        self, width: int, layers: int, config: MulTConfig, attention_dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.embed_dropout)
        self.layers = nn.ModuleList(
            CrossModalLayer(width, config.heads, config.dropout, attention_dropout)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, target: Sequence, source: Sequence | None = None) -> Tensor:
        """(B, T, width) and, but for self-attention, (B, T', width) -> (B, T, width)."""
        x = self._embedded(target)
        memory = None if source is None else self._embedded(source)
        padding = (source or target).padding
        for layer in self.layers:
            x = layer(x, memory, padding)
        out: Tensor = self.norm(x)
        return out

    def _embedded(self, sequence: Sequence) -> Tensor:
        x = sequence.rows
        positions = authors_positions(sequence.step, x.shape[-1]).to(x.dtype)
        out: Tensor = self.dropout(x.shape[-1] ** 0.5 * x + positions)
        return out


class CrossModalLayer(nn.Module):
    """A layer of MulT, normalised before each part.

        z = x + MultiHead(Norm(x), Norm(memory), Norm(memory))        z + FFN(Norm'(z))

    With the authors' code: a residual is what was not normalised (in the paper, what was), target
    and memory share one norm, and the FFN is four times as wide as its ends.
    """

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, attention_dropout, batch_first=True)
        self.norm = nn.LayerNorm(width)
        inner, outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.ffn = nn.Sequential(inner, nn.ReLU(), nn.Dropout(dropout), outer)
        self.norm_ffn = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.attention.out_proj, inner, outer):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, memory: Tensor | None, padding: Tensor) -> Tensor:
        """(B, T, width), what is attended to (B, T', width) and its padding -> (B, T, width)."""
        query = self.norm(x)
        key = query if memory is None else self.norm(memory)
        h, _ = self.attention(query, key, key, key_padding_mask=padding, need_weights=False)
        x = x + self.dropout(h)
        out: Tensor = x + self.dropout(self.ffn(self.norm_ffn(x)))
        return out


def authors_positions(step: Tensor, width: int) -> Tensor:
    """PE of the authors' code at steps (T,), which count from 0: (T, width).

    It is fairseq's table: sines in one half and cosines in the other, where Vaswani et al. (2017)
    have them in turns, at rates 10000^(-i / (width/2 - 1)), and the first step is number 1.
    """
    half = width // 2
    rates = torch.arange(half, device=step.device) * (-math.log(10000.0) / max(1, half - 1))
    angle = (step[:, None] + 1) * rates.exp()
    positions = torch.cat([angle.sin(), angle.cos()], dim=1)
    return torch.nn.functional.pad(positions, (0, width % 2))
