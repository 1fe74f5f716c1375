"""Self-MM against MMSA's port of it, whose code of the labels is the authors' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from clipmsa.fusion.networks import Batch, Ragged
from clipmsa.fusion.networks.self_mm import MadeLabels, SelfMM, SelfMMConfig, unimodal_loss

from .golden import MODALITIES, Compared, Golden, fill, gradients, ragged, stream

_THEIRS = {"fusion": "fusion", "text": "text", "audio": "audio", "vision": "video"}
_LETTER = {"fusion": "M", "text": "T", "audio": "A", "vision": "V"}


def check(golden: Golden) -> Iterator[Compared]:
    yield from _losses(golden)
    for name, exclude_zero in (("exclude_zero", True), ("include_zero", False)):
        yield from _labels(golden, f"labels.{name}.", exclude_zero)
    yield from _run(golden)


def _losses(golden: Golden) -> Iterator[Compared]:
    model, layers = _model(golden)
    inputs = {m: golden.inputs[m].clone().requires_grad_() for m in MODALITIES}
    labels = golden.inputs["labels"]
    vectors = model.vectors(_streams(golden, "", inputs))
    features, scores = model.heads_of(vectors)
    for m in ("audio", "vision"):
        yield Compared(f"mid.F.{m}", vectors[m], golden[f"mid.F.{m}"])
    for k, letter in _LETTER.items():
        yield Compared(f"mid.F*.{k}", features[k], golden[f"mid.F*.{k}"])
        yield Compared(f"out.{letter}", scores[k], golden[f"out.{letter}"])
    made = {m: golden.inputs[f"u.{m}"] for m in MODALITIES}
    losses = _terms(scores, made, labels)
    for k, letter in _LETTER.items():
        yield Compared(f"loss.{letter}", losses[k], golden[f"loss.{letter}"])
    for m in MODALITIES:
        weight = (made[m] - labels).abs().tanh()
        yield Compared(f"mid.weight.{m}", weight, golden[f"mid.weight.{m}"])
    total = torch.stack([*losses.values()]).sum()
    yield Compared("loss.total", total, golden["loss.total"])
    yield from gradients(golden, "", total, inputs, model, layers)


def _labels(golden: Golden, prefix: str, exclude_zero: bool) -> Iterator[Compared]:
    """The labels, step by step, of features that are given."""
    given = {k: golden.inputs[f"trace.f.{k}"] for k in _LETTER}
    widths = {k: f.shape[-1] for k, f in given.items()}
    made = MadeLabels(widths, float(golden.inputs["trace.H"]), exclude_zero)
    made.begin(golden.inputs["trace.labels"])
    steps = torch.tensor(len(_batches(golden)))
    yield Compared(f"{prefix}steps", steps, golden[f"{prefix}steps"])
    for step, (epoch, at) in enumerate(_batches(golden)):
        there = {m: torch.ones(len(at), dtype=torch.bool) for m in MODALITIES}
        made.update(at, {k: f[epoch - 1, at] for k, f in given.items()}, there, epoch)
        stored = f"{prefix}step{step}."
        for m in MODALITIES:
            yield Compared(f"{prefix}y.{m}", made.labels(m), golden[f"{stored}y.{m}"])
        for k in _LETTER:
            above, below = made.centres(k)
            yield Compared(f"{prefix}centre_pos.{k}", above, golden[f"{stored}centre_pos.{k}"])
            yield Compared(f"{prefix}centre_neg.{k}", below, golden[f"{stored}centre_neg.{k}"])


def _run(golden: Golden) -> Iterator[Compared]:
    """A training as the original does it: Adam with a rate a part, gradients of batches summed."""
    model, layers = _model(golden)
    labels = golden.inputs["trace.labels"]
    model.begin(torch.arange(len(labels)), labels)
    ours = dict(model.named_parameters())
    groups: dict[str, list[Tensor]] = {"bert": [], "audio": [], "video": [], "other": []}
    for name, value in ours.items():
        if "missing" not in name:
            part = "audio" if ".audio" in name else "video"
            groups[part if name.startswith(("branches.", "project.")) else "other"].append(value)
    optimiser = torch.optim.Adam(
        [
            {
                "params": values,
                "lr": float(golden[f"run.learning_rate_{part}"]),
                "weight_decay": float(golden[f"run.weight_decay_{part}"]),
            }
            for part, values in groups.items()
        ]
    )
    together, steps = int(golden["run.update_epochs"]), _batches(golden)
    streams = {m: golden.inputs[f"run.{m}"] for m in MODALITIES}
    found: list[list[Tensor]] = []
    for epoch in range(1, 1 + max(epoch for epoch, _ in steps)):
        model.epoch(epoch)
        found.append([])
        for n, (_, at) in enumerate(step for step in steps if step[0] == epoch):
            if n % together == 0:
                optimiser.zero_grad()
            batch = Batch(at, _streams(golden, "run.", streams, at), labels[at])
            model.losses(batch)  # what it keeps of a batch
            _, scores = model.heads_of(model.vectors(batch.streams))
            losses = _terms(scores, {m: model.made.labels(m)[at] for m in MODALITIES}, labels[at])
            found[-1].append(torch.stack([losses[k] for k in _LETTER]).detach())
            torch.stack([*losses.values()]).sum().backward()
            model.after_step(batch)
            if n % together == together - 1:
                optimiser.step()
        for m in MODALITIES:
            theirs = golden[f"run.epoch{epoch}.y.{m}"]
            yield Compared(f"run.y.{m}", model.made.labels(m), theirs)
        for name in golden.names(f"run.epoch{epoch}.param."):
            layer, _, parameter = name.rpartition(".")
            theirs = golden[f"run.epoch{epoch}.param.{name}"]
            yield Compared("run.param", ours[f"{layers[layer]}.{parameter}"], theirs)
    yield Compared("run.loss", torch.stack([torch.stack(e) for e in found]), golden["run.loss"])


def _terms(
    scores: Mapping[str, Tensor], made: Mapping[str, Tensor], labels: Tensor
) -> dict[str, Tensor]:
    there = torch.ones(len(labels), dtype=torch.bool)
    unimodal = {m: unimodal_loss(scores[m], made[m], labels, there) for m in MODALITIES}
    return {"fusion": (scores["fusion"] - labels).abs().mean(), **unimodal}


def _batches(golden: Golden) -> list[tuple[int, Tensor]]:
    """Of each step, its epoch and its utterances."""
    epochs, places = golden["labels.step_epoch"].tolist(), golden["labels.step_batch"]
    return [(int(e), at[at >= 0].long()) for e, at in zip(epochs, places, strict=True)]


def _streams(
    golden: Golden, prefix: str, inputs: Mapping[str, Tensor], at: Tensor | None = None
) -> dict[str, Ragged]:
    at = torch.arange(len(inputs["text"])) if at is None else at
    out = {"text/own": Ragged(inputs["text"][at], torch.ones(len(at), dtype=torch.int64))}
    for m in ("audio", "vision"):
        out[f"{m}/own"] = ragged(inputs[m][at], golden.inputs[f"{prefix}{m}.lengths"][at])
    return out


def _model(golden: Golden) -> tuple[SelfMM, dict[str, str]]:
    layers = {"audio_model.rnn": "branches.audio/own.lstm", "audio_model.linear_1": "project.audio"}
    layers |= {"video_model.rnn": "branches.vision/own.lstm"}
    layers |= {"video_model.linear_1": "project.vision"}
    sizes: dict[str, Any] = {}
    for k, theirs in _THEIRS.items():
        for n, place in enumerate(("first", "second", "out"), 1):
            layers[f"post_{theirs}_layer_{n}"] = f"heads.{k}.{place}"
        sizes[f"{k}_width"] = golden.width(f"post_{theirs}_layer_1")
    for m in ("audio", "vision"):
        part = f"{_THEIRS[m]}_model"
        sizes[f"{m}_lstm"] = golden.weights[f"{part}.rnn.weight_hh_l0"].shape[1]
        sizes[f"{m}_out"] = golden.width(f"{part}.linear_1")
    limit = float(golden.inputs["trace.H"])
    model = SelfMM(
        SelfMMConfig(label_limit=limit, **sizes),
        {
            f"{m}/own": stream(
                m, golden.inputs[m].shape[-1], "utterance" if m == "text" else "sequence"
            )
            for m in MODALITIES
        },
    )
    fill(model, golden, layers)
    return model, layers
