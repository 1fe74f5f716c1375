"""What a folder of golden data holds of one model, and what the checks have in common."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from clipmsa.cache import StreamSpec
from clipmsa.fusion.networks import Ragged

MODALITIES = ("text", "audio", "vision")
# Of a file's arrays, those that say what went in, and what the original gives on padded batches.
_NOT_RESULTS = ("in.", "param.", "input.")
_NOT_TO_BE_MATCHED = "original_unmasked."


class Compared(NamedTuple):
    """A quantity, by the name to print, as our module gives it and as the original gave it."""

    quantity: str
    ours: Tensor
    theirs: Tensor


class Golden:
    """One model's weights and inputs, and by name what the original gave for them."""

    def __init__(self, folder: Path, model: str) -> None:
        recipe = _recipe(folder)
        weights, inputs = recipe.weights(model), recipe.inputs(model)
        with np.load(folder / f"{model}.npz", allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
        for what, arrays in (("param", weights), ("input", inputs)):
            made, kept = recipe.digest(arrays), str(stored[f"{what}.digest"])
            if made != kept:
                raise SystemExit(
                    f"{folder}: recipe.py makes other {what}s of '{model}' than {model}.npz is of: "
                    f"digest {made}, must be {kept}"
                )
        self.weights = {name: torch.from_numpy(value) for name, value in weights.items()}
        self.inputs = {name: torch.from_numpy(np.asarray(v)) for name, v in inputs.items()}
        self._stored = {
            name: torch.from_numpy(np.asarray(value))
            for name, value in stored.items()
            if not name.startswith(_NOT_RESULTS)
        }
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self._read.add(name)
        return self._stored[name]

    def names(self, prefix: str) -> list[str]:
        """Of what the original gave, the names that start so, without the prefix."""
        return [name.removeprefix(prefix) for name in self._stored if name.startswith(prefix)]

    @property
    def unread(self) -> list[str]:
        """Names of what nobody has compared."""
        return [n for n in self._stored if n not in self._read and _NOT_TO_BE_MATCHED not in n]

    def width(self, layer: str) -> int:
        """How many values come out of a linear layer of the original."""
        return len(self.weights[f"{layer}.weight"])


@cache
def _recipe(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe", folder / "recipe.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder}: recipe.py cannot be loaded")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


def stream(modality: str, dim: int, level: str = "sequence") -> StreamSpec:
    """A modality's only stream."""
    return StreamSpec(modality, modality, "own", level, dim)


def fill(module: nn.Module, golden: Golden, layers: Mapping[str, str]) -> None:
    """Give a module the original's weights; `layers`: name of theirs -> name of ours.

    A layer of theirs that is not named is one that they never use. All of ours must be filled, but
    what is learned for a missing modality, which they have not.
    """
    weights = {}
    for name, value in golden.weights.items():
        layer, _, parameter = name.rpartition(".")
        if layer in layers:
            weights[f"{layers[layer]}.{parameter}"] = value
    found = module.double().eval().load_state_dict(weights, strict=False)
    unfilled = [key for key in found.missing_keys if "missing" not in key]
    if unfilled or found.unexpected_keys:
        raise SystemExit(f"not filled: {unfilled}; not there: {found.unexpected_keys}")


def ragged(padded: Tensor, lengths: Tensor) -> Ragged:
    """(B, T, D), padded at the end -> the rows that there are."""
    there = torch.arange(padded.shape[1]) < lengths[:, None]
    return Ragged(padded[there], lengths)


def gradients(
    golden: Golden,
    prefix: str,
    loss: Tensor,
    inputs: Mapping[str, Tensor],
    module: nn.Module,
    layers: Mapping[str, str],
) -> Iterator[Compared]:
    """A loss's gradients by the inputs, and the norms of those by the weights."""
    ours = {layers[layer]: layer for layer in layers}
    named = dict(module.named_parameters())
    weights = {}
    for name, value in named.items():
        layer, _, parameter = name.rpartition(".")
        if layer in ours:
            weights[f"{ours[layer]}.{parameter}"] = value
    wanted = [*inputs.values(), *weights.values()]
    found = dict(
        zip(
            [*inputs, *weights],
            torch.autograd.grad(loss, wanted, retain_graph=True, materialize_grads=True),
            strict=True,
        )
    )
    for name in inputs:
        yield Compared(f"{prefix}grad.in.{name}", found[name], golden[f"{prefix}grad.in.{name}"])
        norm = f"{prefix}gradnorm.in.{name}"
        yield Compared(norm, found[name].norm(), golden[norm])
    for name in golden.names(f"{prefix}gradnorm.param."):
        theirs = golden[f"{prefix}gradnorm.param.{name}"]
        if name in weights:
            yield Compared(f"{prefix}gradnorm.param", found[name].norm(), theirs)
        else:  # a layer that the original never uses
            yield Compared(f"{prefix}gradnorm.param", torch.zeros(()).double(), theirs)
