"""Baselines of the paper's Table 1 on frozen features: TFN, LMF and MulT.

They differ from CLIP-MSA in the network alone: streams, seeds, loss, schedule and metrics are those
of every run. Each takes all that CLIP-MSA takes, a modality's own and CLIP streams together: as the
means over their rows, side by side (TFN, LMF), or as sequences, one after the other (MulT). Where a
stream has no rows there is a learned vector, as in CLIP-MSA. A modality without streams takes no
part: the tensor has one axis less, and the others attend to one less.

- TFN: Zadeh, Chen, Poria, Cambria, Morency. Tensor Fusion Network for Multimodal Sentiment
  Analysis. EMNLP 2017.
- LMF: Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency. Efficient Low-rank Multimodal Fusion
  with Modality-Specific Factors. ACL 2018.
- MulT: Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov. Multimodal Transformer for Unaligned
  Multimodal Language Sequences. ACL 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .branches import Branch, sinusoidal_positions
from .config import MODALITIES, LMFConfig, MulTConfig, TFNConfig
from .ragged import Padding, Ragged


def _roles(streams: Mapping[str, StreamSpec]) -> dict[str, list[str]]:
    """By modality, of those that have any, the roles of its streams."""
    roles = {m: [role for role in streams if role.startswith(f"{m}/")] for m in MODALITIES}
    return {modality: found for modality, found in roles.items() if found}


# -- pooled: TFN and LMF --------------------------------------------------------------------------


class MeanBranch(Branch):
    """The mean over a stream's rows: MMSA's way with sound and picture for TFN and LMF."""

    def encode(self, stream: Ragged) -> Tensor:
        lengths = stream.lengths[stream.lengths > 0]
        starts = (lengths.cumsum(0) - lengths).to(stream.rows.device)
        every = torch.arange(len(stream.rows), device=stream.rows.device)
        return F.embedding_bag(every, stream.rows, starts, mode="mean")


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
        self.roles = _roles(streams)
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


class TFN(nn.Module):
    """Tensor Fusion Network: the outer product of [z; 1] of all modalities (TFN, Sec. 4.2).

        z_m = [z_text; 1] x [z_audio; 1] x [z_vision; 1]        y' = 6 sigmoid(MLP(z_m)) - 3

    so that the tensor holds each modality, each pair and all three. The output is bounded by the
    labels' range, as the paper and its authors' code have it (Sec. 4.3).
    """

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


class LMF(nn.Module):
    """Low-rank Multimodal Fusion: TFN's tensor and a linear layer on it, never built (Sec. 3.2).

        y' = b + sum_r v_r (w_t^r [z_text; 1]) (w_a^r [z_audio; 1]) (w_v^r [z_vision; 1])

    is linear in the tensor, with a weight tensor of rank `rank`. v_r and b are in the authors' code
    (the paper sums over r with v_r = 1 and no b), and so is that the output is not bounded.
    """

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


# -- sequences: MulT ------------------------------------------------------------------------------


class Sequence(NamedTuple):
    """Rows of a batch side by side: T of each utterance, of which some may be padding."""

    rows: Tensor  # (B, T, width)
    padding: Tensor  # (B, T) bool, True where there is no row
    step: Tensor  # (T,) a row's number in its stream, from 0
    last: Tensor  # (B,) the last place that holds a row


class MulT(nn.Module):
    """Multimodal Transformer: every modality attends to every other one (MulT, Sec. 3).

    For a modality m with others o: Z_{o->m} is a cross-modal Transformer's, queries m, keys and
    values o; the Z_{o->m} side by side go through a Transformer of their own; its last rows, of all
    modalities, h, give y' = Linear(h + Linear(ReLU(Linear(h)))). The output is not bounded.

    A modality's sequence is the rows of its own stream, then those of its CLIP stream, each
    projected to d: the paper's temporal convolution with a kernel of 1, the default of the authors'
    code. An utterance-level stream is a sequence of one. What is learned for a stream without rows
    is one row of width d. Padding is masked, and the last row is an utterance's own: in the
    authors' code neither is, so that a score depends on the batch. Nor is there that code's mask of
    later steps, which the paper does not have, and whose place depends on the padding as well.
    """

    def __init__(self, config: MulTConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        d = config.d
        self.roles = _roles(streams)
        self.dropout = nn.Dropout(config.feature_dropout)
        self.projections = nn.ModuleDict(
            {role: nn.Linear(spec.dim, d, bias=False) for role, spec in streams.items()}
        )
        self.missing = nn.ParameterDict({role: torch.zeros(d) for role in streams})
        self.cross = nn.ModuleDict(
            {
                f"{target}<-{source}": CrossModalTransformer(d, config.layers, config)
                for target in self.roles
                for source in self.roles
                if source != target
            }
        )
        width = d * max(1, len(self.roles) - 1)
        self.own = nn.ModuleDict(
            {
                target: CrossModalTransformer(width, max(config.layers, 3), config)
                for target in self.roles
            }
        )
        width *= len(self.roles)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
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
            last.append(out[torch.arange(len(out), device=out.device), sequence.last])
        h = torch.cat(last, dim=-1)
        score: Tensor = self.out(h + self.layers(h))
        return score.squeeze(-1)

    def _sequence(self, modality: str, streams: Mapping[str, Ragged]) -> Sequence:
        """The streams of a modality, projected, one after the other."""
        parts = [self._projected(role, streams[role]) for role in self.roles[modality]]
        before = sum(part.rows.shape[1] for part in parts[:-1])
        return Sequence(
            torch.cat([part.rows for part in parts], dim=1),
            torch.cat([part.padding for part in parts], dim=1),
            torch.cat([part.step for part in parts]),
            before + parts[-1].last,
        )

    def _projected(self, role: str, stream: Ragged) -> Sequence:
        rows = self.projections[role](self.dropout(stream.rows))
        lengths = stream.lengths.clamp(min=1)
        there = (stream.lengths > 0).repeat_interleave(lengths).to(rows.device)
        filled = self.missing[role].expand(len(there), -1)
        filled = filled.index_put((there.nonzero().squeeze(1),), rows.to(filled.dtype))
        padding = Padding(lengths, rows.device)
        return Sequence(
            padding.pad(filled),
            ~padding.mask,
            torch.arange(padding.T, device=rows.device),
            lengths.to(rows.device) - 1,
        )


class CrossModalTransformer(nn.Module):
    """Layers in which a sequence attends to another one, or to itself (MulT, Sec. 3.1 and 3.2).

        Z^0 = sqrt(d) X + PE        Z^i = layer_i(Z^{i-1}, Z_source^0)        out = Norm(Z^D)

    The factor sqrt(d) and the last norm are in the authors' code, not in the paper.
    """

    def __init__(self, width: int, layers: int, config: MulTConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.embed_dropout)
        self.layers = nn.ModuleList(
            CrossModalLayer(width, config.heads, config.dropout) for _ in range(layers)
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
        x, step = sequence.rows, sequence.step
        positions = sinusoidal_positions(len(step), x.shape[-1], x.device, x.dtype)
        out: Tensor = self.dropout(x.shape[-1] ** 0.5 * x + positions[step])
        return out


class CrossModalLayer(nn.Module):
    """A layer of MulT, normalised before each part.

        z = x + MultiHead(Norm(x), Norm(memory), Norm(memory))        z + FFN(Norm'(z))

    With the authors' code: a residual is what was not normalised (in the paper, what was), target
    and memory share one norm, and the FFN is four times as wide as its ends.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
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
