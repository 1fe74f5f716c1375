"""Runs shown in TensorBoard, Weights & Biases or MLflow, whichever is installed.

What a tracker gets is what the run's folder holds anyway: its configuration, its history as it
grows, and in the end its test metrics. A seed is a run of its own there, so that curves compare.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from clipmsa.cache.errors import ConfigError
from clipmsa.fusion.training.config import RunConfig
from clipmsa.fusion.training.outcome import Epoch

from .runs import Run


class Tracker(ABC):
    """Where the numbers of one seed go."""

    @abstractmethod
    def log(self, values: Mapping[str, float], epoch: int) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class TensorBoard(Tracker):
    """Event files in the run's folder, one folder a seed: `tensorboard --logdir RUN`."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(folder / "tensorboard" / name)
        lines = (f"    {key} = {value}" for key, value in config.items())
        self.writer.add_text("config", "\n".join(lines))

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, epoch)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases(Tracker):
    """Project `clipmsa`, the run's folder as the group; WANDB_* variables say the rest."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project="clipmsa",
            group=folder.name,
            name=f"{folder.name}-{name}",
            config=dict(config),
            dir=str(folder),
            reinit="create_new",
        )

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        self.run.log(dict(values), step=epoch)

    def close(self) -> None:
        self.run.finish()


class MLflow(Tracker):
    """Experiment `clipmsa`; MLFLOW_TRACKING_URI says where, ./mlruns or a database otherwise."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient()
        found = self.client.get_experiment_by_name("clipmsa")
        id_ = found.experiment_id if found else self.client.create_experiment("clipmsa")
        run = self.client.create_run(id_, run_name=f"{folder.name}-{name}")
        self.id = run.info.run_id
        for key, value in config.items():
            self.client.log_param(self.id, key, value)

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        for key, value in values.items():
            self.client.log_metric(self.id, key, value, step=epoch)

    def close(self) -> None:
        self.client.set_terminated(self.id)


_TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


class Tracking:
    """The trackers of a run's seeds: made as their first epoch comes, closed with the run.

    Raises:
        ConfigError: no such tracker, or it is not installed.
    """

    def __init__(self, kind: str, folder: Path, config: RunConfig) -> None:
        if kind not in _TRACKERS:
            raise ConfigError(f"`track={kind!r}`: must be one of {', '.join(_TRACKERS)}")
        try:
            import_module(kind)
        except ImportError:
            raise ConfigError(f"`track={kind!r}`: not installed; pip install {kind}") from None
        self._make, self._folder = _TRACKERS[kind], folder
        tables = asdict(config)
        self._config = {"variant": config.variant, **tables["model"], **tables["training"]}
        self._of_seed: dict[int, Tracker] = {}

    def on_epoch(self, epoch: Epoch) -> None:
        """Pass an epoch on."""
        self._tracker(epoch.seed).log(
            {
                "train/loss": epoch.train_loss,
                "valid/mae": epoch.valid_mae,
                "valid/corr": epoch.valid_corr,
            },
            epoch.epoch,
        )

    def finish(self, run: Run) -> None:
        """Pass the test metrics of the seeds that were trained now on, and close."""
        for outcome in run.outcomes:
            if outcome.seed in self._of_seed:
                values = {f"test/{key}": value for key, value in outcome.metrics["test"].items()}
                self._of_seed[outcome.seed].log(values, outcome.best_epoch)
        self.close()

    def close(self) -> None:
        for tracker in self._of_seed.values():
            tracker.close()
        self._of_seed.clear()

    def _tracker(self, seed: int) -> Tracker:
        if seed not in self._of_seed:
            config = self._config | {"seed": seed}
            self._of_seed[seed] = self._make(self._folder, f"seed-{seed}", config)
        return self._of_seed[seed]
