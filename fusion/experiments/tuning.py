"""Search over the configuration, by Optuna, on validation alone: split test is never predicted.

Field practice has tuned on the test split (MMSA since its commit 22a8be7); what is found that way
does not hold on other data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import numpy as np
import tomli_w
import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from clipmsa.cache import FeatureStore
from clipmsa.cache.checked import one_line
from clipmsa.cache.csvtext import csv_text
from clipmsa.cache.errors import ClipmsaError, ConfigError, RunError
from clipmsa.cache.files import publish_text, sole_writer
from clipmsa.fusion.metrics.regression import regression_metrics
from clipmsa.fusion.training.config import RunConfig, as_plain, check_seeds, read_toml, with_values
from clipmsa.fusion.training.data import FeatureData, streams_by_role

from .jobs import ONE_CORE, Job, Resources, run_jobs
from .reference import against_references, reference_scores, verdicts

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

SEARCH = Path(__file__).with_name("search.toml")
_TRIED = 4096  # whole numbers of a range that are tried before any trial
_STRICT = ConfigDict(extra="forbid", strict=True)


class _Choices(BaseModel):
    model_config = _STRICT
    choices: Annotated[list[bool | int | float | str], Field(min_length=1)]


class _Range(BaseModel):
    model_config = _STRICT
    low: int | FiniteFloat
    high: int | FiniteFloat
    log: bool = False

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("must rise, in the logarithm from above 0")
        return self


_SPACE: TypeAdapter[_Choices | _Range] = TypeAdapter(_Choices | _Range)


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
    base = config or RunConfig()
    for key, space in table.items():
        where = f"{path} [search] {key}"
        for value in _values(space, where):
            with_values(base, {key: value}, where)
        if "low" in space and _whole(base, key):
            for value in range(space["low"], min(space["high"], space["low"] + _TRIED) + 1):
                with_values(base, {key: value}, f"{where}, which may draw {value}")
    return table


def _values(space: Any, where: str) -> list[Any]:
    """Both ends of a range, or the choices; refuses what is neither."""
    try:
        found = _SPACE.validate_python(space)
    except ValidationError:
        raise ConfigError(
            f"{where}: must be {{ low, high, log? }}, numbers with low <= high (and low > 0 where "
            f"log = true), or {{ choices = [...] }} of numbers, texts, true and false"
        ) from None
    return list(found.choices) if isinstance(found, _Choices) else [found.low, found.high]


def _whole(config: RunConfig, key: str) -> bool:
    """Whether a setting is a whole number: of 0 and 1 as ends of a dropout, all between count."""
    model = config.model if hasattr(config.model, key) else config.training
    return isinstance(getattr(model, key), int)


def tune(
    store: FeatureStore,
    config: RunConfig,
    out: Path,
    *,
    trials: int,
    search: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    resources: Resources = ONE_CORE,
    on_trial: Callable[[int, float, dict[str, Any]], None] = lambda number, mae, params: None,
) -> Tuned:
    """Try settings until there are `trials` of them, and write best.toml and trials.csv.

    The score of a trial is the lowest validation MAE of its epochs, averaged over the seeds. Trials
    are kept in `out`/study.db: called again, the search goes on. Trials are drawn by Optuna's TPE
    with a fixed seed; those of one round, side by side, do not know of one another.

    Raises:
        ConfigError: the store lacks what the configuration names, Optuna is not installed, or the
            search of an earlier call was another one.
        RunError: the trials of earlier calls cannot be read, or new ones written.
        TrainingError: numbers are not finite, or the store was written anew meanwhile.
        ClipmsaError: another process writes to the folder.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("tune: Optuna is not installed; pip install 'clipmsa[tune]'") from None
    check_seeds(seeds)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = FeatureData(store, streams_by_role(store, config.model), torch.device("cpu"))
    what = {"base": as_plain(config), "search": dict(search), "seeds": list(seeds)}
    space = _distributions(config, search)
    with sole_writer(out), _study(out) as study:
        _refuse_another(study, what | {"data": data.digest}, out)
        _refuse_odd_trials(study, space, out)
        complete = (optuna.trial.TrialState.COMPLETE,)

        def done() -> int:
            return len(study.get_trials(deepcopy=False, states=complete))

        side_by_side = max(1, resources.workers // len(seeds))
        while (left := trials - done()) > 0:
            asked = [study.ask(space) for _ in range(min(left, side_by_side))]
            jobs: dict[int, list[Job]] = {}
            for trial in asked:
                drawn = with_values(config, trial.params, f"trial {trial.number}")
                jobs[trial.number] = _jobs(trial.number, data, drawn, seeds, out, resources.device)
            run_jobs([job for batch in jobs.values() for job in batch], resources)
            for trial in asked:
                maes = [job.result().outcome.valid_mae for job in jobs[trial.number]]
                study.tell(trial, sum(maes) / len(maes))
                on_trial(trial.number, sum(maes) / len(maes), trial.params)
        best = with_values(config, study.best_params, "best trial")
        _write(out, study, best)
        best_jobs = _jobs(study.best_trial.number, data, best, seeds, out, resources.device)
        return Tuned(best, study.best_value, done(), _verdicts(data, best_jobs, study.best_value))


def _verdicts(data: FeatureData, jobs: Sequence[Job], mae: float) -> list[str]:
    """What the models of a trial are not better than, on the validation that chose them."""
    outcomes = [job.result().outcome for job in jobs]
    preds = np.stack([outcome.predictions["valid"] for outcome in outcomes])
    truth = data.labels[data.labelled_rows("valid")].double().numpy()
    scores = {name: of["valid"] for name, of in reference_scores(data, ("valid",)).items()}
    references = {name: regression_metrics(of, truth) for name, of in scores.items()}
    return verdicts(mae, references, against_references(preds, scores, truth))


@contextmanager
def _study(out: Path) -> Iterator[optuna.Study]:
    """The trials that a folder keeps; what goes wrong in their database is an error of ours."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    path = out / "study.db"
    if path.exists() and not path.is_file():  # SQLite would wait for a pipe
        raise RunError(f"{path}: not a regular file; use another `out`")
    try:
        with _of_a_search(path):
            study = optuna.create_study(
                storage=f"sqlite:///{path}",
                study_name="clipmsa",
                sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True),
                load_if_exists=True,
            )
            study.get_trials(deepcopy=False)  # reads all that there is, and keeps what is complete
        yield study
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise RunError(
            f"{path}: the trials cannot be read or written ({reason}); if the disk is full, make "
            f"room and run the same command again, else use another `out`"
        ) from None


@contextmanager
def _of_a_search(path: Path) -> Iterator[None]:
    """Optuna builds trials from what a database says, and stumbles in its own ways where it lies.

    Errors of the database pass.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError, ClipmsaError):
        raise
    except Exception as error:
        raise RunError(
            f"{path}: not the trials of a search ({one_line(error)}); use another `out`"
        ) from None


def _jobs(
    trial: int, data: FeatureData, config: RunConfig, seeds: Sequence[int], out: Path, device: str
) -> list[Job]:
    """A trial's seeds; of a trial the test split is never predicted."""
    path, folder = data.store.path, out / f"trial-{trial}"
    return [Job(path, config, s, folder, data.digest, device, ("valid",)) for s in seeds]


def _refuse_another(study: optuna.Study, what: dict[str, Any], out: Path) -> None:
    """A search that goes on must be the same search, or its trials could not be compared."""
    with _of_a_search(out / "study.db"):
        before = study.user_attrs.get("what")
        if before is None:
            study.set_user_attr("what", what)
            return
        changed = ", ".join(key for key in what if before.get(key) != what[key])
    if before != what:
        raise ConfigError(
            f"{out}: holds trials of another search (it differs in {changed}); use another `out`"
        )


def _refuse_odd_trials(
    study: optuna.Study, space: Mapping[str, BaseDistribution], out: Path
) -> None:
    """What earlier calls kept is taken for drawn from this space, and for scored by it."""
    with _of_a_search(out / "study.db"):
        if study.direction.name != "MINIMIZE":
            raise ValueError(f"its direction is {study.direction.name}")
        for trial in study.get_trials(deepcopy=False):
            if trial.state.name != "COMPLETE":
                continue
            if trial.distributions != space:
                raise ValueError(f"trial {trial.number} is drawn from another space")
            if trial.value is None or not math.isfinite(trial.value):
                raise ValueError(f"the score of trial {trial.number} is {trial.value}")


def _distributions(
    config: RunConfig, search: Mapping[str, Mapping[str, Any]]
) -> dict[str, BaseDistribution]:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: dict[str, BaseDistribution] = {}
    for key, space in search.items():
        if "choices" in space:
            found[key] = CategoricalDistribution(space["choices"])
        elif _whole(config, key):
            found[key] = IntDistribution(space["low"], space["high"], space.get("log", False))
        else:
            found[key] = FloatDistribution(space["low"], space["high"], space.get("log", False))
    return found


def _write(out: Path, study: optuna.Study, best: RunConfig) -> None:
    publish_text(out / "best.toml", tomli_w.dumps(as_plain(best)))
    keys = list(study.best_params)
    lines = [
        [trial.number, trial.value, *(trial.params[key] for key in keys)]
        for trial in study.get_trials(deepcopy=False)
        if trial.value is not None
    ]
    publish_text(out / "trials.csv", csv_text(["trial", "valid_mae", *keys], lines))
