"""The gate of MAG against MMSA's port of it, which is the authors' own arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from clipmsa.fusion.networks.mag import Gate

from .golden import MODALITIES, Compared, Golden, fill, gradients

_LAYERS = {
    "W_hv": "gates.vision",
    "W_ha": "gates.audio",
    "W_v": "shift.vision",
    "W_a": "shift.audio",
    "LayerNorm": "norm",
}
_THEIRS = {"g_vision": "g_v", "g_audio": "g_a"}


def check(golden: Golden) -> Iterator[Compared]:
    inputs = {m: golden.inputs[m].clone().requires_grad_() for m in MODALITIES}
    others = {m: inputs[m] for m in ("audio", "vision")}
    widths = {m: x.shape[-1] for m, x in others.items()}
    gate = Gate(inputs["text"].shape[-1], widths, 1.0, 0.0)
    fill(gate, golden, _LAYERS)
    for n in range(len(golden.inputs["betas"])):
        case = f"beta{n}."
        gate.beta = float(golden[f"{case}beta"])
        found = gate.intermediates(inputs["text"], others)
        for name, value in found.items():
            place = f"{case}out" if name == "out" else f"{case}mid.{_THEIRS.get(name, name)}"
            yield Compared(place, value, golden[place])
        loss = (found["out"] * golden.inputs["probe"]).sum()
        yield Compared(f"{case}loss.probe", loss, golden[f"{case}loss.probe"])
        yield from gradients(golden, case, loss, inputs, gate, _LAYERS)
    with torch.no_grad():
        for linear in gate.gates.values():
            assert isinstance(linear, torch.nn.Linear)
            linear.bias.fill_(-100.0)
        yield Compared("shut.out", gate(inputs["text"], others), golden["shut.out"])
