"""New clips through the very encoders that made a model's features.

A model is of use only with the features it was trained on. Its checkpoint records, for every
stream, what made them (a `StreamSpec`): from that the encoders are built again, and refused if
anything about them has changed since.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from clipmsa.cache import StreamSpec
from clipmsa.cache.errors import FingerprintError, MediaError
from clipmsa.cache.provenance import difference
from clipmsa.extract.datasets.clips import Clip
from clipmsa.extract.encoders import registry
from clipmsa.extract.encoders.encoder import Encoder
from clipmsa.extract.profiles.profile import Media, Profile, StreamRecipe, check_precision
from clipmsa.extract.profiles.recorded import find_recorded
from clipmsa.extract.weights.find import NO_WEIGHTS, WeightsMode, find_checkpoint
from clipmsa.extract.weights.offline import offline

from .decode import Decoded, decode
from .plan import Settings, StreamPlan
from .worker import encode_items


@dataclass
class Encoded:
    """A clip's features in memory, as a store would hold them; or the error that kept them back."""

    clip: Clip
    rows: dict[str, NDArray[Any]] = field(default_factory=dict)  # by stream; none where missing
    duration: float = math.nan  # seconds; NaN where only text was asked for
    frames: int | None = None  # pictures that were looked through for faces
    faces: int | None = None  # and those in which one was found
    error: str = ""


class ClipEncoders:
    """The encoders that the streams of a model came from, for clips that are in no store.

    Features equal those that `extract` stores, whatever the batches and whichever thread decodes.

    Raises:
        FingerprintError: a stream cannot be made as it was; the message shows the difference.
        WeightsError: a checkpoint is missing or does not fit.
    """

    def __init__(
        self,
        specs: Iterable[StreamSpec],
        weights: WeightsMode = "pretrained",
        device: torch.device | str = "cpu",
        *,
        batch_clips: int = 8,
        workers: int = 2,
    ) -> None:
        # All of them are planned first: what cannot be had is told before minutes of loading.
        plans = [(_plan(spec, weights, torch.device(device)), spec) for spec in specs]
        torch.backends.cudnn.allow_tf32 = False  # as when the features were made
        self._batch, self._workers = batch_clips, workers
        self._encoders = {spec.name: _built(plan, spec) for plan, spec in plans}
        # One clock, unless picture streams were extracted with several; it serves the others too.
        self._clocks: dict[Media, dict[str, Encoder]] = {}
        for plan, spec in sorted(plans, key=lambda pair: "media" not in pair[1].config):
            clock = plan.settings.profile.media
            if "media" not in spec.config:
                clock = next(iter(self._clocks), clock)
            self._clocks.setdefault(clock, {})[spec.name] = self._encoders[spec.name]

    def encode(self, clips: Iterable[Clip | Encoded]) -> Iterator[list[Encoded]]:
        """Decode and encode clips, in batches and in order; what failed already passes through.

        `clips` is read as the results are used, a batch ahead: memory does not grow with it. A
        clip that fails gives its error, and the others go on.
        """
        with ThreadPoolExecutor(self._workers) as pool:
            waiting: deque[Future[Decoded | Encoded]] = deque()
            try:
                for clip in clips:
                    waiting.append(pool.submit(self._decode, clip))
                    if len(waiting) == self._batch + self._workers:
                        yield self._encode(waiting)
                while waiting:
                    yield self._encode(waiting)
            finally:
                for future in waiting:
                    future.cancel()

    def _decode(self, clip: Clip | Encoded) -> Decoded | Encoded:
        if isinstance(clip, Encoded):
            return clip
        decoded = Decoded(clip)
        try:
            for sampling, encoders in self._clocks.items():
                part = decode(clip, encoders, sampling)
                decoded.items |= part.items
                if not math.isnan(part.duration):
                    decoded.duration = part.duration
        except MediaError as error:
            return Encoded(clip, error=str(error))
        return decoded

    def _encode(self, waiting: deque[Future[Decoded | Encoded]]) -> list[Encoded]:
        """Take a batch off the queue and run it through every encoder."""
        taken = [waiting.popleft().result() for _ in range(min(self._batch, len(waiting)))]
        results = [
            t if isinstance(t, Encoded) else Encoded(t.clip, duration=t.duration) for t in taken
        ]
        for name, encoder in self._encoders.items():
            having = [
                (result, decoded.items[name])
                for result, decoded in zip(results, taken, strict=True)
                if isinstance(decoded, Decoded) and name in decoded.items and not result.error
            ]
            encoded = encode_items(name, encoder, [item for _, item in having])
            for (result, item), rows in zip(having, encoded, strict=True):
                if isinstance(rows, str):
                    result.rows, result.error = {}, f"stream '{name}': {rows}"
                    continue
                result.rows[name] = rows
                if encoder.faces:
                    result.frames, result.faces = len(item), len(rows)
        return results


def _plan(spec: StreamSpec, mode: WeightsMode, device: torch.device) -> StreamPlan:
    """How to make a stream again, where it can be made as it was."""
    try:
        config: Mapping[str, Any] = spec.config
        encoder, options = str(config["encoder"]), dict(config["options"])
        precision, media = check_precision(config["precision"]), Media(**config.get("media", {}))
    except (KeyError, TypeError, ValueError):
        raise FingerprintError(
            f"stream '{spec.name}': the store that the model was trained on does not say what made "
            f"it, as those of `clipmsa extract` do; features of new clips cannot be made"
        ) from None
    recipe = StreamRecipe(spec.name, encoder, spec.branch, {}, options)
    if registry.encoder_class(encoder).weightless:
        checkpoint = NO_WEIGHTS
    elif spec.untrained:
        checkpoint = find_checkpoint(spec.name, {}, "random")
    else:
        checkpoint = find_recorded(spec, mode)
    profile = Profile("", "", media, (recipe,))
    plan = StreamPlan(recipe, checkpoint, Settings(profile, mode, precision, device))
    then, now = dict(config), dict(plan.config)
    if spec.untrained:  # `weights` says which torch drew them; `_built` sees if they are the same
        then.pop("weights", None)
        now.pop("weights")
    if changed := difference(then, now):
        raise _changed(spec, changed)
    return plan


def _built(plan: StreamPlan, spec: StreamSpec) -> Encoder:
    """The encoder of a plan, with the weights that it had."""
    with offline():  # the options, too, are what a file says
        encoder = plan.build()
    digest = plan.spec(encoder).weights_sha256
    if digest != spec.weights_sha256:
        then = {"weights": spec.config.get("weights"), "weights_sha256": spec.weights_sha256}
        now = {"weights": plan.config["weights"], "weights_sha256": digest}
        raise _changed(spec, difference(then, now))
    return encoder


def _changed(spec: StreamSpec, changes: str) -> FingerprintError:
    return FingerprintError(
        f"stream '{spec.name}' cannot be made as the model's training features were ({changes}); "
        f"use the same weights and versions, or extract and train again"
    )
