"""One clip, decoded once, into what the encoders of a run consume and no more."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache.errors import MediaError, NoPictureError
from clipmsa.extract import media
from clipmsa.extract.datasets.read import Clip
from clipmsa.extract.encoders.encoder import WINDOW_SECONDS, Encoder
from clipmsa.extract.profiles.profile import Media

_log = logging.getLogger(__name__)


@dataclass
class Decoded:
    """What encoders consume of a clip, by stream name; a missing modality has no entry."""

    clip: Clip
    duration: float = math.nan  # seconds; NaN where only text was asked for
    items: dict[str, Any] = field(default_factory=dict)


def decode(clip: Clip, encoders: Mapping[str, Encoder], sampling: Media) -> Decoded:
    """Read of a clip what `encoders` (by stream name) consume.

    Frames are handed to every encoder's `prepare` as they come, so that memory holds the prepared
    ones only. The file is not touched when all of them consume text. A clip that lies where the
    pictures of its file have not begun or are over has none; that is logged.

    Raises:
        MediaError: the file is missing, damaged, ends before the clip starts, or holds neither
            picture nor sound.
    """
    decoded = Decoded(clip)
    by_kind = {
        kind: {name: e for name, e in encoders.items() if e.consumes == kind}
        for kind in ("text", "waveform", "frames")
    }
    if clip.utterance.text.strip():
        decoded.items |= dict.fromkeys(by_kind["text"], clip.utterance.text)
    if not (by_kind["waveform"] or by_kind["frames"]):
        return decoded
    info = media.probe(clip.path)
    decoded.duration = min(info.duration, clip.utterance.end) - clip.utterance.start
    if decoded.duration <= 0:
        raise MediaError(
            f"{clip.path}: {info.duration:.2f} s long, the clip is from {clip.utterance.start:g} "
            f"to {clip.utterance.end:g} s; correct its times, or get the whole file"
        )
    if by_kind["waveform"] and info.has_audio:
        decoded.items |= _waveforms(clip, by_kind["waveform"])
    if by_kind["frames"] and info.has_video:
        try:
            decoded.items |= _frames(clip, by_kind["frames"], sampling)
        except NoPictureError as error:
            _log.warning("'%s' has no features of pictures: %s", clip.utterance.id, error)
    return decoded


def _waveforms(clip: Clip, encoders: Mapping[str, Encoder]) -> dict[str, NDArray[np.float32]]:
    """The waveform at each encoder's rate; nothing where the file's sound is empty."""
    sound = media.read_waveform(clip.path, clip.start, clip.end)
    if sound is None:
        return {}
    waveform, rate = sound
    if (seconds := len(waveform) / rate) > WINDOW_SECONDS:
        _log.warning(
            "'%s': %.0f s of sound are encoded in windows of at most %.0f s; shorter utterances, "
            "as `clipmsa cut` makes them, are more exact",
            *(clip.utterance.id, seconds, WINDOW_SECONDS),
        )
    at_rate = {
        target: media.resample(waveform, rate, target)
        for target in {encoder.sample_rate for encoder in encoders.values()}
    }
    return {name: at_rate[encoder.sample_rate] for name, encoder in encoders.items()}


def _frames(clip: Clip, encoders: Mapping[str, Encoder], sampling: Media) -> dict[str, list[Any]]:
    """Every encoder's prepared frames, at the ticks of the clock."""
    prepared: dict[str, list[Any]] = {name: [] for name in encoders}
    shown: NDArray[np.uint8] | None = None
    frames = media.read_frames(clip.path, sampling.fps, sampling.max_frames, clip.start, clip.end)
    for _, frame in frames:
        for name, encoder in encoders.items():
            # A source slower than the clock shows one frame at several ticks.
            again = frame is shown
            prepared[name].append(prepared[name][-1] if again else encoder.prepare(frame))
        shown = frame
    return {name: frames for name, frames in prepared.items() if frames}
