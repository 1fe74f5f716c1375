"""The first thing that every network does: centre and scale its inputs by the training split.

Encoders give what they give: CLIP's vectors lie in a narrow cone, VGG's after its ReLU are sparse
and positive, and a stream may vary by 1e-4 around 0.02. BatchNorm after a projection mends that for
vectors; nothing mends it for sequences before an LSTM or a Transformer, which then learn nothing.
So every dimension of every stream is centred and scaled by its mean and deviation over the rows of
the training utterances. The paper says nothing of it: `normalise=none` is its literal reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .ragged import Ragged

# A dimension whose deviation is less than this share of its mean counts as constant: two runs of an
# encoder agree to 1e-5, so what is smaller is rounding.
_SMALLEST = 1e-5


class Moments(NamedTuple):
    """Of a stream's rows: of each dimension, (D,) float64, mean and deviation."""

    mean: Tensor
    deviation: Tensor  # the population's


def moments(blocks: Iterable[Tensor], dim: int) -> Moments:
    """Moments of rows that come in blocks (n, D), in float64, one pass and flat memory.

    Blocks are joined as Chan, Golub and LeVeque (1983) do it: a sum of squares would lose what
    varies where the mean is much larger.
    """
    count, mean, squares = 0, torch.zeros(dim).double(), torch.zeros(dim).double()
    for block in blocks:
        n = len(block)
        if n == 0:
            continue
        x = block.double()
        centre = x.mean(0)
        x -= centre
        shift = centre.cpu() - mean
        squares += x.square_().sum(0).cpu() + shift.square() * (count * n / (count + n))
        mean += shift * (n / (count + n))
        count += n
    return Moments(mean, (squares / max(1, count)).sqrt())


class Standardise(nn.Module):
    """(x - mean) / deviation of each dimension of each stream, by the rows of split train.

    A dimension that does not vary there gives 0, and so does every dimension of a stream without
    rows there. Mean and scale are buffers: they are in the network's checkpoint, and never learnt.
    """

    def __init__(self, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict({role: _Affine(spec.dim) for role, spec in streams.items()})

    def fit(self, role: str, of: Moments) -> None:
        """Take over the moments of a stream's training rows."""
        varies = of.deviation > _SMALLEST * of.mean.abs()
        affine = self.streams[role]
        assert isinstance(affine, _Affine)
        affine.mean.copy_(of.mean)
        affine.scale.copy_(torch.where(varies, 1 / of.deviation, 0.0))

    def forward(self, streams: Mapping[str, Ragged]) -> dict[str, Ragged]:
        """Streams by role, of one batch -> the same, standardised."""
        return {
            role: Ragged(affine(streams[role].rows), streams[role].lengths)
            for role, affine in self.streams.items()
        }


class _Affine(nn.Module):
    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self, rows: Tensor) -> Tensor:
        return (rows - self.mean).mul_(self.scale)
