"""The subtitles inside a media file, decoded by FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from clipmsa.extract.media.container import Clock, opened

from .subtitles import Shown, Subtitles, plain, plain_substation, subtitles

_FIELDS = 9  # of an event, whatever the codec; the last is the text


def read_track(video: Path) -> Subtitles | None:
    """The cues of a file's track of text: the first, or the first that it marks as default.

    Tracks of pictures, as on DVDs, are passed over, and those for foreign words alone. None where
    there is no other, or one without words.

    Raises:
        MediaError: the file cannot be read.
    """
    with opened(video) as container:
        tracks = [track for track in container.streams.subtitles if _is_text(track)]
        tracks.sort(key=lambda track: not track.disposition & Disposition.default)
        found = subtitles(_shown(container, tracks[0]), str(video)) if tracks else None
    return found if found and (found.cues or found.faults) else None


def _is_text(track: SubtitleStream) -> bool:
    if track.codec_context is None or track.disposition & Disposition.forced:
        return False
    return track.codec_context.codec.text_sub


def _shown(container: InputContainer, track: SubtitleStream) -> Iterator[Shown]:
    origin = Clock(container).origin
    for packet in container.demux(track):
        if packet.pts is None or packet.time_base is None or not packet.size:
            continue  # the last one, which is empty
        start = float(packet.pts * packet.time_base) - origin
        length = float((packet.duration or 0) * packet.time_base)
        cue = Shown(f"{start:.2f} s", start, start + length)
        try:
            cue.lines = _lines(track, packet)
        except av.FFmpegError as error:
            cue.fault, cue.lines = f"cannot be decoded ({error.strerror})", ["..."]
        yield cue


def _lines(track: SubtitleStream, packet: Packet[SubtitleStream]) -> list[str]:
    events = [rect.ass for rect in track.decode(packet) if isinstance(rect, AssSubtitle)]
    texts = (event.decode("utf-8", "replace").split(",", _FIELDS - 1)[-1] for event in events)
    return [plain(line) for text in texts for line in plain_substation(text).split("\n")]
