"""MFN against MMSA's port of it, which is the authors' own arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from clipmsa.fusion.networks.mfn import MFN, MFNConfig

from .golden import MODALITIES, Compared, Golden, fill, gradients, ragged, stream

_SHORT = {"text": "l", "audio": "a", "vision": "v"}
STEPS = {"u_hat": "c_hat", "keep": "gamma1", "write": "gamma2"}  # ours -> theirs


def memory_layers(theirs: str = "", ours: str = "memory.") -> dict[str, str]:
    """The layers of LSTMs and memory: name of theirs -> name of ours."""
    layers = {f"{theirs}lstm_{_SHORT[m]}": f"{ours}cells.{m}" for m in MODALITIES}
    for name, place in (
        ("att1", "attention"),
        ("att2", "proposal"),
        ("gamma1", "keep"),
        ("gamma2", "write"),
    ):
        layers |= {f"{theirs}{name}_fc1": f"{ours}{place}.0"}
        layers |= {f"{theirs}{name}_fc2": f"{ours}{place}.3"}
    return layers


def memory_sizes(golden: Golden, theirs: str = "") -> dict[str, int]:
    """The settings of LSTMs and memory."""
    return {
        **{
            f"{m}_width": golden.weights[f"{theirs}lstm_{_SHORT[m]}.weight_hh"].shape[1]
            for m in MODALITIES
        },
        "memory": golden.width(f"{theirs}att2_fc2"),
        "attention_hidden": golden.width(f"{theirs}att1_fc1"),
        "proposal_hidden": golden.width(f"{theirs}att2_fc1"),
        "keep_hidden": golden.width(f"{theirs}gamma1_fc1"),
        "write_hidden": golden.width(f"{theirs}gamma2_fc1"),
    }


def check(golden: Golden) -> Iterator[Compared]:
    layers = {**memory_layers(), "out_fc1": "out.0", "out_fc2": "out.3"}
    dims = {m: golden.inputs[f"full.{m}"].shape[2] for m in MODALITIES}
    model = MFN(
        MFNConfig(out_hidden=golden.width("out_fc1"), **memory_sizes(golden)),
        {f"{m}/own": stream(m, dim) for m, dim in dims.items()},
    )
    fill(model, golden, layers)
    for case in ("full.", "ragged."):
        inputs = {m: golden.inputs[f"{case}{m}"].clone().requires_grad_() for m in MODALITIES}
        B, T = inputs["text"].shape[:2]
        lengths = golden.inputs.get(f"{case}lengths", torch.full((B,), T))
        streams = {f"{m}/own": ragged(x, lengths) for m, x in inputs.items()}
        last, steps = model.memory.intermediates(model.aligned(streams))
        scores = model(streams)
        for name, packed in steps.items():
            place = f"{case}mid.{STEPS.get(name, name)}"
            yield Compared(place, padded(packed, T), golden[place])
        yield Compared(f"{case}out.last", last, golden[f"{case}out.last"])
        yield Compared(f"{case}out.pred", scores, golden[f"{case}out.pred"])
        loss = (scores - golden.inputs[f"{case}labels"]).abs().mean()
        yield Compared(f"{case}loss.l1", loss, golden[f"{case}loss.l1"])
        yield from gradients(golden, case, loss, inputs, model, layers)


def padded(packed: PackedSequence, T: int) -> torch.Tensor:
    """(B, T, D), zeros where an utterance has no step."""
    return pad_packed_sequence(packed, batch_first=True, total_length=T)[0]
