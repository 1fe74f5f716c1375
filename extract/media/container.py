"""A media file, opened: which of its streams count, and the clock that all its times are on.

Times are seconds on the file's clock, whose zero is where a player starts: an MPEG-TS recording
that begins at 95,000 s starts at 0 here. FFmpeg gets one thread a clip, because clips are decoded
side by side; and it prints nothing, because PyAV keeps FFmpeg's log off unless asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clipmsa.cache.errors import MediaError

# FFmpeg's names of the formats that hold media in one file. The others read files that this one
# names (playlists, lists of files, numbered pictures), or hold no clip (pictures, subtitles).
_FORMATS = (
    "mov,matroska,avi,flv,asf,mpegts,mpeg,ogg,nut,mxf,gxf,rm,wtv,dv,ivf,gif,yuv4mpegpipe,"
    "wav,w64,mp3,flac,aac,loas,ac3,eac3,dts,aiff,au,caf,amr,ape,wv,tta,tak,mpc,mpc8,dsf,voc,"
    "h264,hevc,vvc,m4v,mpegvideo,vc1,obu"
)
# Of these the header tells how long each stream is, and FFmpeg does not guess.
_STATING = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "avi", "wav", "w64", "flac", "aiff", "au", "caf"})
# Codecs of pictures: beside another video stream they hold its cover.
_STILL = frozenset({"png", "mjpeg", "bmp", "gif", "tiff", "webp"})
# Sound that is not what the people in the picture say.
_ASIDE = Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired
# Of a stream that ends earlier than the file states by more than both of these, a part is missing.
_SHORT_SECONDS = 0.25
_SHORT_SHARE = 0.05
# A clock that leaps further ahead than this, or back by more than that, belongs to a recording that
# was joined to the one before it.
_LEAP_SECONDS = 60.0
_BACK_SECONDS = 0.1
# How many recordings back a stream may lag behind the others.
_RECENT = 8


@dataclass(frozen=True)
class MediaInfo:
    """What a media file holds."""

    duration: float  # seconds, when the last of its streams ends
    has_video: bool
    has_audio: bool


def probe(path: Path) -> MediaInfo:
    """Look into a file without decoding it.

    Where its header does not tell its length, as in MPEG-TS, the file is read once.

    Raises:
        MediaError: the file is missing, empty, no media file, or without picture and sound.
    """
    with opened(path) as container:
        video, audio = video_stream(container), audio_stream(container)
        streams: list[Stream] = [stream for stream in (video, audio) if stream is not None]
        if not streams:
            raise MediaError(
                f"{path}: holds neither pictures nor sound; check that this is the clip"
            )
        duration = _stated_length(container, streams) or _measured_length(container, streams)
        return MediaInfo(duration, video is not None, audio is not None)


def _stated_length(container: InputContainer, streams: list[Stream]) -> float | None:
    """When the last of some streams ends, in seconds; None where the file does not say so."""
    origin = Clock(container).origin
    whole = (container.duration or 0) / av.time_base
    if container.format.name in _STATING:
        ends = [
            float(((stream.start_time or 0) + stream.duration) * time_base(stream)) - origin
            for stream in streams
            if stream.duration is not None
        ]
        return max(ends) if len(ends) == len(streams) else max([*ends, whole])
    # One length for the whole file, which counts from where its times are 0 or from its first
    # packet, as the program that wrote it likes.
    if container.format.name in ("matroska,webm", "flv") and origin < _SHORT_SECONDS:
        return whole
    return None


def _measured_length(container: InputContainer, streams: list[Stream]) -> float:
    """When the last of some streams ends, in seconds, from the file's packets."""
    clock = Clock(container)
    reached = 0.0
    untimed: dict[int, Fraction] = {}  # seconds of a raw stream, whose packets carry no times
    for packet in clock.packets(*streams):
        length = (packet.duration or 0) * packet.time_base
        if packet.pts is not None:
            reached = max(reached, float(packet.pts * packet.time_base + length) - clock.origin)
        elif packet.dts is None:
            index = packet.stream.index
            untimed[index] = untimed.get(index, Fraction(0)) + length
    return max([reached, *map(float, untimed.values())])


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a file for reading; what the library raises meanwhile becomes a MediaError."""
    try:
        mode = path.stat().st_mode if path.exists() else 0
        if not mode or S_ISDIR(mode):
            raise MediaError(f"{path}: no such file; check the ids in the label table")
        if not S_ISREG(mode):  # a pipe might never answer
            raise MediaError(f"{path}: a pipe or device; save what it gives as a file")
        if not path.stat().st_size:
            raise MediaError(f"{path}: the file is empty; get it again")
        with _container(path) as container:
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        message = f"{path}: cannot be decoded ({reason(error)}); get or export it again"
        raise MediaError(message) from error


def _container(path: Path) -> InputContainer:
    """Let FFmpeg open a file as one of `_FORMATS`, and no other file."""
    try:
        # "file:", as a name with a colon is no protocol to FFmpeg.
        return av.open(
            f"file:{path}",
            "r",
            container_options={"protocol_whitelist": "file", "format_whitelist": _FORMATS},
            metadata_errors="replace",
        )
    except av.ArgumentError as error:  # what FFmpeg calls a format that is not on the list
        raise MediaError(
            f"{path}: no format that holds a clip in one file (a playlist, a picture or subtitles, "
            f"say); get the recording itself, as .mp4 or .mkv"
        ) from error


def reason(error: Exception) -> str:
    """The library's own words, without its function names."""
    return str(getattr(error, "strerror", None) or error)


# --- streams --------------------------------------------------------------------------------------


def video_stream(container: InputContainer) -> VideoStream | None:
    """The video stream that a player shows; the cover of an audio file is none.

    Of several, one that moves before a picture, then one that the file marks as its default, then
    the first.
    """

    def rank(stream: VideoStream) -> tuple[bool, bool, bool]:
        codec = stream.codec_context
        moves = codec is not None and codec.name not in _STILL
        return codec is not None, moves, bool(stream.disposition & Disposition.default)

    streams = container.streams.video
    shown = [s for s in streams if not s.disposition & Disposition.attached_pic]
    return max(shown, key=rank, default=None)


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The audio stream that a player plays.

    Of several, one that can be decoded, then one that is no commentary, then one that the file
    marks as its default, then the first.
    """

    def rank(stream: AudioStream) -> tuple[bool, bool, bool]:
        decodable = stream.codec_context is not None
        aside = bool(stream.disposition & _ASIDE)
        return decodable, not aside, bool(stream.disposition & Disposition.default)

    return max(container.streams.audio, key=rank, default=None)


def prepare(path: Path, stream: VideoStream | AudioStream) -> None:
    """Have a stream decoded in this thread alone."""
    if stream.codec_context is None:  # whatever PyAV's types say
        raise MediaError(
            f"{path}: FFmpeg cannot decode its {stream.type}; convert it to H.264, AAC"
        )
    stream.codec_context.thread_count = 1


def time_base(stream: Stream) -> Fraction:
    """Seconds of one unit of a stream's times."""
    return stream.time_base or Fraction(1, av.time_base)


def decoded(
    stream: VideoStream | AudioStream, packets: Iterator[Packet[Stream]]
) -> Iterator[VideoFrame | AudioFrame]:
    """The frames of a stream's packets.

    A last packet that cannot be decoded is left out: a recording that was stopped ends within one.
    """
    began = False
    packet = next(packets, None)
    while packet is not None:
        following = next(packets, None)
        frames: Sequence[VideoFrame | AudioFrame] = ()
        try:
            frames = stream.decode(packet)
        except av.InvalidDataError:
            if not began or (following is not None and following.size):
                raise
        began = began or bool(frames)
        yield from frames
        packet = following


# --- the clock ------------------------------------------------------------------------------------


class Clock:
    """The clock of a file: where its zero is, and packets whose times are on it.

    In formats that are streamed, such as MPEG-TS, a file may be several recordings one after
    another, each with a clock of its own; here the first one's goes on. A leap ahead is one only
    if no stream of the file has come that far, or a stream that starts late would be moved.
    """

    def __init__(self, container: InputContainer) -> None:
        self._container = container
        name, start = container.format.name, (container.start_time or 0) / av.time_base
        # What MPEG's clock counted before it wrapped, as it does every 26 hours, FFmpeg gives as
        # below zero; elsewhere an encoder's priming is there, which nobody is to hear.
        wraps = name in ("mpegts", "mpeg")
        self.origin = start if wraps else max(0.0, start)  # seconds
        # Whether a file of its format may be several recordings.
        self.joinable = bool(container.format.flags & cast(int, Flags.ts_discont.value))
        self._offsets = [0.0]  # seconds to add to the times of each recording in the file
        self._offset: dict[int, float] = {}  # and of these, by stream, the one in use
        self._last: dict[int, float] = {}  # by stream, the time of its last packet
        self._end: float | None = None  # of all packets so far

    @property
    def joined(self) -> bool:
        """Whether a second recording has begun; one cannot seek by time then."""
        return len(self._offsets) > 1

    def packets(self, *streams: Stream) -> Iterator[Packet[Stream]]:
        """The packets of some streams, up to the empty one that makes a decoder hand out its rest.

        Going on after that would make PyAV 18.1 fail where another stream starts in mid-file.
        """
        wanted = {stream.index for stream in streams}
        every = [*self._container.streams.video, *self._container.streams.audio]
        # AVI numbers pictures in the order of decoding; where that is not the order of showing,
        # what FFmpeg makes of it is a guess.
        guessed = {
            stream.index
            for stream in self._container.streams.video
            if self._container.format.name == "avi"
            and stream.codec_context is not None
            and stream.codec_context.has_b_frames
        }
        for packet in self._container.demux(*(every if self.joinable else streams)):
            ended = packet.dts is None and packet.pts is None and not packet.size
            if self.joinable:
                self._correct(packet)
            if packet.stream.index in guessed:
                packet.pts = None
            if packet.stream.index in wanted:
                yield packet
                if ended:
                    return

    def _correct(self, packet: Packet[Stream]) -> None:
        """Move a packet's times to the file's clock."""
        index = packet.stream.index
        ticks = packet.pts if packet.dts is None else packet.dts
        if ticks is None:
            return
        time = float(ticks * packet.time_base)
        offset = self._offset.get(index, self._offsets[-1])
        if not self._fits(index, time + offset):
            # Streams come to the next recording one after another.
            recent = reversed(self._offsets[-_RECENT:])
            offsets = (known for known in recent if self._fits(index, time + known))
            found = next(offsets, None)
            if found is None:
                shown = ticks if packet.pts is None else packet.pts
                found = (self._end or 0.0) - float(shown * packet.time_base)
                self._offsets.append(found)
            offset = found
        self._offset[index] = offset
        if offset:
            moved = round(offset / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + moved
            packet.dts = None if packet.dts is None else packet.dts + moved
        self._last[index] = time + offset
        shown = packet.pts if packet.pts is not None else packet.dts or 0
        end = float((shown + (packet.duration or 0)) * packet.time_base)
        self._end = end if self._end is None else max(end, self._end)

    def _fits(self, index: int, time: float) -> bool:
        """Whether a stream may be at `time`, after what was read of it and of the others."""
        back = time < self._last.get(index, time) - _BACK_SECONDS
        return not back and (self._end is None or time <= self._end + _LEAP_SECONDS)


def stated_end(container: InputContainer, stream: Stream) -> float | None:
    """When the file says that a stream ends, in seconds; None where it says nothing reliable."""
    origin = Clock(container).origin
    if "mp4" in container.format.name and stream.duration is not None:
        length = (stream.start_time or 0) + stream.duration
        return float(length * time_base(stream)) - origin
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    if "matroska" in container.format.name and tag:
        hours, minutes, seconds = map(float, tag.groups())
        return hours * 3600 + minutes * 60 + seconds - origin
    return None


# --- segments -------------------------------------------------------------------------------------


def check_segment(path: Path, start: float, end: float | None) -> None:
    """Refuse a segment that no file can have."""
    if start < 0 or (end is not None and end <= start):
        raise MediaError(f"{path}: no segment lies between {start} and {end} s; correct its times")


def check_length(
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
