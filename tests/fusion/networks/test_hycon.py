"""HyCon: numbers of the reading that its docstring names, and who takes part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from clipmsa.fusion.networks.hycon import contrasts

GOLDEN = Path(__file__).resolve().parents[2] / "data/baselines/hycon_reading.npz"
ORDER = ("text", "audio", "vision")


def test_what_is_contrasted_is_what_the_reading_says():
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
    inputs = [golden[f"in.{m}"].requires_grad_() for m in ORDER]
    found = contrasts(
        torch.stack(inputs, dim=1),
        golden["in.present"],
        golden["in.labels"],
        float(golden["alpha"]),
    )
    for name, value in found.items():
        torch.testing.assert_close(value, golden[f"loss.{name}"], rtol=0, atol=1e-9)
    total = torch.stack([*found.values()]).sum()
    torch.testing.assert_close(total, golden["loss.total_weights_1"], rtol=0, atol=1e-9)
    gradients = torch.autograd.grad(total, inputs)
    for m, gradient in zip(ORDER, gradients, strict=True):
        torch.testing.assert_close(gradient, golden[f"grad.in.{m}"], rtol=0, atol=1e-9)


def test_an_absent_modality_takes_no_part():
    generator = torch.Generator().manual_seed(0)
    e, labels = torch.rand(5, 3, 4, generator=generator), torch.tensor([1.0, -1, 2, -2, 0])
    present = torch.ones(5, 3, dtype=torch.bool)
    present[1, 2] = False
    other = e.clone()
    other[1, 2] = torch.rand(4, generator=generator)
    before, after = (contrasts(x, present, labels, 0.8) for x in (e, other))
    torch.testing.assert_close(before, after)
    nobody = contrasts(e, torch.zeros_like(present), labels, 0.8)
    assert all(float(term) == 0 for term in nobody.values())
