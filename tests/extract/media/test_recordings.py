"""Recordings as they come: on what clock, with which tracks, and not as a list of other files."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from numpy.typing import NDArray

from clipmsa.cache.errors import MediaError
from clipmsa.extract.media.video import probe, read_frames, read_waveform

Sound = NDArray[np.float32]
RATE = 16000
PLAIN = Disposition(0)
READERS: dict[str, Callable[[Path], object]] = {
    "probe": probe,
    "read_frames": lambda path: list(read_frames(path, 5, 100)),
    "read_waveform": read_waveform,
}


@dataclass
class Film:
    """A track of grey pictures, `fps` a second."""

    levels: Sequence[int]
    start: float = 0.0  # seconds
    codec: str = "libx264"
    fps: int = 10
    disposition: Disposition = PLAIN
    options: Mapping[str, str] = field(default_factory=lambda: {"bf": "0", "g": "5"})


@dataclass
class Track:
    """A track of sound: (channels, samples) by when they start, in seconds."""

    pieces: Mapping[float, Sound]
    codec: str = "aac"
    layout: str = "mono"
    rate: int = RATE
    disposition: Disposition = PLAIN


def record(path: Path, *tracks: Film | Track, later: float = 0.0, kind: str | None = None) -> Path:
    """Write tracks into one file, packets in the order of their times, all `later` seconds late."""
    packets: list[av.Packet] = []
    with av.open(str(path), "w", format=kind) as container:
        for track in tracks:
            of = film(container, track) if isinstance(track, Film) else sound(container, track)
            for packet in of:
                ticks = round(later / packet.time_base)
                packet.pts, packet.dts = (packet.pts or 0) + ticks, (packet.dts or 0) + ticks
                packets.append(packet)
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            container.mux(packet)
    return path


def film(container, track: Film) -> list[av.Packet]:
    stream = container.add_stream(track.codec, rate=track.fps, options=dict(track.options))
    stream.height, stream.width = 48, 64
    stream.pix_fmt = "yuvj420p" if track.codec == "mjpeg" else "yuv420p"
    stream.disposition = track.disposition
    stream.codec_context.time_base = Fraction(1, track.fps)
    packets = []
    for number, level in enumerate(track.levels):
        grey = np.full((48, 64, 3), level, np.uint8)
        frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
        frame.pts = round(track.start * track.fps) + number
        frame.time_base = Fraction(1, track.fps)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def sound(container, track: Track) -> list[av.Packet]:
    stream = container.add_stream(track.codec, rate=track.rate)
    stream.layout, stream.disposition = track.layout, track.disposition
    packets = []
    resampler = av.AudioResampler(stream.format, track.layout, track.rate)
    for start, samples in track.pieces.items():
        for first in range(0, samples.shape[1], 1024):
            part = np.ascontiguousarray(samples[:, first : first + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=track.layout)
            frame.sample_rate, frame.time_base = track.rate, Fraction(1, track.rate)
            frame.pts = round(start * track.rate) + first
            for converted in resampler.resample(frame):
                packets += stream.encode(converted)
    return packets + stream.encode(None)


def tone(seconds: float, rate: int = RATE, volume: float = 0.5) -> Sound:
    """(1, samples), whole packets of 1024."""
    count = round(seconds * rate / 1024) * 1024
    wave = volume * np.sin(2 * np.pi * 440 * np.arange(count) / rate)
    return wave.astype(np.float32)[None]


def grey(path: Path, start: float = 0.0, end: float | None = None, fps: float = 10) -> list[int]:
    """The grey levels of a file's pictures, in steps of ten."""
    shown = read_frames(path, fps, 1000, start, end)
    return [round(float(picture.mean()) / 10) * 10 for _, picture in shown]


def heard(path: Path, start: float = 0.0, end: float | None = None) -> tuple[Sound, int]:
    waveform = read_waveform(path, start, end)
    assert waveform is not None
    return waveform


def loud(path: Path) -> list[tuple[float, float]]:
    """From when to when, in seconds, something is heard."""
    waveform, rate = heard(path)
    levels = np.abs(waveform[: len(waveform) // 160 * 160]).reshape(-1, 160).max(axis=1) > 0.1
    edges = np.flatnonzero(np.diff(levels, prepend=False, append=False)).reshape(-1, 2)
    return [(a * 160 / rate, b * 160 / rate) for a, b in edges.tolist()]


# --- a clip is one file ---------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path) -> Path:
    """A recording that no list may lead to."""
    return record(tmp_path / "secret.ts", Film([100] * 20), Track({0: tone(2)}, "mp2"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n"),
        ("live.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\n{}\n"),  # it has no end
        ("list.mp4", "ffconcat version 1.0\nfile secret.ts\n"),
        ("itself.mp4", "ffconcat version 1.0\nfile itself.mp4\n"),
        ("subtitles.mp4", "1\n00:00:00,000 --> 00:00:01,000\nHello\n\n"),
    ],
)
def test_a_list_of_files_under_a_clip_s_name_is_refused(secret, reader, name, content):
    path = secret.with_name(name)
    path.write_text(content.format(secret))
    with pytest.raises(MediaError, match="no format that holds a clip in one file"):
        READERS[reader](path)


@pytest.mark.parametrize("name", ["img001.jpg", "img*.jpg", "photo"])
def test_pictures_are_no_clip_and_no_sequence(tmp_path, name):
    for number in (1, 2, 3):
        record(tmp_path / f"img00{number}.jpg", Film([90], codec="mjpeg", options={}), kind="mjpeg")
    (tmp_path / name).write_bytes((tmp_path / "img001.jpg").read_bytes())
    with pytest.raises(MediaError, match="no format that holds a clip in one file"):
        probe(tmp_path / name)


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to("/dev/zero")
    for name in ("pipe.mp4", "link.mp4"):
        with pytest.raises(MediaError, match=rf"{name}: a pipe or device"):
            READERS[reader](tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "pictures", "codec"),
    [
        ("avi", "mpeg4", "mp2"),
        ("wmv", "wmv2", "libmp3lame"),
        ("mpg", "mpeg2video", "mp2"),
        ("3gp", "mpeg4", "aac"),
        ("webm", "libvpx", "libopus"),
        ("wav", None, "pcm_s16le"),
        ("flac", None, "flac"),
        ("mp3", None, "libmp3lame"),
        ("ogg", None, "libopus"),
        ("aac", None, "aac"),
        ("aiff", None, "pcm_s16be"),
    ],
)
def test_the_usual_formats_are_read(tmp_path, suffix, pictures, codec):
    rate = 48000
    tracks: list[Film | Track] = [Track({0: tone(2, rate)}, codec, rate=rate)]
    if pictures:
        tracks.insert(0, Film([100] * 50, codec=pictures, fps=25, options={}))
    path = record(tmp_path / f"clip.{suffix}", *tracks)
    assert probe(path).duration == pytest.approx(2, abs=0.15)
    assert len(heard(path)[0]) / rate == pytest.approx(2, abs=0.1)
    if pictures:
        assert set(grey(path)) == {100}


# --- one clock for all tracks ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_file_is_as_long_as_its_clock_says(tmp_path, suffix):
    """Sound goes on after the pictures, or pictures after the sound."""
    path = record(tmp_path / f"a.{suffix}", Film([100] * 30), Track({2: tone(3)}))
    assert probe(path).duration == pytest.approx(5, abs=0.15)
    assert loud(path) == [pytest.approx((2, 5), abs=0.15)]
    path = record(tmp_path / f"b.{suffix}", Film([100] * 30, start=2), Track({0: tone(3)}))
    assert probe(path).duration == pytest.approx(5, abs=0.15)
    first = next(read_frames(path, 5, 100))[0]
    assert first == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_pause_of_more_than_a_minute_is_a_pause(tmp_path, suffix):
    track = Track({0: tone(2), 70: tone(2)})
    path = record(tmp_path / f"a.{suffix}", Film([100] * 148, fps=2), track)
    assert loud(path) == [pytest.approx((0, 2), abs=0.15), pytest.approx((70, 72), abs=0.15)]
    whole, rate = heard(path)
    np.testing.assert_array_equal(heard(path, 69.5, 71)[0], whole[round(69.5 * rate) : 71 * rate])


@pytest.mark.parametrize("later", [5000.0, 2**33 / 90000 - 1])
def test_where_a_broadcast_s_clock_starts_or_wraps_makes_no_difference(tmp_path, later):
    tracks = Film(range(50, 200, 5)), Track({0: tone(3)}, "mp2")
    path = record(tmp_path / "a.ts", *tracks)
    other = record(tmp_path / "b.ts", *tracks, later=later)
    assert probe(other).duration == pytest.approx(probe(path).duration, abs=0.01)
    assert grey(other) == grey(path)
    np.testing.assert_array_equal(heard(other)[0], heard(path)[0])


@pytest.mark.parametrize("later", [(0, 0), (5000, 0), (0, 5000), (3, 1)])
def test_joined_recordings_follow_one_another(tmp_path, later):
    """Their clocks start again, or elsewhere; times go on where the first ended."""
    parts = [
        record(
            tmp_path / f"{number}.ts",
            Film([level] * 30, options={"bf": "2", "g": "10"}),
            Track({0: tone(3, volume=volume)}, "mp2"),
            later=later[number],
        )
        for number, (level, volume) in enumerate([(60, 0.2), (180, 0.6)])
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert probe(path).duration == pytest.approx(6, abs=0.2)
    levels = grey(path)
    assert set(levels) == {60, 180}
    assert levels.index(180) == pytest.approx(30, abs=2)
    assert len(levels) == pytest.approx(60, abs=3)
    assert grey(path, 4, 5) == [180] * 10
    assert grey(path, 1, 2) == [60] * 10
    whole, rate = heard(path)
    assert len(whole) / rate == pytest.approx(6, abs=0.2)
    assert np.abs(whole[: 2 * rate]).max() == pytest.approx(0.2, abs=0.05)
    assert np.abs(whole[4 * rate :]).max() == pytest.approx(0.6, abs=0.05)
    np.testing.assert_array_equal(heard(path, 4, 5)[0], whole[4 * rate : 5 * rate])


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_pictures_in_avi_are_shown_in_order_despite_b_frames(tmp_path, codec):
    levels = [50, 90, 70, 110, 130, 90, 150, 170, 60, 190] * 3
    options = {"bf": "2", "g": "12", "b_strategy": "0", "b": "2000000"}
    path = record(tmp_path / "a.avi", Film(levels, codec=codec, options=options))
    assert grey(path) == levels
    assert grey(path, 1.5, 2.5) == levels[15:25]


def test_a_raw_stream_has_a_length(tmp_path):
    path = record(tmp_path / "raw.h264", Film([100] * 40))
    assert probe(path).duration == pytest.approx(4, abs=2.5)  # it does not say how fast it is
    assert probe(path).duration > 0


def test_a_variable_bit_rate_is_not_taken_for_a_constant_one(tmp_path):
    """An MP3 without a header of its own is as long as its packets, not as a guess."""
    quiet = np.zeros((1, 20 * 1024), np.float32)
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (1, 200 * 1024)).astype(np.float32)
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w", container_options={"write_xing": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=48000, options={"qscale": "0"})
        stream.layout = "mono"
        stream.codec_context.flags |= 2  # a quality instead of a rate
        samples = np.concatenate([quiet, noise], axis=1)
        for first in range(0, samples.shape[1], 1024):
            part = np.ascontiguousarray(samples[:, first : first + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, first, Fraction(1, 48000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert probe(path).duration == pytest.approx(220 * 1024 / 48000, abs=0.1)


# --- which track ----------------------------------------------------------------------------------


@pytest.mark.parametrize("marked", [Disposition.default, Disposition(0)])
def test_a_cover_is_not_taken_for_the_film(tmp_path, marked):
    cover = Film([200], codec="mjpeg", options={})
    path = record(tmp_path / "a.mkv", cover, Film([100] * 20, disposition=marked))
    assert set(grey(path)) == {100}
    assert len(grey(path)) == 20


def test_the_default_of_several_films_is_shown(tmp_path):
    main_film = Film([100] * 20, disposition=Disposition.default)
    assert set(grey(record(tmp_path / "a.mkv", Film([200] * 20), main_film))) == {100}
    assert set(grey(record(tmp_path / "b.mkv", main_film, Film([200] * 20)))) == {100}


@pytest.mark.parametrize("aside", [Disposition.comment, Disposition(0)])
def test_the_default_of_several_sound_tracks_is_heard(tmp_path, aside):
    silent = Track({0: np.zeros((1, RATE * 2), np.float32)}, disposition=aside)
    spoken = Track({0: tone(2)}, disposition=Disposition.default)
    path = record(tmp_path / "a.mkv", silent, spoken)
    assert loud(path) == [pytest.approx((0, 2), abs=0.15)]


def test_a_track_that_ffmpeg_cannot_decode_gives_way_to_one_that_it_can(tmp_path):
    exotic = Track({0: tone(2)}, "flac", disposition=Disposition.default)
    path = record(tmp_path / "a.mkv", exotic, Track({0: tone(2)}))
    path.write_bytes(path.read_bytes().replace(b"A_FLAC", b"A_XYZW"))
    assert loud(path) == [pytest.approx((0, 2), abs=0.15)]


# --- what is made of the sound --------------------------------------------------------------------


def test_sides_that_cancel_each_other_give_the_louder_one(tmp_path, caplog):
    wave = tone(3)
    path = record(
        tmp_path / "a.wav", Track({0: np.concatenate([wave, -0.95 * wave])}, "pcm_s16le", "stereo")
    )
    np.testing.assert_allclose(heard(path)[0], wave[0], atol=1e-3)
    whole = heard(path)[0]
    np.testing.assert_array_equal(heard(path, 1, 2)[0], whole[RATE : 2 * RATE])
    assert "a.wav: the sides of its sound cancel each other" in caplog.text


@pytest.mark.parametrize("sides", [(0.5, 0.5), (0.5, 0), (0.5, -0.3), (0.005, 0.005), (0, 0)])
def test_other_stereo_is_the_mean_of_its_sides(tmp_path, caplog, sides):
    wave = tone(3, volume=1.0)
    left, right = sides
    stereo = np.concatenate([left * wave, right * wave])
    path = record(tmp_path / "a.wav", Track({0: stereo}, "pcm_f32le", "stereo"))
    np.testing.assert_allclose(heard(path)[0], stereo.mean(axis=0), atol=1e-6)
    assert caplog.text == ""


def test_a_recording_may_turn_from_stereo_to_mono(tmp_path):
    wave = tone(2, 48000)
    both = np.concatenate([wave, wave])
    first = record(tmp_path / "1.ts", Track({0: both}, "ac3", "stereo", rate=48000))
    second = record(tmp_path / "2.ts", Track({0: wave}, "ac3", rate=48000), later=2)
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    waveform, rate = heard(path)
    assert len(waveform) / rate == pytest.approx(4, abs=0.1)
    for start in (0.5, 2.5):
        part = waveform[int(start * rate) : int((start + 1) * rate)]
        assert np.abs(part).max() == pytest.approx(0.5, abs=0.05)


def test_a_recording_may_change_its_rate(tmp_path):
    first = record(tmp_path / "1.aac", Track({0: tone(2, 48000)}, rate=48000))
    second = record(tmp_path / "2.aac", Track({0: tone(2, 24000)}, rate=24000))
    path = tmp_path / "both.aac"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    waveform, rate = heard(path)
    assert rate == 48000
    assert len(waveform) / rate == pytest.approx(4, abs=0.15)
    spectrum = np.abs(np.fft.rfft(waveform[int(2.5 * rate) : int(3.5 * rate)]))
    assert spectrum.argmax() == pytest.approx(440, abs=1)


@pytest.mark.parametrize("lost", [1, 4, 8])
def test_a_recording_that_was_stopped_within_a_packet_is_read_up_to_there(tmp_path, lost):
    whole = record(tmp_path / "whole.ts", Track({0: tone(3)}), later=1)
    content = whole.read_bytes()
    path = tmp_path / "stopped.ts"
    path.write_bytes(content[: len(content) - 188 * lost])
    waveform, rate = heard(path)
    assert 2 < len(waveform) / rate <= len(heard(whole)[0]) / rate
    np.testing.assert_array_equal(waveform, heard(whole)[0][: len(waveform)])


# --- segments of long files -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_a_segment_takes_no_memory_for_what_lies_before_it(tmp_path, suffix):
    path = record(tmp_path / f"long.{suffix}", Track({0: tone(120)}, "mp2", layout="mono"))
    read_waveform(path, 0, 1)
    tracemalloc.start()
    waveform, rate = heard(path, 118, 119)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(waveform) == rate
    assert peak < 1e6, f"{peak / 1e6:.1f} MB for 64 kB of samples; the sound before it has 7.6 MB"


def test_a_pause_of_hours_takes_no_memory_either(tmp_path):
    path = record(tmp_path / "a.mp4", Track({0: tone(1), 50_000: tone(1)}))
    tracemalloc.start()
    waveform, rate = heard(path, 49_999.5, 50_000.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(waveform) == rate
    assert np.abs(waveform[: rate // 3]).max() < 0.01
    assert np.abs(waveform[-rate // 3 :]).max() > 0.4
    assert peak < 2e6
    with pytest.raises(MediaError, match=r"a\.mp4: more than an hour of sound in one piece; cut"):
        read_waveform(path)
