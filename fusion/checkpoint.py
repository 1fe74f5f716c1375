"""A trained model in one file that rebuilds itself: weights, configuration, provenance, results.

Beside it, while a seed trains, lies its *progress*: all that the next epoch depends on, so that an
interrupted run goes on as if nothing had happened. Both are plain containers and tensors.
"""

from __future__ import annotations

import json
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
from clipmsa.cache.texts import wrong_kind

from .config import NETWORKS, RunConfig, TrainingConfig
from .networks import Trainable
from .outcome import Outcome

_MODEL, _PROGRESS = "clipmsa-model", "clipmsa-progress"


class CheckpointError(ClipmsaError):
    """A file is not a checkpoint of this program."""


class Checkpoint(NamedTuple):
    """What a `model-<seed>.pt` holds, beside the weights."""

    config: RunConfig
    streams: dict[str, StreamSpec]  # by role: what the model was trained on
    data: str  # digest of the utterances, splits and labels it was trained on
    versions: dict[str, str]
    outcome: Outcome

    @property
    def seed(self) -> int:
        return self.outcome.seed

    def model(self, device: torch.device | str = "cpu") -> Trainable:
        """The trained network, in eval mode."""
        model = Trainable(self.config.model, self.streams)
        model.load_state_dict(self.outcome.state)
        return model.to(device).eval()


def save_checkpoint(
    path: Path,
    config: RunConfig,
    streams: Mapping[str, StreamSpec],
    data: str,
    outcome: Outcome,
) -> None:
    """Write a checkpoint, whole or not at all."""
    _save(
        path,
        {
            "format": _MODEL,
            "config": asdict(config),
            "streams": {role: asdict(spec) for role, spec in streams.items()},
            "data": data,
            "versions": {name: version(name) for name in ("clipmsa", "torch")},
            "outcome": outcome.as_plain(),
        },
    )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        CheckpointError: no such file, or not a checkpoint of clipmsa.
    """
    content = _load(path, _MODEL)
    try:
        model = content["config"]["model"]
        outcome = Outcome.from_plain(content["outcome"])
        if "normalise" not in model:  # of 0.1 and before: a network that takes its inputs as is
            model = model | {"normalise": "none"}
            outcome.state = {f"network.{key}": value for key, value in outcome.state.items()}
        config = RunConfig(
            content["config"]["variant"],
            NETWORKS[model.get("network", "clip-msa")](**model),  # of 0.1 and before: no key
            TrainingConfig(**content["config"]["training"]),
        )
        streams = {role: StreamSpec(**spec) for role, spec in content["streams"].items()}
        return Checkpoint(config, streams, content["data"], content["versions"], outcome)
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: a checkpoint of another version of clipmsa ({error}); train again"
        ) from None


def load_run(path: Path) -> list[Checkpoint]:
    """The checkpoints of one file, or of a run's folder: of the seeds that its metrics.json names.

    A folder without metrics.json gives all that it holds, be it that files were copied there.

    Raises:
        CheckpointError: nothing there, or not checkpoints of clipmsa.
    """
    if not path.is_dir():
        return [load_checkpoint(path)]
    table = path / "metrics.json"
    try:
        seeds = json.loads(table.read_text(encoding="utf-8"))["seeds"]
        files = [path / f"model-{seed}.pt" for seed in seeds]
    except FileNotFoundError:
        files = sorted(path.glob("model-*.pt"))
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{table}: not that of a run ({error})") from None
    if not files:
        raise CheckpointError(
            f"{path}: holds no model-SEED.pt; `clipmsa train --features STORE --out {path}` "
            f"writes them"
        )
    return [load_checkpoint(file) for file in files]


def save_progress(path: Path, key: str, progress: Mapping[str, Any]) -> None:
    """Write what a seed needs to go on; `key` says which training it belongs to."""
    _save(path, {"format": _PROGRESS, "key": key, **progress})


def load_progress(path: Path, key: str) -> dict[str, Any] | None:
    """What `save_progress` wrote under this key; None where there is nothing of the kind."""
    try:
        content = _load(path, _PROGRESS)
    except CheckpointError:
        return None
    return content if content["key"] == key else None


def _save(path: Path, content: Mapping[str, Any]) -> None:
    with publish(path) as temporary:
        torch.save(dict(content), temporary)


def _load(path: Path, kind: str) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        wrong = wrong_kind(path, "a checkpoint of clipmsa")
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(wrong or f"{path}: not a checkpoint of clipmsa ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != kind:
        raise CheckpointError(f"{path}: not a checkpoint of clipmsa")
    return content
