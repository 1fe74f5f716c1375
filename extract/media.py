"""A clip on disk to pictures and sound. PyAV alone: no system FFmpeg is run.

Times are seconds on the file's clock, whose zero is where a player starts: an MPEG-TS recording
that begins at 95,000 s starts at 0 here. FFmpeg gets one thread a clip, because clips are decoded
side by side; and it prints nothing, because PyAV keeps FFmpeg's log off unless asked.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer, Type
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from clipmsa.cache.errors import MediaError

# Matroska rounds its times to 1 ms and floats round too: a tick this close before a frame gets it.
_CLOCK_SLACK = 5e-4
# A stream that ends earlier than the file states by more than both of these was cut off.
_SHORT_SECONDS = 0.25
_SHORT_SHARE = 0.05
# Some packets never become a picture of their own (invisible VP8 references, second fields), so a
# picture may be this many packets older than the packets promise before the clip counts as damaged.
_STALE_PACKETS = 2
# Audio decoders need some packets before the wanted one to give the samples a full decode gives.
_PREROLL_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class MediaInfo:
    """What a media file holds."""

    duration: float  # seconds, the longest of the streams that are there
    has_video: bool
    has_audio: bool


def probe(path: Path) -> MediaInfo:
    """Look into a file without decoding it.

    Raises:
        MediaError: the file is missing, empty, no media file, or without picture and sound.
    """
    with _opened(path) as container:
        video, audio = _video(container), _audio(container)
        streams: list[Stream] = [stream for stream in (video, audio) if stream is not None]
        if not streams:
            raise MediaError(
                f"{path}: holds neither pictures nor sound; check that this is the clip"
            )
        lengths = [
            float(stream.duration * stream.time_base)
            for stream in streams
            if stream.duration is not None and stream.time_base is not None
        ]
        if len(lengths) < len(streams):  # Matroska and FLV give one length for the whole file
            lengths.append((container.duration or 0) / av.time_base)
        if not any(lengths):  # as browsers record WebM: nobody wrote a length
            ends = [
                (packet.pts + (packet.duration or 0)) * packet.time_base
                for packet in _packets(container, *streams)
                if packet.pts is not None
            ]
            lengths.append(float(max(ends, default=0)) - _origin(container))
        return MediaInfo(max(lengths), video is not None, audio is not None)


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
        MediaError: not decodable, cut off, without pictures, or without any in the segment.
    """
    if fps <= 0 or max_frames < 1:
        raise ValueError(f"fps = {fps} and max_frames = {max_frames}: both have to be positive")
    _check_segment(path, start, end)
    line = _timeline(path, start, end)
    opening = line.seconds(int(line.pts[0]))
    first, last = max(start, opening), line.end if end is None else min(end, line.end)
    if first >= last:
        raise MediaError(
            f"{path}: the segment from {start:g} s to {'the end' if end is None else f'{end:g} s'} "
            f"has no picture, they go from {opening:.2f} to {line.end:.2f} s; correct its times"
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


def read_waveform(
    path: Path, start: float = 0.0, end: float | None = None
) -> tuple[NDArray[np.float32], int] | None:
    """Decode a clip's sound, all channels mixed down to one.

    Returns:
        The (samples,) waveform in [-1, 1] from sample round(start * rate) of the file on, silent
        where the file has a pause, and its rate in Hz as the file has it. None without an audio
        stream or without a sample in it.

    Raises:
        MediaError: not decodable, or cut off.
    """
    _check_segment(path, start, end)
    with _opened(path) as container:
        stream = _audio(container)
        if stream is None:
            return None
        _prepare(path, stream)
        rate, time_base = stream.codec_context.sample_rate, _time_base(stream)
        origin, stated = _origin(container), _stated_end(container, stream)
        # Where time stamps count samples, as in MP4, the sample after a seek can be numbered and a
        # pause filled exactly. Elsewhere (Matroska counts ms) decode from the start, a thousand
        # times faster than playing, and leave alone what may be rounding.
        exact = time_base * rate == 1
        pause = 0.0 if exact else 0.1  # seconds, the shortest one filled
        position = 0  # of the next sample in the file
        if seek := exact and start > _PREROLL_SECONDS:
            container.seek(int((start - _PREROLL_SECONDS + origin) / time_base), stream=stream)
        # Without rematrix_maxval FFmpeg scales a mixdown into [-1, 1] for integer samples alone.
        mixer = av.AudioResampler("fltp", "mono", options={"rematrix_maxval": "1"})
        chunks: list[NDArray[np.float32]] = []
        packets = _packets(container, stream)
        for number, frame in enumerate(itertools.chain.from_iterable(map(stream.decode, packets))):
            rate = frame.sample_rate
            first, last = round(start * rate), None if end is None else round(end * rate)
            pieces = [mixed.to_ndarray()[0] for mixed in mixer.resample(frame)]
            if frame.pts is not None:
                place = round((float(frame.pts * time_base) - origin) * rate)
                if number == 0:
                    position = place if seek else min(place, 0)
                # A longer pause is a clock that jumped.
                if pause * rate < place - position < _LONGEST_PAUSE_SECONDS * rate:
                    pieces.insert(0, np.zeros(place - position, np.float32))
            for samples in pieces:
                stop = None if last is None else max(0, last - position)
                chunks.append(samples[max(0, first - position) : stop])
                position += samples.size
            if last is not None and position >= last:
                break
    waveform = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
    if rate:
        _check_length(path, "sound", start + waveform.size / rate, stated, start, end)
    if not np.isfinite(waveform).all():
        raise MediaError(f"{path}: its sound holds values that are no numbers; export it again")
    return (waveform.clip(-1, 1), rate) if waveform.size else None


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
    with _opened(path) as container:
        stream = _video(container)
        if stream is None:
            raise MediaError(f"{path}: has no video stream; leave the picture features out for it")
        time_base, origin = _time_base(stream), _origin(container)
        stated = _stated_end(container, stream)
        for number, packet in enumerate(_packets(container, stream)):
            if not packet.size:  # a picture that stays, or the end
                continue
            duration = packet.duration or 0
            order = number * max(1, duration) if packet.dts is None else packet.dts
            pts = order if packet.pts is None else packet.pts
            if packet.is_keyframe:
                keys.append((pts, None if packet.pts is None else min(pts, order)))
            # Nothing comes out for what an edit list cuts off, nor for what refers to pictures
            # before the first keyframe, as in a recording that starts in the middle.
            if keys and pts >= keys[0][0] and not packet.is_discard:
                spans.append((pts, duration))
            if end is not None and order * time_base - origin >= end:
                break
    if not spans:
        raise MediaError(f"{path}: its video stream holds no picture; get the file again")
    times = np.array(sorted(pts for pts, _ in spans), dtype=np.int64)
    last, duration = max(spans)
    usual = int(np.median(np.diff(times))) if len(times) > 1 else 1
    stop = float((last + (duration or usual)) * time_base) - origin
    _check_length(path, "video", stop, stated, start, end)
    return _Timeline(times, keys, time_base, origin, stop)


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
    with _opened(path) as container:
        stream = _video(container)
        assert stream is not None  # or there were no timeline
        _prepare(path, stream)
        if seek is not None:
            container.seek(seek, stream=stream)
        packets = _packets(container, stream)
        startable = itertools.dropwhile(lambda packet: not packet.is_keyframe, packets)
        frames = itertools.chain.from_iterable(map(stream.decode, startable))
        pts = None
        try:
            for number, frame in enumerate(frames):
                # Raw streams carry no times: their pictures are shown in the order they come.
                pts = int(line.pts[min(number, len(line.pts) - 1)])
                if frame.pts is not None:
                    pts = frame.pts
                yield pts, frame
        except av.FFmpegError as error:
            raise _damaged(path, line, pts, _reason(error)) from error


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


def _video(container: InputContainer) -> VideoStream | None:
    """The first video stream; the cover of an audio file is none."""
    streams = container.streams.video
    return next((s for s in streams if not s.disposition & Disposition.attached_pic), None)


def _audio(container: InputContainer) -> AudioStream | None:
    return next(iter(container.streams.audio), None)


def _prepare(path: Path, stream: VideoStream | AudioStream) -> None:
    """Have a stream decoded in this thread alone."""
    if stream.codec_context is None:  # whatever PyAV's types say
        raise MediaError(
            f"{path}: FFmpeg cannot decode its {stream.type}; convert it to H.264, AAC"
        )
    stream.codec_context.thread_count = 1


def _packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Stream]]:
    """The packets of some streams, up to the empty one that makes the decoder hand out its rest.

    Going on after that would make PyAV 18.1 fail where another stream starts in mid-file.
    """
    for packet in container.demux(*streams):
        yield packet
        if packet.dts is None and packet.pts is None and not packet.size:
            return


def _time_base(stream: Stream) -> Fraction:
    return stream.time_base or Fraction(1, av.time_base)


def _origin(container: InputContainer) -> float:
    """The streams' time at the file's zero, in seconds; encoder priming starts before zero."""
    return max(0.0, (container.start_time or 0) / av.time_base)


def _stated_end(container: InputContainer, stream: Stream) -> float | None:
    """When the file says that a stream ends, in seconds; None where it says nothing reliable."""
    if "mp4" in container.format.name and stream.duration is not None:
        length = (stream.start_time or 0) + stream.duration
        return float(length * _time_base(stream)) - _origin(container)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    if "matroska" in container.format.name and tag:
        hours, minutes, seconds = map(float, tag.groups())
        return hours * 3600 + minutes * 60 + seconds - _origin(container)
    return None


def _check_length(
    path: Path, what: str, reached: float, stated: float | None, start: float, end: float | None
) -> None:
    """Refuse a stream that ends, at `reached` s, well before the file says it does."""
    if stated is None:
        return
    expected = stated if end is None else min(end, stated)
    if expected - reached > max(_SHORT_SECONDS, _SHORT_SHARE * (expected - start)):
        raise MediaError(
            f"{path}: its {what} stops at {reached:.2f} s and should go on to {expected:.2f} s: "
            "the file was cut off; get it again"
        )


def _check_segment(path: Path, start: float, end: float | None) -> None:
    if start < 0 or (end is not None and end <= start):
        raise MediaError(f"{path}: no segment lies between {start} and {end} s; correct its times")


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """Open a file for reading; what the library raises meanwhile becomes a MediaError."""
    try:
        if not path.is_file():
            raise MediaError(f"{path}: no such file; check the ids in the label table")
        if not path.stat().st_size:
            raise MediaError(f"{path}: the file is empty; get it again")
        # "file:" and the white list: a name with a colon is no protocol to FFmpeg, and a playlist
        # in a clip's place does not lead to other hosts.
        with av.open(
            f"file:{path}",
            "r",
            container_options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        ) as container:
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        message = f"{path}: cannot be decoded ({_reason(error)}); get or export it again"
        raise MediaError(message) from error


def _reason(error: Exception) -> str:
    """The library's own words, without its function names."""
    return str(getattr(error, "strerror", None) or error)
