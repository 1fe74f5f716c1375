"""Hierarchical co-attention fusion (paper, Sec. 2.3): CT unit, fusion stage, hierarchy.

Symbols, as in the paper: d is the width of a modality's representation, m the number of heads,
d_h = d / m the width of a head. The paper gives W_i^Q, W_i^K, W_i^V in R^{1 x d_h}, so each of the
d elements of a representation is a token of width 1, and attention is d x d per head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Residual = Literal["gated", "additive"]


class CoAttentionMap(NamedTuple):
    """One CT unit at one utterance: how the elements of x_1 attend to those of x_2 (Sec. 2.3.1).

    `weights` is softmax_q(a_i x_1p x_2q) of head i: its rows p, the elements of the modality that
    asks, sum to 1 over q, the elements of the one that is asked. `scales` is b_i of each head, so
    that h_p = sum_i scales_i sum_q weights_ipq x_2q.
    """

    asking: str  # x_1, such as "audio", or "audio+vision" for F_av
    asked: str  # x_2
    x_1: Tensor  # (d,)
    x_2: Tensor  # (d,)
    weights: Tensor  # (m, d, d)
    scales: Tensor  # (m,)


class CoAttentionUnit(nn.Module):
    """A CT unit: F_{1<-2}, modality 1 seen through modality 2 (Sec. 2.3.1).

    With x_1, x_2 in R^d read as d tokens of width 1:

        h_i      = Softmax((x_1 W_i^Q)(x_2 W_i^K)^T / sqrt(d_h)) x_2 W_i^V       (d x d_h)
        h        = (h_1; ...; h_m) W^O                                           (d x 1)
        z        = Norm(x_1 + h x_1)
        F_{1<-2} = Norm(z + FFN(z))

    "h x_1" is read elementwise, a gate on x_1 (`residual="gated"`); `"additive"` is x_1 + h.
    Norm is layer normalisation, FFN is Linear(d, d_ff), ReLU, Linear(d_ff, d).
    """

    def __init__(
        self,
        d: int,
        heads: int,
        d_ff: int,
        residual: Residual = "gated",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if d % heads:
            raise ValueError(f"d = {d} must be a multiple of heads = {heads}, since d_h = d / m")
        if residual not in ("gated", "additive"):
            raise ValueError(f"residual must be 'gated' or 'additive', got '{residual}'")
        self.d, self.heads, self.residual = d, heads, residual
        d_h = d // heads
        self.W_Q = nn.Parameter(torch.empty(heads, d_h))
        self.W_K = nn.Parameter(torch.empty(heads, d_h))
        self.W_V = nn.Parameter(torch.empty(heads, d_h))
        self.W_O = nn.Parameter(torch.empty(heads, d_h))
        self.norm_attention = nn.LayerNorm(d)
        self.ffn = nn.Sequential(
            nn.Linear(d, d_ff), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_ff, d)
        )
        self.norm_ffn = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As torch initialises nn.Linear: uniform within 1 / sqrt(fan_in).

        A token has width 1, so fan_in is 1 for W_Q, W_K, W_V and m d_h = d for W_O.
        """
        for weight in (self.W_Q, self.W_K, self.W_V):
            nn.init.uniform_(weight, -1.0, 1.0)
        nn.init.uniform_(self.W_O, -(self.d**-0.5), self.d**-0.5)

    def attention(self, x1: Tensor, x2: Tensor) -> Tensor:
        """h of the equations above: (B, d), (B, d) -> (B, d), exact, in collapsed form.

        Tokens have width 1, so the d_h columns of a head enter through two scalars only,

            a_i = <W_i^Q, W_i^K> / sqrt(d_h)        b_i = <W_i^V, W_i^O>

            h_p = sum_i b_i E_{q ~ softmax(a_i x_1p x_2)}[x_2q]

        which is attention with tokens of width 1, and d_h times less work than as printed. All
        heads share their keys and values, so their m d queries go through one attention: three
        quarters of the time of m separate ones.
        """
        a, b = self.scalars()
        B, d = x1.shape
        query = (x1[:, :, None] * a).view(B, 1, d * self.heads, 1)
        key = x2[:, None, :, None]  # (B, 1, d, 1), the values too
        expectation = F.scaled_dot_product_attention(query, key, key, scale=1.0)
        return expectation.view(B, d, self.heads) @ b

    def scalars(self) -> tuple[Tensor, Tensor]:
        """a_i and b_i of every head, (m,) each, as `attention` has them."""
        a = (self.W_Q * self.W_K).sum(-1) * self.W_Q.shape[1] ** -0.5
        return a, (self.W_V * self.W_O).sum(-1)

    def map(self, asking: str, asked: str, x1: Tensor, x2: Tensor) -> CoAttentionMap:
        """The attention of one utterance as printed in the paper; x1 and x2 are (1, d)."""
        a, b = self.scalars()
        p, q = x1[0], x2[0]
        weights = torch.softmax(a[:, None, None] * p[:, None] * q, dim=-1)
        return CoAttentionMap(asking, asked, p.cpu(), q.cpu(), weights.cpu(), b.cpu())

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """F_{1<-2}: (B, d) queries x1, (B, d) keys and values x2 -> (B, d)."""
        h = self.dropout(self.attention(x1, x2))
        z = self.norm_attention(x1 + h * x1 if self.residual == "gated" else x1 + h)
        out: Tensor = self.norm_ffn(z + self.dropout(self.ffn(z)))
        return out


class CoAttentionStage(nn.Module):
    """One stage of fusion: two CT units, F_12 = Linear([F_{1<-2}; F_{2<-1}]) (Sec. 2.3.1)."""

    def __init__(
        self, d: int, heads: int, d_ff: int, residual: Residual, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.unit_12 = CoAttentionUnit(d, heads, d_ff, residual, dropout)
        self.unit_21 = CoAttentionUnit(d, heads, d_ff, residual, dropout)
        self.linear = nn.Linear(2 * d, d)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(B, d), (B, d) -> F_12 (B, d)."""
        f_12: Tensor = self.linear(torch.cat([self.unit_12(x1, x2), self.unit_21(x2, x1)], dim=-1))
        return f_12


class HierarchicalFusion(nn.Module):
    """F_m: the first two modalities of `order` meet, then the third joins (Sec. 2.3.2).

    The paper's order is (audio, vision, text): F_av from F_a and F_v, F_m from F_av and F_t.
    """

    def __init__(
        self,
        order: Sequence[str],
        d: int,
        heads: int,
        d_ff: int,
        residual: Residual,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.order = tuple(order)
        self.stages = nn.ModuleList(
            CoAttentionStage(d, heads, d_ff, residual, dropout) for _ in self.order[1:]
        )

    def forward(self, modalities: Mapping[str, Tensor]) -> Tensor:
        """F_t, F_a, F_v by modality, (B, d) each -> F_m (B, d)."""
        fused = modalities[self.order[0]]
        for stage, modality in zip(self.stages, self.order[1:], strict=True):
            fused = stage(fused, modalities[modality])
        return fused

    def maps(self, modalities: Mapping[str, Tensor]) -> list[CoAttentionMap]:
        """What attends to what at one utterance, (1, d) by modality: two maps a stage."""
        name, fused = self.order[0], modalities[self.order[0]]
        maps = []
        for stage, modality in zip(self.stages, self.order[1:], strict=True):
            assert isinstance(stage, CoAttentionStage)
            other = modalities[modality]
            maps.append(stage.unit_12.map(name, modality, fused, other))
            maps.append(stage.unit_21.map(modality, name, other, fused))
            name, fused = f"{name}+{modality}", stage(fused, other)
        return maps


class Concatenation(nn.Module):
    """F_m = [F_t; F_a; F_v], the fusion of the paper's "w/o Co-Attn" (Table 2)."""

    def __init__(self, order: Sequence[str]) -> None:
        super().__init__()
        self.order = tuple(order)

    def forward(self, modalities: Mapping[str, Tensor]) -> Tensor:
        """F_t, F_a, F_v by modality, (B, d) each -> (B, 3 d)."""
        return torch.cat([modalities[modality] for modality in self.order], dim=-1)
