"""A clip on disk to pictures and sound. PyAV alone: no system FFmpeg is run.

Here are the pictures; `container` opens files and knows their clocks, `sound` has the waveforms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from clipmsa.cache.errors import MediaError, NoPictureError

from .container import (
    Clock,
    MediaInfo,
    check_length,
    check_segment,
    decoded,
    opened,
    prepare,
    probe,
    reason,
    stated_end,
    time_base,
    video_stream,
)
from .sound import read_waveform, resample

__all__ = ["MediaInfo", "probe", "read_frames", "read_waveform", "resample", "tick_times"]

# Matroska rounds its times to 1 ms and floats round too: a tick this close before a frame gets it.
_CLOCK_SLACK = 5e-4
# Some packets never become a picture of their own (invisible VP8 references, second fields), so a
# picture may be this many packets older than the packets promise before the clip counts as damaged.
_STALE_PACKETS = 2


def read_frames(
    path: Path, fps: float, max_frames: int, start: float = 0.0, end: float | None = None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Sample a clip's pictures by time.

    The file is walked twice: once over its packets, which alone tell when each picture is shown
    (a frame rate does not where it varies, and containers misstate their length), then decoding,
    where only the chosen pictures become RGB. Memory holds a few decoded pictures, never the clip.

    Args:
        fps: ticks a second.
        max_frames: with more ticks than this, as many of them spread evenly, both ends included.
        start: the first tick, in seconds (the video's first picture, if that comes later).
        end: no tick here or after; None for the end of the video.

    Yields:
        (t, picture) a tick, in order: t in seconds and the (H, W, 3) RGB picture shown at t,
        upright. A picture shown at several ticks is the same array object each time.

    Raises:
        NoPictureError: there are pictures, and none in the segment.
        MediaError: not decodable, cut off, or without pictures.
    """
    if fps <= 0 or max_frames < 1:
        raise ValueError(f"fps = {fps} and max_frames = {max_frames}: both have to be positive")
    check_segment(path, start, end)
    line = _timeline(path, start, end)
    opening = line.seconds(int(line.pts[0]))
    first, last = max(start, opening), line.end if end is None else min(end, line.end)
    if first >= last:
        limit = f"begin at {opening:.2f}" if opening > start else f"end at {line.end:.2f}"
        raise NoPictureError(
            f"{path}: no picture is shown from {start:g} s to "
            f"{'the end' if end is None else f'{end:g} s'}, as its pictures {limit} s; correct the "
            f"times"
        )
    ticks = tick_times(first, last, fps, max_frames)
    bounds = np.floor((ticks + line.origin + _CLOCK_SLACK) / float(line.time_base))
    promised = np.searchsorted(line.pts, bounds, side="right") - 1

    tick = 0
    shown: tuple[int, VideoFrame] | None = None
    picture: NDArray[np.uint8] | None = None
    # The closing None keeps the last frame on the screen for the ticks that are left.
    for upcoming in itertools.chain(_frames(path, line, bounds[0]), [None]):
        while tick < len(ticks) and (upcoming is None or upcoming[0] > bounds[tick]):
            current = shown or upcoming  # without the first picture the next one may stand in
            if current is None or abs(promised[tick] - line.place(current[0])) > _STALE_PACKETS:
                raise _damaged(path, line, shown and shown[0], "then some are missing")
            if picture is None:
                picture = _rgb(current[1])
            yield float(ticks[tick]), picture
            tick += 1
        if tick == len(ticks):
            return
        shown, picture = upcoming, None


def tick_times(first: float, end: float, fps: float, max_frames: int) -> NDArray[np.float64]:
    """The times first + k / fps that lie before end, in seconds; always one.

    Returns:
        (n,) ascending, n <= max_frames; with more ticks than that, max_frames of them spread
        evenly, the first and the last included.
    """
    count = max(1, math.ceil((end - first - _CLOCK_SLACK) * fps))
    size = min(count, max_frames)
    return first + np.arange(size) * (count - 1) // max(size - 1, 1) / fps


@dataclass(frozen=True)
class _Timeline:
    """When a video stream shows its pictures, as its packets promise."""

    pts: NDArray[np.int64]  # (pictures,) ascending, in units of time_base
    keys: list[tuple[int, int | None]]  # pts of a keyframe, and where to seek for it, if possible
    time_base: Fraction  # seconds
    origin: float  # seconds, the stream's time where the file's clock is 0
    end: float  # seconds on the file's clock, when the last picture goes

    def seconds(self, pts: int) -> float:
        """The file's clock at `pts`."""
        return float(pts * self.time_base) - self.origin

    def place(self, pts: float) -> int:
        """Number of the picture that is shown at `pts`; -1 before the first."""
        return int(np.searchsorted(self.pts, pts, side="right")) - 1


def _timeline(path: Path, start: float, end: float | None) -> _Timeline:
    """Read the video's packets, up to `end` seconds; nothing is decoded."""
    keys: list[tuple[int, int | None]] = []
    spans: list[tuple[int, int]] = []  # (pts, duration) in the order of decoding
    with opened(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(f"{path}: has no video stream; leave the picture features out for it")
        unit, clock = time_base(stream), Clock(container)
        stated, origin = stated_end(container, stream), clock.origin
        for number, packet in enumerate(clock.packets(stream)):
            if not packet.size:  # a picture that stays, or the end
                continue
            duration = packet.duration or 0
            order = number * max(1, duration) if packet.dts is None else packet.dts
            pts = order if packet.pts is None else packet.pts
            if packet.is_keyframe:
                seek = None if packet.pts is None or clock.joined else min(pts, order)
                keys.append((pts, seek))
            # Nothing comes out for what an edit list cuts off, nor for what refers to pictures
            # before the first keyframe, as in a recording that starts in the middle.
            if keys and pts >= keys[0][0] and not packet.is_discard:
                spans.append((pts, duration))
            if end is not None and order * unit - origin >= end:
                break
    if not spans:
        raise MediaError(f"{path}: its video stream holds no picture; get the file again")
    times = np.array(sorted(pts for pts, _ in spans), dtype=np.int64)
    last, duration = max(spans)
    usual = int(np.median(np.diff(times))) if len(times) > 1 else 1
    stop = float((last + (duration or usual)) * unit) - origin
    check_length(path, "video", stop, stated, start, end)
    return _Timeline(times, keys, unit, origin, stop)


def _frames(path: Path, line: _Timeline, pts: float) -> Iterator[tuple[int, VideoFrame]]:
    """Decode (pts, frame) in the order of showing, from the one shown at `pts` or earlier."""
    usable = [key for key in line.keys if key[0] <= pts]
    if len(usable) > 1 and usable[-1][1] is not None:
        frames = _decode(path, line, usable[-1][1])
        first = next(frames, None)
        if first is not None and first[0] <= pts:
            return itertools.chain([first], frames)
        # The container seeks inexactly: decode from its start.
    return _decode(path, line, None)


def _decode(path: Path, line: _Timeline, seek: int | None) -> Iterator[tuple[int, VideoFrame]]:
    """Decode (pts, frame) in the order of showing, from the keyframe at `seek` or the start."""
    with opened(path) as container:
        stream = video_stream(container)
        assert stream is not None  # or there were no timeline
        prepare(path, stream)
        if seek is not None:
            container.seek(seek, stream=stream)
        packets = Clock(container).packets(stream)
        startable = itertools.dropwhile(lambda packet: not packet.is_keyframe, packets)
        pts = None
        try:
            for number, frame in enumerate(decoded(stream, startable)):
                assert isinstance(frame, VideoFrame)
                # Raw streams carry no times: their pictures are shown in the order they come.
                pts = int(line.pts[min(number, len(line.pts) - 1)])
                if frame.pts is not None:
                    pts = frame.pts
                yield pts, frame
        except av.FFmpegError as error:
            raise _damaged(path, line, pts, reason(error)) from error


def _damaged(path: Path, line: _Timeline, pts: int | None, reason: str) -> MediaError:
    """The error of a video that can be decoded up to `pts` alone."""
    reached = 0.0 if pts is None else line.seconds(pts)
    return MediaError(
        f"{path}: its pictures can be decoded up to {reached:.2f} s of {line.end:.2f} s alone "
        f"({reason}); the file is damaged, get it again"
    )


def _rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, turned and mirrored as the file's display matrix says."""
    # threads: PyAV 17 and later would convert on every core.
    pixels = np.asarray(frame.to_ndarray(format="rgb24", threads=1), dtype=np.uint8)
    matrix = cast(SideDataContainer, frame.side_data).get(Type.DISPLAYMATRIX)
    if matrix is None:
        return pixels
    # A pixel at (x, y) goes to (a x + c y, b x + d y). VideoFrame.rotation is the angle alone,
    # and 180 for a mirrored picture.
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) > abs(a):  # an odd multiple of 90 degrees: x and y trade places
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
