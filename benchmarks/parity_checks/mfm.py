"""MFM against MMSA's port of it, which is the authors' own arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from clipmsa.fusion.networks.mfm import MFM, MFMConfig, discrepancy, kernel
from clipmsa.fusion.networks.ragged import Padding

from .golden import MODALITIES, Compared, Golden, fill, gradients, ragged, stream
from .mfn import memory_layers, memory_sizes

_SHORT = {"text": "l", "audio": "a", "vision": "v", "y": "y"}


def check(golden: Golden) -> Iterator[Compared]:
    layers = _layers()
    dims = {m: golden.inputs[f"full.{m}"].shape[2] for m in MODALITIES}
    model = MFM(_config(golden), {f"{m}/own": stream(m, dim) for m, dim in dims.items()})
    fill(model, golden, layers)
    for case in ("full.", "ragged."):
        inputs = {m: golden.inputs[f"{case}{m}"].clone().requires_grad_() for m in MODALITIES}
        B, T = inputs["text"].shape[:2]
        lengths = golden.inputs.get(f"{case}lengths", torch.full((B,), T))
        streams = {f"{m}/own": ragged(x, lengths) for m, x in inputs.items()}
        aligned = model.aligned(streams)
        of = model.intermediates(aligned)
        for k in of.z:
            yield Compared(f"{case}mid.z.{k}", of.z[k], golden[f"{case}mid.z.{k}"])
            yield Compared(f"{case}mid.f.{k}", of.f[k], golden[f"{case}mid.f.{k}"])
        mmd = {}
        for k, z in of.z.items():
            normal = golden.inputs[f"{case}gauss.z{_SHORT[k]}"]
            mmd[k] = discrepancy(z, normal)
            yield Compared(f"{case}loss.mmd.z.{k}", mmd[k], golden[f"{case}loss.mmd.z.{k}"])
            means = {"gg": (normal, normal), "zz": (z, z), "gz": (normal, z)}
            for name in golden.names(f"{case}mid.mmd.z.{k}.kernel_"):
                quantity = f"{case}mid.mmd.z.{k}.kernel_{name}"
                yield Compared(quantity, kernel(*means[name]), golden[quantity])
        decoded = model.decoded(of, aligned)
        errors = model.errors(streams, aligned, decoded)
        padding = Padding(lengths, torch.device("cpu"))
        for m in MODALITIES:
            rows = padding.pad(decoded[m])
            yield Compared(f"{case}mid.recon.{m}", rows, golden[f"{case}mid.recon.{m}"])
            yield Compared(f"{case}loss.mse.{m}", errors[m], golden[f"{case}loss.mse.{m}"])
            each = f"{case}mid.mse_each.{m}"
            if golden.names(each):
                square = (rows - inputs[m]).square().mean(2).sum(1) / lengths
                yield Compared(each, square, golden[each])
        scores = model(streams)
        yield Compared(f"{case}out.pred", scores, golden[f"{case}out.pred"])
        l1 = (scores - golden.inputs[f"{case}labels"]).abs().mean()
        yield Compared(f"{case}loss.l1", l1, golden[f"{case}loss.l1"])
        generation = torch.stack([model.reconstruction[m] * errors[m] for m in MODALITIES]).sum()
        prior = torch.stack([*mmd.values()]).sum()
        total = l1 + generation + model.mmd * prior
        for name, value in (("gen_weighted", generation), ("mmd_sum", prior), ("total", total)):
            if golden.names(f"{case}loss.{name}"):
                yield Compared(f"{case}loss.{name}", value, golden[f"{case}loss.{name}"])
        yield from gradients(golden, case, total, inputs, model, layers)


def _layers() -> dict[str, str]:
    layers = {**memory_layers("mfn_encoder."), "last_to_zy_fc1": "codes.y"}
    for m in MODALITIES:
        short = _SHORT[m]
        layers |= {
            f"encoder_{short}.lstm": f"encoders.{m}",
            f"encoder_{short}.fc1": f"codes.{m}",
            f"decoder_{short}.lstm": f"decoders.{m}.lstm",
            f"decoder_{short}.fc1": f"decoders.{m}.out",
        }
    for k, short in _SHORT.items():
        layers[f"z{short}_to_f{short}_fc1"] = f"factors.{k}.0"
        layers[f"z{short}_to_f{short}_fc2"] = f"factors.{k}.3"
    return {**layers, "fy_to_y_fc1": "out.0", "fy_to_y_fc2": "out.3"}


def _config(golden: Golden) -> MFMConfig:
    weights: dict[str, Any] = {"mmd": float(golden["weights.lda_mmd"])}
    weights |= {f"{m}_reconstruction": float(golden[f"weights.lda_{m}"]) for m in MODALITIES}
    sizes: dict[str, Any] = {
        "z_y": golden.width("last_to_zy_fc1"),
        "f_y": golden.width("zy_to_fy_fc1"),
    }
    for m in MODALITIES:
        short = _SHORT[m]
        sizes[f"z_{m}"] = golden.width(f"encoder_{short}.fc1")
        sizes[f"f_{m}"] = golden.width(f"z{short}_to_f{short}_fc1")
    return MFMConfig(**memory_sizes(golden, "mfn_encoder."), **sizes, **weights)
