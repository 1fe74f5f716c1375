"""From one stored stream to one vector per utterance: the branches of Sec. 2.2.

An utterance-level stream is taken as it is. A sequence goes through a temporal layer: the own
branch through a Transformer (F_v^trans), the CLIP branch through an sLSTM (F_v^clip). Where the
modality is missing, every branch gives a learned vector.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ragged import Padding, Ragged

Temporal = Literal["slstm", "stacked-bilstm"]


class Branch(nn.Module):
    """A stream's vector per utterance, (B, out_dim); a learned vector where there are no rows."""

    def __init__(self, out_dim: int) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.missing = nn.Parameter(torch.zeros(out_dim))

    def forward(self, stream: Ragged) -> Tensor:
        present = stream.present
        out = self.missing.expand(len(stream.lengths), -1)
        if len(present) == 0:
            return out
        return out.index_put((present,), self.encode(stream).to(out.dtype))

    def encode(self, stream: Ragged) -> Tensor:
        """The vectors of the utterances that have rows, (P, out_dim)."""
        raise NotImplementedError


class VectorBranch(Branch):
    """An utterance-level stream: F_t^albert, F_t^clip, F_a^wav2vec, ESResNeXt's vector."""

    def encode(self, stream: Ragged) -> Tensor:
        return stream.rows


class MeanBranch(Branch):
    """The mean over a stream's rows: MMSA's way with sound and picture for TFN and LMF."""

    def encode(self, stream: Ragged) -> Tensor:
        lengths = stream.lengths[stream.lengths > 0]
        starts = (lengths.cumsum(0) - lengths).to(stream.rows.device)
        every = torch.arange(len(stream.rows), device=stream.rows.device)
        return F.embedding_bag(every, stream.rows, starts, mode="mean")


class SLSTM(Branch):
    """F_v^clip: "single directional LSTM", last valid hidden state (Sec. 2.2.3).

    The paper takes the term over from Self-MM (Yu et al. 2021): one layer, one direction, and the
    hidden state at each utterance's own last step. (Not xLSTM's sLSTM, which is later.)
    """

    def __init__(self, in_dim: int, d: int) -> None:
        super().__init__(d)
        self.lstm = nn.LSTM(in_dim, d)

    def encode(self, stream: Ragged) -> Tensor:
        _, (h_n, _) = self.lstm(stream.pack())
        last: Tensor = h_n.squeeze(0)
        return last


class StackedBiLSTM(Branch):
    """The other reading of sLSTM, MISA's (Hazarika et al. 2020): two bidirectional layers.

    Layer normalisation stands between the layers; the vector is the last hidden state of both
    layers and both directions, projected to d (MISA leaves it at four times the hidden size).
    """

    def __init__(self, in_dim: int, d: int) -> None:
        super().__init__(d)
        self.first = nn.LSTM(in_dim, d, bidirectional=True)
        self.norm = nn.LayerNorm(2 * d)
        self.second = nn.LSTM(2 * d, d, bidirectional=True)
        self.project = nn.Linear(4 * d, d)

    def encode(self, stream: Ragged) -> Tensor:
        packed = stream.pack()
        states, (h_first, _) = self.first(packed)
        _, (h_second, _) = self.second(states._replace(data=self.norm(states.data)))
        last = torch.cat([h_first, h_second]).transpose(0, 1).flatten(1)  # (P, 4 d)
        out: Tensor = self.project(last)
        return out


class FrameTransformer(Branch):
    """F_v^trans: Linear, positions, Transformer encoder, mean over valid frames (Sec. 2.2.3)."""

    def __init__(
        self, in_dim: int, d: int, heads: int, layers: int, d_ff: int, dropout: float
    ) -> None:
        super().__init__(d)
        self.project = nn.Linear(in_dim, d)
        self.layers = nn.ModuleList(
            TransformerLayer(d, heads, d_ff, dropout) for _ in range(layers)
        )

    def encode(self, stream: Ragged) -> Tensor:
        lengths = stream.lengths[stream.lengths > 0]
        padding = Padding(lengths, stream.rows.device)
        x = self.project(stream.rows)
        positions = sinusoidal_positions(padding.T, x.shape[1], x.device, x.dtype)
        x = x + positions.index_select(0, padding.step)
        for layer in self.layers:
            x = layer(x, padding)
        return padding.pad(x).sum(dim=1) / lengths[:, None].to(x.device)


class TransformerLayer(nn.Module):
    """An encoder layer of Vaswani et al. (2017), Sec. 3.1, over utterances of any length.

        z = Norm(x + MultiHead(x, x, x))        Norm(z + FFN(z))

    Rows are padded for the attention alone; all else runs on the rows that there are, about half
    of what torch's layer computes on padded batches. Dropout is on the two sums.
    """

    def __init__(self, d: int, heads: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.norm_attention = nn.LayerNorm(d)
        self.ffn = nn.Sequential(nn.Linear(d, d_ff), nn.ReLU(), nn.Linear(d_ff, d))
        self.norm_ffn = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        """Rows (N, d) of utterances that lie as `padding` says -> (N, d)."""
        z = self.norm_attention(x + self.dropout(self.out(self._attention(x, padding))))
        out: Tensor = self.norm_ffn(z + self.dropout(self.ffn(z)))
        return out

    def _attention(self, x: Tensor, padding: Padding) -> Tensor:
        """The heads' outputs side by side, (N, d)."""
        qkv = padding.pad(self.qkv(x)).view(padding.P, padding.T, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (P, heads, T, d_h) each
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=padding.mask[:, None, None, :])
        return padding.unpad(heads.transpose(1, 2).flatten(2))


def sinusoidal_positions(
    T: int, d: int, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """The positions of Vaswani et al. (2017), Sec. 3.5: (T, d), for any T."""
    half = torch.arange(0, d, 2, device=device, dtype=torch.float32)
    time = torch.arange(T, device=device, dtype=torch.float32)
    angle = time[:, None] * torch.exp(half * (-math.log(10000.0) / d))
    positions = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :d]
    return positions.to(dtype or torch.float32)
