"""The CT unit against a plain transcription of the paper's equations, in float64 (Sec. 2.3.1)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipmsa.fusion import CoAttentionUnit
from clipmsa.fusion.networks.coattention import CoAttentionStage, HierarchicalFusion


def h_as_printed(unit: CoAttentionUnit, x1: Tensor, x2: Tensor) -> Tensor:
    """h = (h_1; ...; h_m) W^O with X_1, X_2 in R^{d x 1}, one sample at a time, as printed."""
    m, d_h = unit.W_Q.shape
    rows = []
    for X_1, X_2 in zip(x1[..., None], x2[..., None], strict=True):  # (d, 1)
        heads = []
        for i in range(m):
            W_Q, W_K, W_V = (W[i : i + 1] for W in (unit.W_Q, unit.W_K, unit.W_V))  # (1, d_h)
            scores = (X_1 @ W_Q) @ (X_2 @ W_K).T / d_h**0.5  # (d, d)
            heads.append(torch.softmax(scores, dim=-1) @ (X_2 @ W_V))  # (d, d_h)
        W_O = unit.W_O.reshape(m * d_h, 1)
        rows.append((torch.cat(heads, dim=1) @ W_O).squeeze(1))  # (d,)
    return torch.stack(rows)


def f_as_printed(unit: CoAttentionUnit, x1: Tensor, x2: Tensor) -> Tensor:
    """F_{1<-2} = Norm(Norm(X_1 + hX_1) + FFN(Norm(X_1 + hX_1)))."""

    def norm(x: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
        return centred / scale * layer.weight + layer.bias

    h = h_as_printed(unit, x1, x2)
    z = norm(x1 + (h * x1 if unit.residual == "gated" else h), unit.norm_attention)
    weights = dict(unit.ffn.named_parameters())
    inner = torch.relu(z @ weights["0.weight"].T + weights["0.bias"])
    ffn = inner @ weights["3.weight"].T + weights["3.bias"]
    return norm(z + ffn, unit.norm_ffn)


def double_unit(d: int, heads: int, residual: Any = "gated", seed: int = 0) -> CoAttentionUnit:
    torch.manual_seed(seed)
    unit = CoAttentionUnit(d, heads, 2 * d, residual).double()
    for parameter in unit.parameters():  # so that norms and biases are not at 1 and 0
        parameter.data += 0.3 * torch.randn_like(parameter)
    return unit


def double_inputs(d: int, batch: int = 5) -> tuple[Tensor, Tensor]:
    x1, x2 = torch.randn(2, batch, d, dtype=torch.float64).mul(1.5).unbind()
    return x1.requires_grad_(), x2.requires_grad_()


SIZES = st.sampled_from([(8, 2), (12, 3), (16, 16), (16, 1), (24, 4), (128, 8)])


@settings(deadline=None, max_examples=25)
@given(size=SIZES, seed=st.integers(0, 2**20), residual=st.sampled_from(["gated", "additive"]))
def test_the_collapsed_form_is_the_printed_one(size, seed, residual):
    d, heads = size
    unit = double_unit(d, heads, residual, seed)
    x1, x2 = double_inputs(d)
    torch.testing.assert_close(
        unit.attention(x1, x2), h_as_printed(unit, x1, x2), atol=1e-10, rtol=0
    )
    torch.testing.assert_close(unit(x1, x2), f_as_printed(unit, x1, x2), atol=1e-10, rtol=0)


@settings(deadline=None, max_examples=15)
@given(size=SIZES, seed=st.integers(0, 2**20))
def test_gradients_of_the_collapsed_form_are_those_of_the_printed_one(size, seed):
    d, heads = size
    unit = double_unit(d, heads, seed=seed)
    x1, x2 = double_inputs(d)
    wrt = [x1, x2, *unit.parameters()]
    weights = torch.randn_like(x1)
    ours = torch.autograd.grad((unit(x1, x2) * weights).sum(), wrt)
    theirs = torch.autograd.grad((f_as_printed(unit, x1, x2) * weights).sum(), wrt)
    for mine, printed in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, printed, atol=1e-10, rtol=1e-10)


def test_gradients_agree_with_finite_differences():
    unit = double_unit(8, 2)
    assert torch.autograd.gradcheck(unit, double_inputs(8, batch=2))


def test_float32_is_close_to_float64():
    unit = double_unit(128, 8)
    x1, x2 = (x.detach() for x in double_inputs(128))
    exact = unit.attention(x1, x2)
    torch.testing.assert_close(
        unit.float().attention(x1.float(), x2.float()).double(), exact, atol=1e-5, rtol=1e-5
    )


def test_large_scores_do_not_overflow():
    unit = CoAttentionUnit(16, 2, 32)
    x1, x2 = 1e4 * torch.randn(2, 3, 16)
    assert unit(x1, x2).isfinite().all()


def test_every_element_is_a_token_so_keys_and_values_have_no_order():
    """Permuting the tokens of X_2 changes nothing; of X_1, permutes h."""
    unit = double_unit(16, 4)
    x1, x2 = double_inputs(16)
    order = torch.randperm(16)
    h = unit.attention(x1, x2)
    torch.testing.assert_close(unit.attention(x1, x2[:, order]), h)
    torch.testing.assert_close(unit.attention(x1[:, order], x2), h[:, order])


def test_attention_is_not_trivial():
    """As one token of width d, the softmax would be 1 and h would not depend on the query."""
    unit = double_unit(16, 4)
    x1, x2 = double_inputs(16)
    assert not torch.allclose(unit.attention(x1, x2), unit.attention(-x1, x2))


def test_parameters_have_the_papers_names_and_shapes():
    unit = CoAttentionUnit(128, 8, 256)
    for name in ("W_Q", "W_K", "W_V", "W_O"):
        assert getattr(unit, name).shape == (8, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((10, 3, 20), "multiple of heads"), ((12, 3, 20, "sum"), "'gated' or 'additive'")],
)
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CoAttentionUnit(*arguments)


def test_a_stage_joins_both_directions():
    stage = CoAttentionStage(8, 2, 16, "gated").double()
    x1, x2 = double_inputs(8)
    f_12, f_21 = f_as_printed(stage.unit_12, x1, x2), f_as_printed(stage.unit_21, x2, x1)
    expected = torch.cat([f_12, f_21], dim=-1) @ stage.linear.weight.T + stage.linear.bias
    torch.testing.assert_close(stage(x1, x2), expected)


def test_the_first_two_of_the_order_meet_first():
    fusion = HierarchicalFusion(("audio", "vision", "text"), 8, 2, 16, "gated").double()
    f = dict(zip(("text", "audio", "vision"), torch.randn(3, 4, 8).double(), strict=True))
    f_av = fusion.stages[0](f["audio"], f["vision"])
    torch.testing.assert_close(fusion(f), fusion.stages[1](f_av, f["text"]))
