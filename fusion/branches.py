"""From one stored stream to one vector per utterance: the branches of Sec. 2.2.

An utterance-level stream is taken as it is. A sequence goes through a temporal layer: the own
branch through a Transformer (F_v^trans), the CLIP branch through an sLSTM (F_v^clip). Where the
modality is missing, every branch gives a learned vector.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from .ragged import Ragged

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


class SLSTM(Branch):
    """F_v^clip: "single directional LSTM", last valid hidden state (Sec. 2.2.3).

    The paper takes the term over from Self-MM (Yu et al. 2021): one layer, one direction, and the
    hidden state at each utterance's own last step. (Not xLSTM's sLSTM, which is later.)
    """

    def __init__(self, in_dim: int, d: int) -> None:
        super().__init__(d)
        self.lstm = nn.LSTM(in_dim, d)

    def encode(self, stream: Ragged) -> Tensor:
        _, (h_n, _) = self.lstm(pack_sequence(list(stream.split()), enforce_sorted=False))
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
        packed = pack_sequence(list(stream.split()), enforce_sorted=False)
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
        layer = nn.TransformerEncoderLayer(d, heads, d_ff, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def encode(self, stream: Ragged) -> Tensor:
        # Projected before it is padded: the stored frames are 32 times wider than d.
        x, mask = Ragged(self.project(stream.rows), stream.lengths).pad()
        x = x + sinusoidal_positions(x.shape[1], x.shape[2], x.device, x.dtype)
        x = self.encoder(x, src_key_padding_mask=~mask)
        x = x.masked_fill(~mask[..., None], 0.0)
        mean: Tensor = x.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return mean


def sinusoidal_positions(
    T: int, d: int, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """The positions of Vaswani et al. (2017), Sec. 3.5: (T, d), for any T."""
    half = torch.arange(0, d, 2, device=device, dtype=torch.float32)
    time = torch.arange(T, device=device, dtype=torch.float32)
    angle = time[:, None] * torch.exp(half * (-math.log(10000.0) / d))
    positions = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :d]
    return positions.to(dtype or torch.float32)
