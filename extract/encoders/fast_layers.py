"""Frozen networks made quicker without changing what they compute, but for float rounding.

None of this is in a stream's fingerprint: each piece stays within 1e-5 of the network as published
(relative, tested against float64), as do the other freedoms of a device's own kernels. Parameters
keep their names, so that a digest of the weights does not depend on it either.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def for_inference(network: Network) -> Network:
    """Fold batch norms into the convolutions before them, and lay weights out channels_last.

    Only for networks in which every batch norm directly follows the convolution that was
    registered before it, as in ResNets: the caller vouches for that. Changes `network` in place;
    outputs stay within float rounding.
    """
    _fold(network.eval())
    return network.to(memory_format=torch.channels_last)


def _fold(module: nn.Module) -> None:
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if type(child) is nn.BatchNorm2d and before and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, nn.Identity())
        else:
            _fold(child)
        before = name, child


class InPieces(nn.Sequential):
    """Layers that take a batch a few pictures at a time, and give the rows of all of them.

    On a CPU the activations of a large batch fall out of the cache, and their memory is fetched
    from the kernel and zeroed anew for every layer.
    """

    def __init__(self, layers: nn.Sequential, size: int) -> None:
        super().__init__(*layers)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        layers = super().forward
        return torch.cat([layers(piece) for piece in x.split(self.size)])  # type: ignore[no-untyped-call]


class OneQueryAttention(nn.Module):
    """CLIP's attention pooling, of which one token's output is used, computed for that token alone.

    With one query q a head, the scores are q W_k x_j = (W_k' q) x_j, and the output is
    W_v (sum_j a_j x_j) + b_v, so neither keys nor values of the 50 tokens are needed; the keys'
    bias adds the same to every score. Takes its parameters from open_clip's AttentionPool2d.
    """

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.positional_embedding = pool.positional_embedding  # (1 + H W, C)
        self.q_proj, self.k_proj, self.v_proj = pool.q_proj, pool.k_proj, pool.v_proj
        self.c_proj, self.heads = pool.c_proj, pool.num_heads

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, H, W) to (N, output dim)."""
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positional_embedding  # (N, T, C)
        heads, (N, _, C) = self.heads, x.shape
        q = self.q_proj(x[:, 0]).view(N, heads, -1)  # (N, heads, d)
        q = q * q.shape[-1] ** -0.5
        W_k, W_v = (p.weight.view(heads, -1, C) for p in (self.k_proj, self.v_proj))
        probes = torch.einsum("nhd,hdc->nhc", q, W_k)
        mixed = (probes @ x.transpose(1, 2)).softmax(-1) @ x  # (N, heads, C)
        values = torch.einsum("nhc,hdc->nhd", mixed, W_v).flatten(1) + self.v_proj.bias
        pooled: Tensor = self.c_proj(values)
        return pooled


# F(4 x 4, 3 x 3) of Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016):
# 4 outputs of a 3-tap filter from 6 inputs d, as A' ((G g) * (B' d)), in 6 products for 12.
_B = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_G = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]  # / 24
_A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
_TILE, _STEP = 6, 4
# Transformed tiles of so many bytes at a time stay in the last cache of a server's core or two.
_TRANSFORMED_BYTES = 16 << 20


class WinogradConv2d(nn.Module):
    """A 3 x 3 convolution of stride 1 and padding 1 with a quarter of the multiplications.

    Pays on CPUs from 128 channels on; cuDNN chooses such algorithms by itself.
    """

    kernels: Tensor
    B: Tensor
    A: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        B, G, A = (torch.tensor(m, dtype=torch.float64) for m in (_B, _G, _A))
        # (36, in, out): per place in a tile, a matrix over channels.
        kernels = torch.einsum("ai,kcij,bj->abck", G / 24, conv.weight.detach().double(), G / 24)
        self.register_buffer("kernels", kernels.flatten(0, 1).float(), persistent=False)
        # The transforms of rows and columns as one matrix each, (36, 36) and (16, 36).
        self.register_buffer("B", torch.kron(B, B).float(), persistent=False)
        self.register_buffer("A", torch.kron(A, A).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W), channels_last."""
        N, C, H, W = x.shape
        rows, columns, K = -(-H // _STEP), -(-W // _STEP), self.kernels.shape[2]
        out = x.new_empty(N, rows * _STEP, columns * _STEP, K)
        one = self.kernels.shape[0] * rows * columns * (2 * C + K) * x.element_size()
        for start in range(0, N, size := max(1, _TRANSFORMED_BYTES // one)):
            self._some(x[start : start + size], _tiles(out[start : start + size], _STEP))
        if self.bias is not None:
            out += self.bias
        return out[:, :H, :W].permute(0, 3, 1, 2)

    def _some(self, x: Tensor, out: Tensor) -> None:
        """Write the tiles of some pictures' output."""
        H, W = x.shape[2:]
        rows, columns, K = out.shape[3], out.shape[4], out.shape[5]
        margins = (0, 0, 1, columns * _STEP + 1 - W, 1, rows * _STEP + 1 - H)
        padded = F.pad(x.permute(0, 2, 3, 1).contiguous(), margins)  # (N, H, W, in)
        tiles = _tiles(padded, _TILE).reshape(_TILE * _TILE, -1)
        spread = (self.B @ tiles).view(_TILE * _TILE, -1, x.shape[1])
        products = torch.bmm(spread, self.kernels).view(_TILE * _TILE, -1)
        out.copy_((self.A @ products).view(_STEP, _STEP, len(x), rows, columns, K))


def _tiles(pictures: Tensor, side: int) -> Tensor:
    """(side, side, N, rows, columns, C): views of tiles that begin every 4 pixels of (N, H, W, C).

    >>> _tiles(torch.arange(6 * 10.0).view(1, 6, 10, 1), 6)[0, 1, 0, 0, :, 0]
    tensor([1., 5.])
    """
    windows = pictures.unfold(1, side, _STEP).unfold(2, side, _STEP)  # (N, rows, columns, C, 6, 6)
    return windows.permute(4, 5, 0, 1, 2, 3)


def with_winograd(module: Network, *, least_channels: int = 128) -> Network:
    """Replace the convolutions that `WinogradConv2d` computes and makes quicker, in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d) and _suits(child, least_channels):
            setattr(module, name, WinogradConv2d(child))
        else:
            with_winograd(child, least_channels=least_channels)
    return module


def _suits(conv: nn.Conv2d, least_channels: int) -> bool:
    return (
        conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.padding == (1, 1)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.in_channels >= least_channels
    )
