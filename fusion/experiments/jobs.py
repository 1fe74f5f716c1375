"""Training jobs, and who works on them: this process, processes side by side, or a Ray cluster.

A job is one seed of one configuration. It leaves `model-<seed>.pt` in its folder, with all that it
gave, so an engine passes paths alone; what is there already is not done again. On a CPU a job
takes one thread. Two seeds on two cores are then done in little more than the time of one, where a
second thread saves one seed a third at best (3.8 to 2.7 s an epoch at the size of MOSI; 4.5 s on a
busy machine), and a seed gives the same bits alone and in company.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from clipmsa.cache import FeatureStore
from clipmsa.cache.cluster import connect
from clipmsa.cache.errors import CheckpointError, ClipmsaError, ConfigError, TrainingError
from clipmsa.cache.plugins import trust, trusted
from clipmsa.fusion.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from clipmsa.fusion.training.config import RunConfig
from clipmsa.fusion.training.data import FeatureData, streams_by_role
from clipmsa.fusion.training.folder import RunFolder
from clipmsa.fusion.training.outcome import Epoch
from clipmsa.fusion.training.trainer import train_seed

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Job:
    """One seed of one configuration, to be trained on the store at a path.

    `digest` is that of the data (`FeatureData.digest`) which the run began with: a store that is
    written anew meanwhile is other data, and no seed of this run.
    """

    store: Path
    config: RunConfig
    seed: int
    folder: Path
    digest: str
    device: str = "cpu"
    splits: tuple[str, ...] = ("valid", "test")  # to be predicted in the end
    trusted: tuple[str, ...] = field(default_factory=trusted)  # whose networks it may find

    @property
    def path(self) -> Path:
        """Where its checkpoint goes."""
        return RunFolder(self.folder).model(self.seed)

    @property
    def progress(self) -> Path:
        """What an interrupted attempt goes on from."""
        return RunFolder(self.folder).progress(self.seed)

    def data(self) -> FeatureData:
        """The features it is trained on.

        Raises:
            ConfigError: the store lacks what the configuration names.
            TrainingError: the store is no longer the one that the run began with.
        """
        store = FeatureStore(self.store)
        data = FeatureData(
            store, streams_by_role(store, self.config.model), torch.device(self.device)
        )
        if data.digest != self.digest:
            raise TrainingError(
                f"{self.store}: written anew since this run began, with other labels, splits or "
                f"features; run the same command again to train every seed on it as it is now"
            )
        return data

    def finished(self) -> Checkpoint | None:
        """Its checkpoint, if it was trained as it would be now, on the same data."""
        try:
            return self.result()
        except (CheckpointError, TrainingError):
            return None

    def result(self) -> Checkpoint:
        """Its checkpoint.

        Raises:
            CheckpointError: there is none, or it is damaged.
            TrainingError: it is there, and is not of this job.
        """
        found = load_checkpoint(self.path)
        same = (found.config, found.seed, found.data) == (self.config, self.seed, self.digest)
        whole = found.outcome.history and found.outcome.predictions.keys() >= set(self.splits)
        if not (same and whole):
            raise TrainingError(
                f"{self.path}: of other settings or data than this run; did another one write "
                f"there? Run the same command again, or use another --out"
            )
        return found


OnEpoch = Callable[[Job, Epoch], None]
OnDone = Callable[[Job], None]


def train_job(job: Job, on_epoch: Callable[[Epoch], None] = lambda epoch: None) -> None:
    """Train, and write the checkpoint; go on from where an interrupted attempt was."""
    trust(job.trusted)  # in a process of its own, nobody has said so yet
    if job.finished() is not None:
        return
    data = job.data()
    with _one_thread():
        outcome = train_seed(data, job.config, job.seed, on_epoch, job.progress, job.splits)
    save_checkpoint(job.path, job.config, data.roles, job.digest, outcome)
    job.progress.unlink(missing_ok=True)


def run_jobs(
    jobs: Sequence[Job],
    *,
    engine: str = "local",
    workers: int = 1,
    on_epoch: OnEpoch = lambda job, epoch: None,
    on_done: OnDone = lambda job: None,
) -> None:
    """Train every job, `workers` at a time; `on_done` is told as each one ends.

    Raises:
        ConfigError: no such engine.
        ClipmsaError: Ray is not installed, or cannot be reached.
        TrainingError: of a job; those that were finished are kept.
    """
    if engine not in ENGINES:
        raise ConfigError(f"--engine {engine}: must be one of {', '.join(ENGINES)}")
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
    if engine == "ray":
        _on_ray(jobs, on_done)
    elif min(workers, len(jobs)) > 1:
        _side_by_side(jobs, min(workers, len(jobs)), on_epoch, on_done)
    else:
        for job in jobs:
            train_job(job, lambda epoch, job=job: on_epoch(job, epoch))  # type: ignore[misc]
            on_done(job)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# -- processes side by side -----------------------------------------------------------------------

_Told = tuple[int, Epoch]


def _side_by_side(jobs: Sequence[Job], workers: int, on_epoch: OnEpoch, on_done: OnDone) -> None:
    # Spawned: a forked copy of a process whose torch has threads may hang.
    context = multiprocessing.get_context("spawn")
    told: SimpleQueue[_Told | None] = context.SimpleQueue()

    def listen() -> None:
        while (item := told.get()) is not None:
            on_epoch(jobs[item[0]], item[1])

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, _begin_worker, (told,)) as pool:
        try:
            with _ctrl_c_for_us_alone():
                waiting = {pool.submit(_work, number, job): job for number, job in enumerate(jobs)}
            for job in _as_completed(waiting):
                on_done(job)
        except BaseException:
            # Whatever they are doing, even loading: what they write appears whole or not at all.
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise
        told.put(None)
        listener.join()


@contextmanager
def _ctrl_c_for_us_alone() -> Iterator[None]:
    """Processes that are started within do not hear Ctrl-C, which a terminal sends to all.

    They would print tracebacks, while they load too. What is blocked stays so in a new process.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _as_completed(waiting: dict[Future[None], Job]) -> Iterator[Job]:
    left = set(waiting)
    while left:
        # With a time limit, so that Ctrl-C is heard on every platform.
        done, left = wait(left, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in done:
            try:
                future.result()
            except ClipmsaError:
                raise
            except Exception as error:
                raise _ended(waiting[future], error) from error
            yield waiting[future]


def _ended(job: Job, error: BaseException) -> ClipmsaError:
    return ClipmsaError(
        f"{job.folder}: seed {job.seed} ended with {type(error).__name__}: {error}; "
        f"run the same command again to go on"
    )


_told: SimpleQueue[_Told | None]


def _begin_worker(told: SimpleQueue[_Told | None]) -> None:
    global _told
    _told = told
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait_for_any([parent.sentinel])
        os._exit(1)  # the parent was killed: nobody waits for this work

    threading.Thread(target=follow, daemon=True).start()


def _work(number: int, job: Job) -> None:
    train_job(job, lambda epoch: _told.put((number, epoch)))


# -- a Ray cluster --------------------------------------------------------------------------------


def _on_ray(jobs: Iterable[Job], on_done: OnDone) -> None:
    """Jobs as Ray tasks, tried again where a node dies; paths must mean the same on every node."""
    ray = connect()
    task = ray.remote(train_job)
    waiting = {}
    for job in jobs:
        there = replace(job, store=job.store.resolve(), folder=job.folder.resolve())
        gpus = 0 if job.device == "cpu" else 1
        options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": 3}
        waiting[task.options(**options).remote(there)] = job
    left = list(waiting)
    while left:
        done, left = ray.wait(left)
        for reference in done:
            try:
                ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                if isinstance(cause, ClipmsaError):
                    raise cause from None
                raise _ended(waiting[reference], cause) from error
            on_done(waiting[reference])
