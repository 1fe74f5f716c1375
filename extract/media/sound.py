"""The sound of a clip on disk, as one waveform."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from numpy.typing import NDArray

from clipmsa.cache.errors import MediaError

from .container import (
    Clock,
    audio_stream,
    check_length,
    check_segment,
    decoded,
    opened,
    prepare,
    stated_end,
    time_base,
)

# Audio decoders need some packets before the wanted one to give the samples a full decode gives.
_PREROLL_SECONDS = 1.0
# As one waveform: what is longer is no utterance, and a file of a few bytes can state any length.
_LONGEST_SECONDS = 3600.0
# A time stamp that much after the file's stated end is damage, and no pause.
_LATE_SECONDS = 60.0
# Sides in opposite phase leave of each other less than this share, in a mixdown less loud than this
# (0.1 and 0.01 of the amplitude: -20 and -40 dB).
_CANCELLED_SHARE = 0.1
_CANCELLED_LEVEL = 0.01

_log = logging.getLogger(__name__)


def read_waveform(
    path: Path, start: float = 0.0, end: float | None = None
) -> tuple[NDArray[np.float32], int] | None:
    """Decode a clip's sound, all channels mixed down to one.

    Of stereo whose sides cancel each other, as of a microphone that is wired the wrong way round,
    the louder side is taken; that is logged.

    Returns:
        The (samples,) waveform in [-1, 1] from sample round(start * rate) of the file on, silent
        where the file has a pause, and its rate in Hz as the file has it (at its beginning, should
        that change). None without an audio stream or without a sample in it.

    Raises:
        MediaError: not decodable, cut off, or longer than an hour.
    """
    check_segment(path, start, end)
    heard = _read(path, start, end, "mono")
    if heard is None:
        return None
    (waveform,), rate, stereo = heard
    if stereo and (level := _level(waveform)) < _CANCELLED_LEVEL:
        sides = _read(path, start, end, "stereo")
        assert sides is not None  # or there were no mixdown
        louder: NDArray[np.float32] = max(sides[0], key=_level)
        if _level(louder) * _CANCELLED_SHARE > level:
            _log.warning("%s: the sides of its sound cancel each other; took the louder one", path)
            waveform = np.ascontiguousarray(louder)
    if not np.isfinite(waveform).all():
        raise MediaError(f"{path}: its sound holds values that are no numbers; export it again")
    return (waveform.clip(-1, 1), rate) if waveform.size else None


def _level(waveform: NDArray[np.float32]) -> float:
    """The effective amplitude of a waveform; 0 for none."""
    return math.sqrt(float(np.square(waveform, dtype=np.float64).mean())) if waveform.size else 0.0


def _read(
    path: Path, start: float, end: float | None, layout: str
) -> tuple[NDArray[np.float32], int, bool] | None:
    """Decode a segment: (channels of `layout`, samples), the rate, and whether it was stereo."""
    with opened(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return None
        prepare(path, stream)
        rate, unit = stream.codec_context.sample_rate, time_base(stream)
        clock, stated = Clock(container), stated_end(container, stream)
        # Where time stamps count samples, as in MP4, the sample after a seek can be numbered and a
        # pause filled exactly. Elsewhere (Matroska counts ms) decode from the start, a thousand
        # times faster than playing, and leave alone what may be rounding.
        exact = unit * rate == 1
        pause = 0.0 if exact else 0.1  # seconds, the shortest one filled
        latest = math.inf if clock.joinable else _latest(container)
        if seek := exact and start > _PREROLL_SECONDS:
            container.seek(int((start - _PREROLL_SECONDS + clock.origin) / unit), stream=stream)
        segment: _Segment | None = None
        stereo = False
        for frame in decoded(stream, clock.packets(stream)):
            assert isinstance(frame, AudioFrame)
            time = None if frame.pts is None else float(frame.pts * unit) - clock.origin
            if segment is None:
                rate, stereo = frame.sample_rate, frame.layout.nb_channels == 2
                segment = _Segment(path, layout, rate, start, end)
                if time is not None:
                    segment.position = round(time * rate) if seek else min(round(time * rate), 0)
            if time is not None and time < latest:
                missing = round(time * rate) - segment.position
                if missing > pause * rate:
                    segment.add_silence(missing)
            segment.add(frame)
            if segment.full:
                break
    samples = None if segment is None else segment.samples()
    seconds = 0.0 if samples is None else samples.shape[1] / rate
    check_length(path, "sound", start + seconds, stated, start, end)
    return None if samples is None else (samples, rate, stereo)


def _latest(container: InputContainer) -> float:
    """Up to when a time stamp may be true, in seconds."""
    if not container.duration:
        return math.inf
    return container.duration / av.time_base + _LATE_SECONDS


class _Segment:
    """The samples of a segment, gathered from frames and pauses; the others are only counted."""

    def __init__(self, path: Path, layout: str, rate: int, start: float, end: float | None) -> None:
        self.position = 0  # of the next sample in the file
        self._path, self._layout, self._rate = path, layout, rate
        self._first = round(start * rate)
        self._last = None if end is None else round(end * rate)
        self._source: tuple[str, str, int] | None = None
        self._mixer: av.AudioResampler | None = None
        self._pieces: list[NDArray[np.float32]] = []
        self._channels = av.AudioLayout(layout).nb_channels
        self._size = 0  # samples that are kept

    @property
    def full(self) -> bool:
        """Whether what follows is not of the segment."""
        return self._last is not None and self.position >= self._last

    def add(self, frame: AudioFrame) -> None:
        """Put a frame after what is there, in the segment's layout and rate."""
        if frame.sample_rate == self._rate and self.position + frame.samples <= self._first:
            self.position += frame.samples  # of a long file most are on the way to the segment
            return
        source = frame.format.name, frame.layout.name, frame.sample_rate
        if source != self._source:  # the first, or a broadcast that goes from stereo to 5.1
            self._finish()
            # Without rematrix_maxval FFmpeg scales a mixdown into [-1, 1] for integers alone.
            options = {"rematrix_maxval": "1"}
            self._mixer = av.AudioResampler("fltp", self._layout, self._rate, options=options)
            self._source = source
        assert self._mixer is not None
        self._mixed(self._mixer.resample(frame))

    def add_silence(self, count: int) -> None:
        """Let `count` samples be silent."""
        wanted = self._wanted(count)  # of a pause of hours perhaps a second
        self._keep(np.zeros((self._channels, wanted.stop - wanted.start), np.float32))
        self.position += count

    def samples(self) -> NDArray[np.float32]:
        """(channels, samples) that were gathered."""
        self._finish()
        return np.concatenate([np.zeros((self._channels, 0), np.float32), *self._pieces], axis=1)

    def _finish(self) -> None:
        """Take what the mixer holds back, which it does where it changes the rate."""
        if self._mixer is not None:
            self._mixed(self._mixer.resample(None))

    def _mixed(self, frames: Iterable[AudioFrame | None]) -> None:
        for frame in filter(None, frames):
            samples = np.asarray(frame.to_ndarray(), np.float32)
            self._keep(samples[:, self._wanted(samples.shape[1])])
            self.position += samples.shape[1]

    def _wanted(self, count: int) -> slice:
        """Which of the next `count` samples are of the segment."""
        start = min(max(0, self._first - self.position), count)
        stop = count if self._last is None else min(max(0, self._last - self.position), count)
        if self._size + stop - start > _LONGEST_SECONDS * self._rate:
            raise MediaError(
                f"{self._path}: more than an hour of sound in one piece; cut it into utterances, "
                f"as `clipmsa cut` does"
            )
        return slice(start, max(start, stop))

    def _keep(self, samples: NDArray[np.float32]) -> None:
        if not samples.size:  # an empty view would keep the whole frame in memory
            return
        self._size += samples.shape[1]
        self._pieces.append(samples)


def resample(waveform: NDArray[np.float32], rate: int, target: int) -> NDArray[np.float32]:
    """Bring a (samples,) waveform from `rate` to `target` Hz: (ceil(samples * target / rate),)."""
    if rate == target:
        return waveform
    # Imported here: processes that only decode pictures start without PyTorch.
    import torch
    from torchaudio.functional import resample as resample_tensor

    resampled: NDArray[np.float32] = resample_tensor(
        torch.from_numpy(waveform), rate, target
    ).numpy()
    return resampled
