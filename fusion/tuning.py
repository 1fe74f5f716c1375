"""Search over the configuration, by Optuna, on validation alone: split test is never predicted.

Field practice has tuned on the test split (MMSA since its commit 22a8be7); what is found that way
does not hold on other data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tomli_w
import torch

from clipmsa.cache import FeatureStore
from clipmsa.cache.csvtext import csv_text
from clipmsa.cache.errors import ConfigError
from clipmsa.cache.files import publish_text

from .checkpoint import load_checkpoint
from .config import RunConfig, as_plain, read_toml, with_values
from .data import FeatureData, streams_by_role
from .jobs import Job, run_jobs
from .metrics import regression_metrics
from .reference import against_references, reference_scores, verdicts

if TYPE_CHECKING:
    import optuna

SEARCH = Path(__file__).with_name("search.toml")


class Tuned(NamedTuple):
    """What a search found so far."""

    config: RunConfig
    valid_mae: float  # mean over the seeds
    trials: int  # all that there are, of earlier calls too
    verdicts: list[str]  # what its models are not better than, on validation


def read_search(path: Path, config: RunConfig | None = None) -> dict[str, dict[str, Any]]:
    """The [search] table of a TOML file: by setting of `config`, what it is drawn from.

    Raises:
        ConfigError: no such table, a setting that does not exist, or no range.
    """
    table = read_toml(path).get("search")
    if not isinstance(table, dict) or not table:
        raise ConfigError(f"{path}: no [search] table with settings to try")
    for key, space in table.items():
        where = f"{path} [search] {key}"
        ends = isinstance(space, dict) and {"low", "high"} <= space.keys() <= {"low", "high", "log"}
        choices = isinstance(space, dict) and space.keys() == {"choices"} and space["choices"]
        if not (ends or choices):
            raise ConfigError(f"{where}: must be {{ low, high, log? }} or {{ choices = [...] }}")
        for value in space["choices"] if choices else (space["low"], space["high"]):
            with_values(config or RunConfig(), {key: value}, where)
    return table


def tune(
    store: FeatureStore,
    config: RunConfig,
    out: Path,
    *,
    trials: int,
    search: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    workers: int = 1,
    on_trial: Callable[[int, float, dict[str, Any]], None] = lambda number, mae, params: None,
) -> Tuned:
    """Try settings until there are `trials` of them, and write best.toml and trials.csv.

    The score of a trial is the lowest validation MAE of its epochs, averaged over the seeds. Trials
    are kept in `out`/study.db: called again, the search goes on. Trials are drawn by Optuna's TPE
    with a fixed seed; those of one round, `workers` at a time, do not know of one another.

    Raises:
        ConfigError: the store lacks what the configuration names, Optuna is not installed, or the
            search of an earlier call was another one.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("tune: Optuna is not installed; pip install 'clipmsa[tune]'") from None
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = FeatureData(store, streams_by_role(store, config.model), torch.device("cpu"))
    study = optuna.create_study(
        storage=f"sqlite:///{out / 'study.db'}",
        study_name="clipmsa",
        sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True),
        load_if_exists=True,
    )
    what = {"base": as_plain(config), "search": dict(search), "seeds": list(seeds)}
    _refuse_another(study, what | {"data": data.digest}, out)
    complete = (optuna.trial.TrialState.COMPLETE,)

    def done() -> int:
        return len(study.get_trials(deepcopy=False, states=complete))

    side_by_side = max(1, workers // len(seeds))
    while (left := trials - done()) > 0:
        asked = [study.ask() for _ in range(min(left, side_by_side))]
        jobs = {
            trial.number: [
                Job(store.path, _drawn(trial, config, search), seed, out / f"trial-{trial.number}",
                    str(device), ("valid",))
                for seed in seeds
            ]
            for trial in asked
        }  # fmt: skip
        run_jobs([job for batch in jobs.values() for job in batch], workers=workers)
        for trial in asked:
            maes = [load_checkpoint(job.path).outcome.valid_mae for job in jobs[trial.number]]
            study.tell(trial, sum(maes) / len(maes))
            on_trial(trial.number, sum(maes) / len(maes), trial.params)
    best = with_values(config, study.best_params, "best trial")
    _write(out, study, best)
    said = _verdicts(data, out / f"trial-{study.best_trial.number}", seeds, study.best_value)
    return Tuned(best, study.best_value, done(), said)


def _verdicts(data: FeatureData, trial: Path, seeds: Sequence[int], mae: float) -> list[str]:
    """What the models of a trial are not better than, on the validation that chose them."""
    outcomes = [load_checkpoint(trial / f"model-{seed}.pt").outcome for seed in seeds]
    preds = np.stack([outcome.predictions["valid"] for outcome in outcomes])
    truth = data.labels[data.labelled_rows("valid")].double().numpy()
    scores = {name: of["valid"] for name, of in reference_scores(data, ("valid",)).items()}
    references = {name: regression_metrics(of, truth) for name, of in scores.items()}
    return verdicts(mae, references, against_references(preds, scores, truth))


def _refuse_another(study: optuna.Study, what: dict[str, Any], out: Path) -> None:
    """A search that goes on must be the same search, or its trials could not be compared."""
    before = study.user_attrs.get("what")
    if before is None:
        study.set_user_attr("what", what)
    elif before != what:
        changed = ", ".join(key for key in what if before.get(key) != what[key])
        raise ConfigError(
            f"{out}: holds trials of another search (it differs in {changed}); use another --out"
        )


def _drawn(
    trial: optuna.Trial, config: RunConfig, search: Mapping[str, Mapping[str, Any]]
) -> RunConfig:
    values: dict[str, Any] = {}
    for key, space in search.items():
        if "choices" in space:
            values[key] = trial.suggest_categorical(key, space["choices"])
        elif isinstance(space["low"], int) and isinstance(space["high"], int):
            values[key] = trial.suggest_int(
                key, space["low"], space["high"], log=space.get("log", False)
            )
        else:
            values[key] = trial.suggest_float(
                key, space["low"], space["high"], log=space.get("log", False)
            )
    return with_values(config, values, f"trial {trial.number}")


def _write(out: Path, study: optuna.Study, best: RunConfig) -> None:
    publish_text(out / "best.toml", tomli_w.dumps(as_plain(best)))
    keys = list(study.best_params)
    lines = [
        [trial.number, trial.value, *(trial.params[key] for key in keys)]
        for trial in study.get_trials(deepcopy=False)
        if trial.value is not None
    ]
    publish_text(out / "trials.csv", csv_text(["trial", "valid_mae", *keys], lines))
