"""TPMSA against its authors' code: phase 2, and (tpmsa1) phase 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from clipmsa.fusion.networks import Batch, Padding, Ragged
from clipmsa.fusion.networks.branches import sinusoidal_positions
from clipmsa.fusion.networks.tpmsa import TPMSA, Encoder, TPMSAConfig

from .golden import MODALITIES, Compared, Golden, ragged, stream

LAYERS = {"t_encoder.linear": "encoders.text/own.linear", "cat_regression": "out"}
for short, m in (("v", "vision"), ("a", "audio")):
    theirs, ours = f"{short}_encoder.encoder.layers.0", f"encoders.{m}/own.layer"
    LAYERS |= {
        f"{short}_encoder.linear": f"encoders.{m}/own.linear",
        f"{theirs}.self_attn.out_proj": f"{ours}.out",
        f"{theirs}.linear1": f"{ours}.ffn.0",
        f"{theirs}.linear2": f"{ours}.ffn.2",
        f"{theirs}.norm1": f"{ours}.norm_attention",
        f"{theirs}.norm2": f"{ours}.norm_ffn",
        f"{short}_interact.multihead_attn_1": f"interact.{m}.attention",
        f"{short}_interact.multihead_attn_1.out_proj": f"interact.{m}.attention.out_proj",
        f"{short}_interact.add_norm_1.norm": f"interact.{m}.norm",
        f"{short}_interact.add_norm_2.norm": f"interact.{m}.norm_ffn",
        f"{short}_interact.ff.linear1": f"interact.{m}.ffn.0",
        f"{short}_interact.ff.linear2": f"interact.{m}.ffn.2",
    }
LAYERS |= {f"{m[0]}_regression": f"heads.{m}" for m in MODALITIES}
LAYERS["regression"] = "first_head"
_CASES = ("full.", "ragged.")
_WEIGHTS = {"w_cat": "cat", "w_t": "text", "w_v": "vision", "w_a": "audio"}


def check(golden: Golden) -> Iterator[Compared]:
    """Phase 2."""
    w = {name: float(golden.weights[name]) for name in _WEIGHTS}
    if w["w_cat"] != 1:
        raise SystemExit(f"tpmsa: w_cat is {w['w_cat']}, and that of our task's term is 1")
    dims = {m: golden.inputs[f"full.{m}"].shape[2] for m in MODALITIES}
    config = TPMSAConfig(
        d=golden.width("t_encoder.linear"),
        heads=int(golden["heads"]),
        d_ff=golden.width("v_interact.ff.linear1"),
        interactions=int(golden["num_interactions"]),
        text_weight=w["w_t"],
        vision_weight=w["w_v"],
        audio_weight=w["w_a"],
    )
    model = TPMSA(config, {f"{m}/own": stream(m, dim) for m, dim in dims.items()})
    parameters = filled(model, golden)
    for m in ("vision", "audio"):
        theirs = golden[f"positions.{m}"]
        yield Compared(f"positions.{m}", sinusoidal_positions(*theirs.shape), theirs)
    for case in _CASES:
        inputs = {m: golden.inputs[f"{case}{m}"].clone().requires_grad_() for m in MODALITIES}
        lengths = {m: lengths_of(golden, case, m) for m in MODALITIES}
        streams = {f"{m}/own": ragged(x, lengths[m]) for m, x in inputs.items()}
        batch = Batch(torch.arange(len(inputs["text"])), streams, golden.inputs[f"{case}labels"])
        found = model.intermediates(streams)
        for m in ("vision", "audio"):
            if f"mid.transformer.{m}" in golden.names(case):
                encoder = model.encoders[f"{m}/own"]
                assert isinstance(encoder, Encoder)
                rows = read(encoder, streams[f"{m}/own"])
                place = f"{case}mid.transformer.{m}"
                yield Compared(place, rows, golden[place])
        for name, value in found.items():
            if not name.startswith("y"):
                place = f"{case}mid.{name}"
                there = torch.arange(value.shape[1]) < lengths[name.partition(".")[2]][:, None]
                yield Compared(place, value * there[..., None], golden[place])
        y = {"cat": found["y"], **{m: found[f"y.{m}"] for m in MODALITIES}}
        for name, score in y.items():
            yield Compared(f"{case}out.{name}", score, golden[f"{case}out.{name}"])
            error = F.l1_loss(score, batch.labels)
            yield Compared(f"{case}loss.{name}", error, golden[f"{case}loss.{name}"])
        total = torch.stack([*model.losses(batch, F.l1_loss).values()]).sum()
        yield Compared(f"{case}loss.total", total, golden[f"{case}loss.total"])
        for w_m, name in _WEIGHTS.items():  # constants here; a sum's gradient by them is the error
            error = F.l1_loss(y[name], batch.labels)
            yield Compared(f"{case}gradnorm.{w_m}", error, golden[f"{case}gradnorm.param.{w_m}"])
        yield from gradients(golden, case, total, inputs, parameters)


def check_first(golden: Golden) -> Iterator[Compared]:
    """Phase 1."""
    config = TPMSAConfig(d=golden.width("t_encoder.linear"))
    model = TPMSA(config, {"text/own": stream("text", golden.inputs["text"].shape[2])})
    parameters = filled(model, golden)
    inputs = {"text": golden.inputs["text"].clone().requires_grad_()}
    streams = {"text/own": ragged(inputs["text"], golden.inputs["text.lengths"])}
    score = model.first_score(streams)
    yield Compared("out.pred", score, golden["out.pred"])
    loss = F.l1_loss(score, golden.inputs["labels"])
    yield Compared("loss.l1", loss, golden["loss.l1"])
    yield from gradients(golden, "", loss, inputs, parameters)


def filled(model: TPMSA, golden: Golden) -> dict[str, Tensor]:
    """Fill our module, in which all attention of an encoder is one layer; our weights by theirs."""
    ours = dict(model.double().eval().named_parameters())
    out: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, value in golden.weights.items():
            layer, _, parameter = name.rpartition(".")
            if parameter.startswith("in_proj_") and layer.endswith(".encoder.layers.0.self_attn"):
                m = {"v": "vision", "a": "audio"}[name[0]]
                place = f"encoders.{m}/own.layer.qkv.{parameter.removeprefix('in_proj_')}"
            elif layer in LAYERS:
                place = f"{LAYERS[layer]}.{parameter}"
            else:
                continue  # a layer that they never use, or a weight of the loss
            ours[place].copy_(value)
            out[name] = ours[place]
    return out


def lengths_of(golden: Golden, case: str, modality: str) -> Tensor:
    B, T = golden.inputs[f"{case}{modality}"].shape[:2]
    of = "text" if modality == "text" else "av"
    return golden.inputs.get(f"{case}{of}.lengths", torch.full((B,), T))


def read(encoder: Encoder, rows: Ragged) -> Tensor:
    """What an encoder's Transformer layer gives, (B, T, dim)."""
    assert encoder.layer is not None
    padding = Padding(rows.lengths, rows.rows.device)
    positions = sinusoidal_positions(padding.T, rows.rows.shape[1], dtype=rows.rows.dtype)
    return padding.pad(encoder.layer(rows.rows + positions[padding.step], padding))


def gradients(
    golden: Golden,
    prefix: str,
    loss: Tensor,
    inputs: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
) -> Iterator[Compared]:
    """A loss's gradients by the inputs, and the norms of those by the weights."""
    wanted = {**inputs, **parameters}
    found = torch.autograd.grad(loss, [*wanted.values()], retain_graph=True)
    of = dict(zip(wanted, found, strict=True))
    for m in inputs:
        yield Compared(f"{prefix}grad.in.{m}", of[m], golden[f"{prefix}grad.in.{m}"])
        norm = f"{prefix}gradnorm.in.{m}"
        yield Compared(norm, of[m].norm(), golden[norm])
    for name in golden.names(f"{prefix}gradnorm.param."):
        if name not in _WEIGHTS:
            ours = of[name].norm() if name in of else torch.zeros(()).double()
            yield Compared(
                f"{prefix}gradnorm.param", ours, golden[f"{prefix}gradnorm.param.{name}"]
            )
