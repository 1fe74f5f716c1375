"""Networks prepared for inference compute what they computed before."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from torch import nn

from clipmsa.extract import ESResNeXt
from clipmsa.extract.inference import for_inference


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
