"""A trained model in one file that rebuilds itself: weights, configuration, provenance, results.

Beside it, while a seed trains, lies its *progress*: all that the next epoch depends on, so that an
interrupted run goes on as if nothing had happened. Both are plain containers and tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clipmsa.cache import StreamSpec
from clipmsa.cache.checked import one_line
from clipmsa.cache.errors import CheckpointError, ClipmsaError, PluginError, TrainingError
from clipmsa.fusion.networks.registry import Trainable

from . import tensorfile
from .config import RunConfig, config_from_plain
from .folder import RunFolder
from .outcome import Outcome

_MODEL, _PROGRESS = "clipmsa-model", "clipmsa-progress"
_STREAMS = TypeAdapter(dict[str, StreamSpec])
_VERSIONS = TypeAdapter(dict[str, str])
_SEEDS = TypeAdapter(list[int])


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
    """Write a checkpoint, whole or not at all.

    Raises:
        TrainingError: a weight or a statistic is not a number: such a model scores nothing.
    """
    for key, tensor in outcome.state.items():
        if not tensor.isfinite().all():
            raise TrainingError(
                f"{path}: '{key}' of the trained model is not a number; features are too large, or "
                f"the training diverged: `clipmsa verify` shows the former, a lower learning_rate "
                f"mends the latter"
            )
    tensorfile.save(
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
    """Read a checkpoint that anybody may have written; nothing in it is executed.

    What it holds fits the network that it names, and is numbers: a checkpoint that is given back
    can be used.

    Raises:
        CheckpointError: no such file, not a checkpoint of clipmsa, or damaged.
    """
    content = _load(path, _MODEL)
    try:
        outcome = Outcome.from_plain(content["outcome"])
        plain = dict(content["config"])
        if "normalise" not in plain["model"]:  # of 0.1: a network that takes its inputs as is
            plain["model"] = plain["model"] | {"normalise": "none"}
            outcome.state = {f"network.{key}": value for key, value in outcome.state.items()}
        config = config_from_plain(plain)
        streams = _STREAMS.validate_python(content["streams"])
        versions = _VERSIONS.validate_python(content["versions"])
        _check_state(config, streams, outcome.state)
        return Checkpoint(config, streams, str(content["data"]), versions, outcome)
    except PluginError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, ClipmsaError) as error:
        raise CheckpointError(
            f"{path}: a checkpoint of another version of clipmsa, or damaged "
            f"({one_line(error)}); train again"
        ) from None


class _NotDrawn(TorchFunctionMode):
    """Leaves out the draw of numbers that nothing holds: torch would load 900 modules for it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def _check_state(
    config: RunConfig, streams: Mapping[str, StreamSpec], state: Mapping[str, Tensor]
) -> None:
    """Compare weights with those of the network, which takes no memory for it."""
    with torch.device("meta"), _NotDrawn():
        expected = Trainable(config.model, streams).state_dict()
    if odd := sorted(expected.keys() ^ state.keys()):
        raise ValueError(f"weights '{odd[0]}' are {'missing' if odd[0] in expected else 'unknown'}")
    for key, tensor in expected.items():
        found = state[key]
        if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(
                f"weights '{key}' are {found.dtype} of shape {tuple(found.shape)}, "
                f"must be {tensor.dtype} of {tuple(tensor.shape)}"
            )
        if not found.isfinite().all():
            raise ValueError(f"weights '{key}' are not all numbers")


def load_run(path: Path) -> list[Checkpoint]:
    """The checkpoints of one file, or of a run's folder: of the seeds that its metrics.json names.

    A folder without metrics.json gives all that it holds, be it that files were copied there.

    Raises:
        CheckpointError: nothing there, not checkpoints of clipmsa, or not of one run.
    """
    if not path.is_dir():
        return [load_checkpoint(path)]
    folder = RunFolder(path)
    table = folder.metrics
    try:
        seeds = json.loads(table.read_text(encoding="utf-8"))["seeds"]
        files = [folder.model(seed) for seed in _SEEDS.validate_python(seeds, strict=True)]
    except FileNotFoundError:
        files = folder.models
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{table}: not that of a run ({one_line(error)})") from None
    if not files:
        raise CheckpointError(
            f"{path}: holds no model-SEED.pt; `clipmsa train --features STORE --out {path}` "
            f"writes them"
        )
    first, *others = checkpoints = [load_checkpoint(file) for file in files]
    for other in others:
        if (other.config, other.streams, other.data) != (first.config, first.streams, first.data):
            raise CheckpointError(
                f"{path}: the models of seeds {first.seed} and {other.seed} were not trained "
                f"in one run (their settings, features or labels differ); name one of the files"
            )
    return checkpoints


def save_progress(path: Path, key: str, progress: Mapping[str, Any]) -> None:
    """Write what a seed needs to go on; `key` says which training it belongs to."""
    tensorfile.save(path, {"format": _PROGRESS, "key": key, **progress})


def check_progress(path: Path) -> None:
    """Nothing where there is no progress, or what `save_progress` wrote of any training.

    Raises:
        CheckpointError: something else is there.
    """
    if path.exists():
        _load(path, _PROGRESS)


def load_progress(path: Path, key: str) -> dict[str, Any] | None:
    """What `save_progress` wrote under this key; None where there is nothing of the kind."""
    try:
        content = _load(path, _PROGRESS)
    except CheckpointError:
        return None
    return content if content.get("key") == key else None


def _load(path: Path, kind: str) -> dict[str, Any]:
    content = tensorfile.load(path)
    if content.get("format") != kind:
        raise CheckpointError(f"{path}: not a checkpoint of clipmsa")
    return content
