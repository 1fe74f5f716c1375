"""A trained model in one file that rebuilds itself: weights, configuration, provenance."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from clipmsa.cache import StreamSpec
from clipmsa.cache.errors import ClipmsaError
from clipmsa.cache.files import publish

from .config import ModelConfig, RunConfig, TrainingConfig
from .model import ClipMSA

_FORMAT = "clipmsa-model"


class CheckpointError(ClipmsaError):
    """A file is not a checkpoint of this program."""


class Checkpoint(NamedTuple):
    """What a `model-<seed>.pt` holds."""

    model: ClipMSA
    config: RunConfig
    streams: dict[str, StreamSpec]
    seed: int
    valid: dict[str, float]


def save_checkpoint(
    path: Path,
    state: Mapping[str, torch.Tensor],
    config: RunConfig,
    streams: Mapping[str, StreamSpec],
    seed: int,
    valid: Mapping[str, float],
) -> None:
    """Write a checkpoint, whole or not at all; plain containers and tensors only."""
    with publish(path) as temporary:
        torch.save(
            {
                "format": _FORMAT,
                "state": dict(state),
                "config": asdict(config),
                "streams": {role: asdict(spec) for role, spec in streams.items()},
                "seed": seed,
                "valid": dict(valid),
                "versions": {name: version(name) for name in ("clipmsa", "torch")},
            },
            temporary,
        )


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Rebuild a model from its file, in eval mode.

    Raises:
        CheckpointError: no such file, or not a checkpoint of clipmsa. Nothing in it is executed.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a checkpoint of clipmsa ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of clipmsa")
    config = RunConfig(
        content["config"]["variant"],
        ModelConfig(**content["config"]["model"]),
        TrainingConfig(**content["config"]["training"]),
    )
    streams = {role: StreamSpec(**spec) for role, spec in content["streams"].items()}
    model = ClipMSA(config.model, streams).to(device)
    model.load_state_dict(content["state"])
    return Checkpoint(model.eval(), config, streams, content["seed"], content["valid"])
