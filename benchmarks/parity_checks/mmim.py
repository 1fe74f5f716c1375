"""MMIM against MMSA's port of it: terms, gradients, and two epochs of both its passes with Adam."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipmsa.fusion.networks import Batch, Ragged
from clipmsa.fusion.networks.mmim import MMIM, Bound, Memory, MMIMConfig, entropy_of
from clipmsa.fusion.networks.mmim import prediction_loss as nce
from clipmsa.fusion.training.config import TrainingConfig

from .golden import MODALITIES, Compared, Golden, fill, gradients, ragged, stream

LAYERS = {
    "fusion_prj.linear_1": "fuse.0",
    "fusion_prj.linear_2": "fuse.2",
    "fusion_prj.linear_3": "out",
    "cpc_zt.net": "predict.text",
}
for short, m, encoder in (("v", "vision", "visual_enc"), ("a", "audio", "acoustic_enc")):
    LAYERS |= {
        f"{encoder}.rnn": f"vectors.branches.{m}/own.lstm",
        f"{encoder}.linear_1": f"project.{m}",
        f"cpc_z{short}.net": f"predict.{m}",
        f"mi_t{short}.entropy_prj.0": f"bounds.{m}.project.0",
    }
    for theirs, ours in (("mlp_mu", "mu"), ("mlp_logvar", "s")):
        LAYERS |= {f"mi_t{short}.{theirs}.{i}": f"bounds.{m}.{ours}.{i}" for i in (0, 2)}
BOUNDS = {"tv": "vision", "ta": "audio"}


def check(golden: Golden) -> Iterator[Compared]:
    model = filled(golden)
    inputs = {m: golden.inputs[m].clone().requires_grad_() for m in MODALITIES}
    batch = batch_of(golden, inputs, golden.inputs["labels"])
    found = model.intermediates(batch.streams)
    for m in ("audio", "vision"):
        yield Compared(f"mid.h.{m}", found[m], golden[f"mid.h.{m}"])
    yield Compared("mid.Z", found["Z"], golden["mid.Z"])
    yield Compared("out.pred", found["y"], golden["out.pred"])

    total = (found["y"] - batch.labels).abs().mean()
    yield Compared("loss.l1", total, golden["loss.l1"])
    sums = dict.fromkeys(("nce", "lld", "H"), torch.zeros(()).double())
    for m in MODALITIES:
        term = nce(found[m], model.predict[m](found["Z"]))
        sums["nce"] = sums["nce"] + term
        yield Compared(f"loss.nce.{m}", term, golden[f"loss.nce.{m}"])
    for pair, m in BOUNDS.items():
        bound, y = model.bounds[m], found[m]
        assert isinstance(bound, Bound)
        lld = bound.likelihood(found["text"], y)
        yield Compared(f"mid.{pair}.mu", bound.mu(found["text"]), golden[f"mid.{pair}.mu"])
        yield Compared(f"mid.{pair}.logvar", bound.s(found["text"]), golden[f"mid.{pair}.logvar"])
        yield Compared(f"loss.lld.{pair}", lld, golden[f"loss.lld.{pair}"])
        e, classes = bound.project(y), []
        for sign, name in ((1, "pos"), (-1, "neg")):
            rows = e[sign * batch.labels > 0]
            yield Compared(f"mid.{pair}.entropy_{name}", rows, golden[f"mid.{pair}.entropy_{name}"])
            classes.append(torch.cat([golden.inputs[f"memory.{pair}.{name}"], rows]))
            yield Compared(
                f"mid.{pair}.cov_{name}",
                torch.cov(classes[-1].T, correction=0),
                golden[f"mid.{pair}.cov_{name}"],
            )
            determinant = entropy_of(classes[-1:])
            assert determinant is not None
            yield Compared(
                f"mid.{pair}.logdet_{name}", 2 * determinant, golden[f"mid.{pair}.logdet_{name}"]
            )
        entropy = entropy_of(classes)
        assert entropy is not None
        yield Compared(f"loss.H.{pair}", entropy, golden[f"loss.H.{pair}"])
        sums["lld"], sums["H"] = sums["lld"] + lld, sums["H"] + entropy
    for name, value in sums.items():
        yield Compared(f"loss.{name}", value, golden[f"loss.{name}"])
    total = total + 0.1 * (sums["nce"] - sums["lld"] - sums["H"])
    yield Compared("loss.total", total, golden["loss.total_a0.1_b0.1"])
    # The same as training has it, of a pass whose memory is the golden rows.
    total = summed(model.second(*seen(golden, batch), F.l1_loss))
    yield Compared("loss.total", total, golden["loss.total_a0.1_b0.1"])
    yield from gradients(golden, "", total, inputs, model, LAYERS)
    first = summed(model.first(batch))
    yield Compared("stage0.loss", first, golden["stage0.loss"])
    yield from gradients(golden, "stage0.", first, inputs, model, LAYERS)
    yield from trained(golden)


def trained(golden: Golden) -> Iterator[Compared]:
    """Epochs of both passes: terms, gradients' norms, and weights after."""
    model = filled(golden)
    adams = []
    for ours, name in zip(model.optimisers(TrainingConfig()), ("main", "mmilb"), strict=True):
        rate, decay = (float(golden[f"run.{key}_{name}"]) for key in ("lr", "weight_decay"))
        group = ours.param_groups[0]["params"]
        adams.append(torch.optim.Adam(group, rate, weight_decay=decay))
    batches = []
    for i in itertools.takewhile(lambda i: f"run.{i}.text" in golden.inputs, itertools.count()):
        inputs = {m: golden.inputs[f"run.{i}.{m}"] for m in MODALITIES}
        batches.append(batch_of(golden, inputs, golden.inputs[f"run.{i}.labels"]))
    clip = float(golden["run.grad_clip"])
    for epoch in itertools.takewhile(lambda e: golden.names(f"run.epoch{e}."), itertools.count(1)):
        memory = Memory()
        for stage in (0, 1):
            at = f"run.epoch{epoch}.stage{stage}"
            terms, norms = [], []
            for batch in batches:
                terms.append(recorded(model, batch, memory, stage))
                found = model.second(batch, memory, F.l1_loss) if stage else model.first(batch)
                model.zero_grad(set_to_none=True)
                summed(found).backward()
                norms.append(nn.utils.clip_grad_norm_(model.parameters(), clip))
                adams[1 - stage].step()
            yield Compared(
                f"{at}.terms", torch.stack(terms), golden[f"{at}.lld_nce_H_l1"][:, : 3 + stage]
            )
            yield Compared(f"{at}.gradnorm", torch.stack(norms), golden[f"{at}.gradnorm"])
            weights = model.state_dict()
            for name in golden.names(f"{at}.param."):
                layer, _, parameter = name.rpartition(".")
                ours = weights[f"{LAYERS[layer]}.{parameter}"]
                yield Compared(f"{at}.param", ours, golden[f"{at}.param.{name}"])


@torch.no_grad()
def recorded(model: MMIM, batch: Batch, memory: Memory, stage: int) -> Tensor:
    """The terms by themselves, as the original's log has them: H from the second batch on."""
    found = model.intermediates(batch.streams)
    terms = [-model.first(batch)["likelihood"]]
    terms.append(sum_of(nce(found[m], model.predict[m](found["Z"])) for m in MODALITIES))
    entropy = torch.zeros(()).double()
    for m, (positive, negative) in memory.classes.items():
        bound, y = model.bounds[m], batch.labels
        assert isinstance(bound, Bound)
        e = bound.project(found[m])
        one = entropy_of([torch.cat([positive, e[y > 0]]), torch.cat([negative, e[y < 0]])])
        assert one is not None
        entropy = entropy + one
    terms.append(entropy)
    if stage:
        terms.append((found["y"] - batch.labels).abs().mean())
    return torch.stack(terms)


def filled(golden: Golden) -> MMIM:
    """Our module, with the golden weights."""
    dims = {m: golden.inputs[m].shape[-1] for m in MODALITIES}
    config = MMIMConfig(
        audio_width=golden.width("acoustic_enc.linear_1"),
        vision_width=golden.width("visual_enc.linear_1"),
        audio_hidden=golden.weights["acoustic_enc.rnn.weight_hh_l0"].shape[1],
        vision_hidden=golden.weights["visual_enc.rnn.weight_hh_l0"].shape[1],
        z=golden.width("fusion_prj.linear_1"),
        alpha=float(golden["run.alpha"]),
        beta=float(golden["run.beta"]),
    )
    streams = {
        f"{m}/own": stream(m, dim, "utterance" if m == "text" else "sequence")
        for m, dim in dims.items()
    }
    model = MMIM(config, streams)
    fill(model, golden, LAYERS)
    return model


def seen(golden: Golden, batch: Batch) -> tuple[Batch, Memory]:
    """A batch, and a memory in which the golden rows are."""
    classes = {
        m: (golden.inputs[f"memory.{pair}.pos"], golden.inputs[f"memory.{pair}.neg"])
        for pair, m in BOUNDS.items()
    }
    return batch, Memory(2, classes)


def batch_of(golden: Golden, inputs: Mapping[str, Tensor], labels: Tensor) -> Batch:
    text = inputs["text"]
    streams = {"text/own": Ragged(text, torch.ones(len(text), dtype=torch.long))}
    for m in ("audio", "vision"):
        streams[f"{m}/own"] = ragged(inputs[m], golden.inputs[f"{m}.lengths"])
    return Batch(torch.arange(len(text)), streams, labels)


def summed(terms: Mapping[str, Tensor]) -> Tensor:
    return sum_of(terms.values())


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack([*terms]).sum()
