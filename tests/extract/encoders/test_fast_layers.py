"""Networks prepared for inference compute what they computed before."""

from __future__ import annotations

import copy
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from clipmsa.extract import ESResNeXt
from clipmsa.extract.encoders.fast_layers import (
    InPieces,
    OneQueryAttention,
    WinogradConv2d,
    for_inference,
    with_winograd,
)


def with_statistics(network: nn.Module) -> nn.Module:
    """Batch norms as after training: at 0 and 1 a wrong fold could go unnoticed."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval().requires_grad_(False)


def resnet_of_clip() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 64, "layers": [1, 2, 1, 1], "width": 8},
        text_cfg={"width": 16, "heads": 2, "layers": 1},
    )
    return model.visual, torch.randn(3, 3, 64, 64)


def esresnext() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = ESResNeXt(
        layers=(1, 2, 1, 1),
        stem_width=8,
        cardinality=4,
        embed_dim=32,
        n_fft=256,
        hop_length=128,
        win_length=200,
    )
    return model, torch.randn(2, 8000) / 10


@pytest.mark.parametrize("make", [resnet_of_clip, esresnext])
def test_folding_changes_no_output(make):
    network, inputs = make()
    with_statistics(network)
    folded = for_inference(copy.deepcopy(network))
    expected, got = network(inputs), folded(inputs)
    assert (got - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("make", [resnet_of_clip, esresnext])
def test_no_batch_norm_is_left(make):
    folded = for_inference(make()[0])
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_batch_in_pieces_has_the_rows_of_the_batch(size):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.MaxPool2d(2))
    x = torch.randn(5, 3, 12, 10)
    pieces = InPieces(layers, size)
    assert (pieces(x) - layers(x)).abs().max() < 1e-6
    assert pieces.state_dict().keys() == layers.state_dict().keys()


def test_pooling_for_one_query_is_clip_s_attention_pooling():
    pool: Any = resnet_of_clip()[0].attnpool
    pool.eval()
    with torch.no_grad():
        for parameter in pool.parameters():  # a bias of 0 could be forgotten unnoticed
            parameter.normal_(0, 0.2)
    x = torch.randn(3, pool.positional_embedding.shape[1], 2, 2)
    expected, got = pool(x), OneQueryAttention(pool)(x)
    assert (got - expected).norm() < 1e-5 * expected.norm()
    assert OneQueryAttention(pool).state_dict().keys() == pool.state_dict().keys()


@pytest.mark.parametrize("size", [(56, 56), (7, 7), (14, 13), (1, 4), (5, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_winograd_s_convolution_is_the_convolution(size, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 160, 3, padding=1, bias=bias).requires_grad_(False)
    x = torch.randn(3, 128, *size).relu()
    expected = nn.functional.conv2d(
        x.double(), conv.weight.double(), None if conv.bias is None else conv.bias.double(), 1, 1
    )
    with torch.inference_mode():
        for input_ in (x, x.to(memory_format=torch.channels_last)):
            got = WinogradConv2d(conv)(input_)
            assert got.shape == expected.shape
            assert (got - expected).norm() < 5e-6 * expected.norm()


def test_winograd_is_a_picture_s_own_whatever_its_batch(monkeypatch):
    torch.manual_seed(0)
    conv = WinogradConv2d(nn.Conv2d(128, 128, 3, padding=1).requires_grad_(False))
    x = torch.randn(4, 128, 9, 9)
    together = conv(x)
    monkeypatch.setattr("clipmsa.extract.encoders.fast_layers._TRANSFORMED_BYTES", 1)
    assert (conv(x) - together).norm() < 1e-6 * together.norm()
    assert (conv(x[2:3]) - together[2:3]).norm() < 1e-6 * together.norm()


def test_only_convolutions_that_winograd_computes_are_replaced():
    network = nn.Sequential(
        nn.Conv2d(128, 128, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 128, 3, padding=2, dilation=2),
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(128, 128, 1, padding=1),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.Sequential(nn.Conv2d(256, 64, 3, padding=1)),
    )
    before = network.state_dict().keys()
    replaced = [
        name for name, m in with_winograd(network).named_modules() if isinstance(m, WinogradConv2d)
    ]
    assert replaced == ["0", "8.0"]
    assert network.state_dict().keys() == before  # a digest of the weights does not see it
