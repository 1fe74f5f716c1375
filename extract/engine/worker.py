"""Clips to features: decoded ahead by threads, then through the encoders a batch at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from clipmsa.cache import StreamSpec, Utterance
from clipmsa.cache.errors import ClipmsaError, MediaError
from clipmsa.cache.spec import Failure
from clipmsa.cache.writer import storage_dtype
from clipmsa.extract.datasets.read import Clip
from clipmsa.extract.encoders.encoder import Encoder

from .decode import Decoded, decode
from .plan import Settings, StreamPlan


@dataclass
class Encoded:
    """A clip's rows by stream, (T, D) in the store's type."""

    utterance: Utterance
    rows: dict[str, NDArray[np.floating]]


Result = Encoded | Failure


class Workers(Protocol):
    """What an engine runs: encoders somewhere, that clips can be given to."""

    @property
    def specs(self) -> Mapping[str, StreamSpec]:
        """What the store is to record of each stream."""

    def encode(self, clips: Sequence[Clip], streams: frozenset[str]) -> Iterator[list[Result]]:
        """A result for each clip, in any order, as they come."""

    def close(self) -> None:
        """Let go of whatever was started."""


# Decides where encoders run, and nothing about what is to be done or where results go.
Engine = Callable[[Mapping[str, StreamPlan], Settings], Workers]


class Worker:
    """The encoders of a run on one device; by itself it is the engine `local`.

    On a GPU batches go through one after the other. On a CPU they do so in lanes side by side, with
    fewer of torch's threads each: threads within a layer wait for one another, lanes do not.
    """

    def __init__(self, plans: Mapping[str, StreamPlan], settings: Settings) -> None:
        # cuDNN's convolutions use TF32 unless told otherwise; "fp32" would not be true then.
        torch.backends.cudnn.allow_tf32 = False
        self.settings = settings
        self.encoders: dict[str, Encoder] = {}
        for name, plan in plans.items():
            self.encoders[name] = plan.build(self.encoders.get(plan.recipe.states_of))
        self.specs: Mapping[str, StreamSpec] = {
            name: plan.spec(self.encoders[name]) for name, plan in plans.items()
        }
        self._lanes = threading.Semaphore(settings.lanes)

    def encode(self, clips: Sequence[Clip], streams: frozenset[str]) -> Iterator[list[Result]]:
        """The results of a batch of clips at a time, in the order of `clips`."""
        encoders = {name: encoder for name, encoder in self.encoders.items() if name in streams}
        size, lanes = self.settings.batch_clips, self.settings.lanes
        if lanes > 1:  # so many batches that no lane has much to do when the others are done
            size = max(1, min(size, len(clips) // (4 * lanes)))
        return self.encode_decoded(self._decoded(clips, encoders, size), encoders)

    def encode_decoded(
        self, batches: Iterable[Sequence[Decoded | Failure]], encoders: Mapping[str, Encoder]
    ) -> Iterator[list[Result]]:
        """The results of batches that are decoded; of several lanes, none waits for the next."""

        def work(batch: Sequence[Decoded | Failure]) -> list[Result]:
            with self._lanes:
                return list(_encode_batch(batch, encoders))

        lanes, threads = self.settings.lanes, torch.get_num_threads()
        torch.set_num_threads(max(1, threads // lanes))
        try:
            with _threads(lanes) as pool:
                running: deque[Future[list[Result]]] = deque()
                try:
                    for batch in batches:
                        running.append(pool.submit(work, batch))
                        if len(running) > (lanes if lanes > 1 else 0):
                            yield running.popleft().result()
                    while running:
                        yield running.popleft().result()
                finally:
                    for future in running:
                        future.cancel()
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        """Nothing was started."""

    def _decoded(
        self, clips: Sequence[Clip], encoders: Mapping[str, Encoder], size: int
    ) -> Iterator[list[Decoded | Failure]]:
        """Batches of `size` clips in order, decoded ahead; at most two batches are in memory."""

        def attempt(clip: Clip) -> Decoded | Failure:
            try:
                return decode(clip, encoders, self.settings.profile.media)
            except MediaError as error:
                return Failure(clip.utterance.id, "media", str(error))

        with _threads(self.settings.workers) as pool:
            waiting: deque[Future[Decoded | Failure]] = deque()
            batch: list[Decoded | Failure] = []
            try:
                for clip in clips:
                    waiting.append(pool.submit(attempt, clip))
                    if len(waiting) > size:
                        batch.append(waiting.popleft().result())
                    if len(batch) == size:
                        yield batch
                        batch = []
                batch += [future.result() for future in waiting]
                for start in range(0, len(batch), size):
                    yield batch[start : start + size]
            finally:
                for future in waiting:
                    future.cancel()


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that are waited for in the end, unless Ctrl-C came: a batch may take long."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _encode_batch(
    batch: Sequence[Decoded | Failure], encoders: Mapping[str, Encoder]
) -> Iterator[Result]:
    """Run a batch of clips through every encoder; a clip that an encoder fails on is a Failure."""
    clips = [item for item in batch if isinstance(item, Decoded)]
    failures = {item.id: item for item in batch if isinstance(item, Failure)}
    results = {
        d.clip.utterance.id: Encoded(replace(d.clip.utterance, duration=d.duration), {})
        for d in clips
    }
    for name, encoder in encoders.items():
        having = [d for d in clips if name in d.items and d.clip.utterance.id not in failures]
        encoded = encode_items(name, encoder, [d.items[name] for d in having])
        for decoded, rows in zip(having, encoded, strict=True):
            id_ = decoded.clip.utterance.id
            if isinstance(rows, str):
                failures[id_] = Failure(id_, name, rows)
            else:
                results[id_].rows[name] = rows
    yield from failures.values()
    yield from (result for id_, result in results.items() if id_ not in failures)


def encode_items(
    name: str, encoder: Encoder, items: Sequence[Any]
) -> list[NDArray[np.floating] | str]:
    """A stream's rows for each item, (T, D) in the store's type, or why it has none.

    An item that the encoder fails on does not take the others with it.

    Raises:
        ClipmsaError: the device has no memory for the batch.
    """
    if not items:
        return []
    try:
        with encoder.alone:
            encoded = encoder.encode(items)
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # each library raises its own
        if "out of memory" in str(error).lower():
            raise ClipmsaError(
                f"stream '{name}': out of memory; use a smaller `batch_size`"
            ) from error
        if len(items) > 1:  # find the culprit
            return [rows for item in items for rows in encode_items(name, encoder, [item])]
        return [f"{type(error).__name__}: {' '.join(str(error).split())}"]
    dtype = storage_dtype(encoder.level)
    limit = np.finfo(dtype).max
    return [
        rows.astype(dtype)
        if bool((np.abs(rows) <= limit).all())  # false for NaN too
        else f"features are not finite in {dtype}"
        for rows in encoded
    ]
