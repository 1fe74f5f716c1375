"""`--engine ray`: the same work by actors on a Ray cluster, each holding the encoders.

The driver keeps the manifest, the parts and the store, and gives out units: a few clips each, two
at a time to every actor, so that one is decoded while the other is encoded. Features come back to
the driver, which is the only writer, as it is with the local engine; what a killed run had
published is there for the next one.

An actor that dies takes its units with it. A new one takes its place, and its units are given out
again, halved and each to an actor of its own: a clip that kills whatever decodes it ends up alone,
and is listed as a failure, like a clip that cannot be read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clipmsa.cache import StreamSpec, plugins
from clipmsa.cache.cluster import connect
from clipmsa.cache.errors import ClipmsaError
from clipmsa.cache.spec import Failure
from clipmsa.extract.datasets.read import Clip

from .plan import Settings, StreamPlan
from .worker import Result, Worker, Workers

_AHEAD = 2  # units that an actor has: one is decoded while the other is encoded
_LIVES = 3  # actors that may die over one clip, or one after the other while loading


@dataclass(frozen=True)
class Cluster:
    """What to ask of a Ray cluster."""

    address: str | None = None  # as ray.init takes it: None finds one, or else starts one here
    workers: int | None = None  # actors; None for as many as there is room for
    cpus: float = 2  # an actor: threads that decode, and compute where there is no GPU
    gpus: float = 0  # an actor; 0.25 puts four on a GPU

    def __call__(self, plans: Mapping[str, StreamPlan], settings: Settings) -> Workers:
        """The engine: actors for a run.

        Raises:
            ClipmsaError: Ray is not installed, cannot be reached, or has no room for an actor.
            WeightsError: a checkpoint is not where an actor looks for it.
        """
        return _RayWorkers(self, plans, replace(settings, workers=max(1, int(self.cpus)), lanes=1))


class _Actor:
    """Runs units in its own process, two at a time; Ray makes the threads."""

    def __init__(
        self, plans: Mapping[str, StreamPlan], settings: Settings, places: plugins.Places
    ) -> None:
        self.plans, self.settings, self.places = plans, settings, places

    def load(self) -> Mapping[str, StreamSpec]:
        """Not in __init__, out of which Ray makes an error of its own from any other."""
        self.places.use()
        self.worker = Worker(self.plans, self.settings)
        return self.worker.specs

    def encode(self, clips: Sequence[Clip], streams: frozenset[str]) -> list[Result]:
        return [result for batch in self.worker.encode(clips, streams) for result in batch]


@dataclass
class _Unit:
    clips: Sequence[Clip]
    deaths: int = 0  # of actors that had it

    def halves(self) -> list[_Unit]:
        middle = len(self.clips) // 2
        pieces = (self.clips[:middle], self.clips[middle:])
        return [_Unit(piece, self.deaths + 1) for piece in pieces if piece]


class _RayWorkers:
    def __init__(
        self, cluster: Cluster, plans: Mapping[str, StreamPlan], settings: Settings
    ) -> None:
        self.ray = connect(cluster.address)
        self.specs: Mapping[str, StreamSpec] = {}
        self.batch = settings.batch_clips
        options = {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus, "max_concurrency": _AHEAD}
        actor_class = self.ray.remote(**options)(_Actor)
        self._new: Callable[[], Any] = lambda: actor_class.remote(
            plans, settings, plugins.Places.here()
        )
        self.loading: dict[Any, Any] = {}  # reference -> actor
        self.running: dict[Any, tuple[Any, _Unit]] = {}  # reference -> actor, what it does
        self.actors: list[Any] = []  # that have loaded
        self.failed_loads = 0
        try:
            for _ in range(cluster.workers or self._room(cluster)):
                self._start()
            while not self.actors:
                self._await(list(self.loading))
        except BaseException:
            self.close()
            raise

    def encode(self, clips: Sequence[Clip], streams: frozenset[str]) -> Iterator[list[Result]]:
        """The results of a unit at a time, in the order in which actors finish."""
        starts = range(0, len(clips), self.batch)
        units = deque(_Unit(clips[start : start + self.batch]) for start in starts)
        while units or self.running:
            for actor in self.actors:
                while units and self._may_have(actor, units[0]):
                    unit = units.popleft()
                    self.running[actor.encode.remote(unit.clips, streams)] = (actor, unit)
            finished = self._await([*self.running, *self.loading])
            if finished is None:
                continue
            unit, results = finished
            if results is not None:
                yield results
            elif len(unit.clips) == 1 and unit.deaths + 1 >= _LIVES:
                reason = f"{_LIVES} workers died over it, one after the other"
                yield [Failure(unit.clips[0].utterance.id, "worker", reason)]
            else:
                units.extendleft(unit.halves())

    def close(self) -> None:
        for actor in [*self.actors, *self.loading.values()]:
            self.ray.kill(actor)
        self.actors, self.loading, self.running = [], {}, {}

    def _room(self, cluster: Cluster) -> int:
        """How many actors the cluster has room for."""
        there = self.ray.cluster_resources()
        asked = {"CPU": cluster.cpus, "GPU": cluster.gpus}
        count = min(int(there.get(key, 0) // amount) for key, amount in asked.items() if amount)
        if not count:
            raise ClipmsaError(
                f"the Ray cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} "
                f"GPUs, a worker asks for {cluster.cpus:g} and {cluster.gpus:g}; "
                f"ask for less with `ray_cpus` and `ray_gpus`"
            )
        return count

    def _start(self) -> None:
        actor = self._new()
        self.loading[actor.load.remote()] = actor

    def _may_have(self, actor: Any, unit: _Unit) -> bool:
        """At most two units an actor, and what has seen one die is alone with it."""
        others = [other for owner, other in self.running.values() if owner is actor]
        if unit.deaths or any(other.deaths for other in others):
            return not others
        return len(others) < _AHEAD

    def _await(self, references: Sequence[Any]) -> tuple[_Unit, list[Result] | None] | None:
        """What happens next: a unit with its results, or with None if its actor died; None where
        it was an actor that has loaded, or failed to.
        """
        lost = self.ray.exceptions.RayActorError, self.ray.exceptions.ObjectLostError
        (reference,), _ = self.ray.wait(references, num_returns=1)
        loading = self.loading.pop(reference, None)
        actor, unit = (loading, None) if loading else self.running.pop(reference)
        try:
            answer = self.ray.get(reference)
        except lost as error:
            if actor in self.actors or loading:  # of its two units the first to be missed
                self.failed_loads += bool(loading)
                if self.failed_loads >= _LIVES:
                    reason = str(error).splitlines()[0]
                    raise ClipmsaError(f"workers die while they load: {reason}") from None
                self.actors = [other for other in self.actors if other is not actor]
                self.ray.kill(actor)  # where it was only its answer that got lost
                self._start()
            return (unit, None) if unit else None
        except self.ray.exceptions.RayTaskError as error:
            self.ray.kill(actor)  # it is in neither list now, if it was loading
            if isinstance(error.cause, ClipmsaError):
                raise error.cause from None
            raise
        if unit is not None:
            return unit, answer
        self.specs = answer
        self.actors.append(actor)
        self.failed_loads = 0
        return None
