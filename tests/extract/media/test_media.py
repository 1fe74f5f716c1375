"""Decoding, on clips written here: each picture carries its number as two grey levels."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clipmsa.cache.errors import MediaError
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.media.video import probe, read_frames, read_waveform, resample, tick_times

Picture = NDArray[np.uint8]
Sound = NDArray[np.float32]
RATE = 16000
READERS: dict[str, Callable[[Path], object]] = {
    "probe": probe,
    "read_frames": lambda path: list(read_frames(path, 5, 100)),
    "read_waveform": read_waveform,
}


def numbered(number: int, height: int = 48, width: int = 64) -> Picture:
    """A picture that says which one it is: 16 levels left, 16 levels right."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2] = number % 16 * 16 + 8
    picture[:, width // 2 :] = number // 16 * 16 + 8
    return picture


def number_of(picture: Picture) -> int:
    left, right = np.array_split(picture.mean(axis=(0, 2)), 2)
    return int(np.median(left)) // 16 + int(np.median(right)) // 16 * 16


def film(count: int) -> Iterable[Picture]:
    return (numbered(number) for number in range(count))


def sine(seconds: float, rate: int = RATE, pitch: float = 440, volume: float = 0.5) -> Sound:
    time = np.arange(round(seconds * rate)) / rate
    return (volume * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def noise(seconds: float, rate: int = RATE) -> Sound:
    return np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


def write_video(
    path: Path,
    pictures: Sequence[Picture],
    times: Sequence[int],
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
) -> None:
    """Pictures at times in ms, in any container; for what `write_clip` does not write."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_sound(path: Path, channels: Sound, layout: str, rate: int, codec: str) -> None:
    """(channels, samples) in any layout."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(stream.format, layout, rate)
        for converted in resampler.resample(frame):
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))


def remux(
    source: Path,
    target: Path,
    shift: float = 0.0,
    kind: str | None = None,
    moved: str = "video audio",
    options: dict[str, str] | None = None,
) -> None:
    """Copy the packets into another container, `shift` seconds later."""
    opened = av.open(str(target), "w", format=kind, container_options=options or {})
    with av.open(str(source)) as reader, opened as writer:
        streams = {s.index: writer.add_stream_from_template(s) for s in reader.streams}
        for packet in reader.demux():
            if packet.dts is not None:
                ticks = round(shift / packet.time_base) if packet.stream.type in moved else 0
                packet.pts, packet.dts = (packet.pts or 0) + ticks, packet.dts + ticks
                packet.stream = streams[packet.stream.index]
                writer.mux(packet)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s: 40 pictures at 10 a second with B-frames, a keyframe each 1.2 s, and noise."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    write_clip(path, film(40), 10, noise(4), RATE)
    return path


def numbers(
    path: Path, fps: float, limit: int = 1000, start: float = 0.0, end: float | None = None
) -> list[int]:
    return [number_of(picture) for _, picture in read_frames(path, fps, limit, start, end)]


# --- which pictures -------------------------------------------------------------------------------


def test_each_tick_gets_the_picture_shown_then(clip):
    with av.open(str(clip)) as container:
        pts = [packet.pts or 0 for packet in container.demux(video=0) if packet.size]
    assert pts != sorted(pts), "the clip has no B-frames, so reordering is not tested"

    assert numbers(clip, 5) == list(range(0, 40, 2))
    assert numbers(clip, 4) == [int(tick * 2.5) for tick in range(16)]
    times = [time for time, _ in read_frames(clip, 4, 1000)]
    np.testing.assert_allclose(times, np.arange(16) / 4)


def test_pictures_are_rgb_bytes_of_the_clip_s_size(clip):
    for _, picture in read_frames(clip, 1, 3):
        assert picture.shape == (48, 64, 3)
        assert picture.dtype == np.uint8
        assert picture.flags.c_contiguous


def test_a_varying_frame_rate_is_sampled_by_time(tmp_path):
    times = [*range(0, 1000, 33), *range(1000, 2000, 170)]  # 30 a second, then 6
    path = tmp_path / "vfr.mp4"
    write_video(path, [numbered(n) for n in range(len(times))], times)
    ticks = [time for time, _ in read_frames(path, 8, 1000)]
    expected = [sum(shown <= 1000 * tick + 0.5 for shown in times) - 1 for tick in ticks]
    assert numbers(path, 8) == expected
    assert len(ticks) >= 16


def test_a_slow_source_repeats_the_same_array(tmp_path):
    path = tmp_path / "slow.mp4"
    write_clip(path, film(4), 2, None, RATE)
    pictures = [picture for _, picture in read_frames(path, 10, 1000)]
    assert [number_of(picture) for picture in pictures] == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    assert len({id(picture) for picture in pictures}) == 4


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [0]), (2, [0, 39]), (4, [0, 13, 26, 39]), (40, list(range(40)))]
)
def test_too_many_ticks_are_thinned_evenly(clip, limit, expected):
    assert numbers(clip, 10, limit) == expected


@given(
    first=st.floats(0, 100),
    length=st.floats(0, 100),
    fps=st.floats(0.1, 60),
    limit=st.integers(1, 300),
)
def test_ticks_are_even_distinct_and_inside(first, length, fps, limit):
    end = first + length
    ticks = tick_times(first, end, fps, limit)
    every = tick_times(first, end, fps, 10**9)
    assert 1 <= len(ticks) == min(limit, len(every))
    assert ticks[0] == first
    assert len(ticks) == 1 or (ticks[-1] == every[-1] and every[-1] < end)
    assert end <= every[-1] + 1 / fps + 1e-3
    assert set(ticks) <= set(every)
    steps = np.diff(ticks) * fps
    assert np.all(steps > 0.5)
    assert len(steps) == 0 or steps.max() - steps.min() < 1.5


def test_a_clip_of_40_ms_gives_one_picture_and_its_sound(tmp_path):
    path = tmp_path / "short.mp4"
    write_clip(path, film(1), 25, sine(0.04), RATE)
    assert numbers(path, 5) == [0]
    heard = read_waveform(path)
    assert heard is not None
    assert 0.04 * RATE <= heard[0].size < 0.04 * RATE + 1024


# --- what pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3), (270, 3)])
def test_rotation_metadata_is_applied(tmp_path, degrees, turns):
    path = tmp_path / "turned.mp4"
    corners = np.zeros((48, 64, 3), np.uint8)
    corners[:24, :32], corners[:24, 32:], corners[24:, :32] = 250, 150, 80
    write_clip(path, [corners], 10, None, RATE, rotation=degrees, crf=5)
    ((_, picture),) = read_frames(path, 5, 10)
    np.testing.assert_allclose(picture.astype(int), np.rot90(corners, turns), atol=12)


@pytest.mark.parametrize(("axis", "flags"), [(1, (True, False)), (0, (False, True))])
def test_mirrored_pictures_are_mirrored_back(tmp_path, axis, flags):
    path = tmp_path / "mirrored.mp4"
    ramp = np.add.outer(np.arange(0, 96, 2), np.arange(64))[..., None].repeat(3, 2).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.set_display_rotation(0, *flags)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp, format="rgb24")))
        container.mux(stream.encode(None))
    ((_, picture),) = read_frames(path, 5, 10)
    np.testing.assert_allclose(picture.astype(int), np.flip(ramp, axis), atol=12)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "size"),
    [
        ("odd.mp4", "libx264", "yuv444p", (47, 63)),
        ("ten_bit.mp4", "libx264", "yuv420p10le", (48, 64)),
        ("grey.mkv", "ffv1", "gray", (48, 64)),
        ("alpha.mov", "qtrle", "argb", (47, 63)),
        ("odd.avi", "ffv1", "yuv420p", (47, 63)),
        ("vp8.webm", "libvpx", "yuv420p", (48, 64)),
    ],
)
def test_any_pixel_format_and_size_becomes_rgb(tmp_path, name, codec, pixel_format, size):
    path = tmp_path / name
    write_video(
        path, [numbered(n, *size) for n in range(10)], range(0, 1000, 100), codec, pixel_format
    )
    frames = list(read_frames(path, 5, 100))
    assert {picture.shape for _, picture in frames} == {(*size, 3)}
    assert [number_of(picture) for _, picture in frames] == [0, 2, 4, 6, 8]


def test_colours_stay_in_rgb_order(tmp_path):
    path = tmp_path / "red.mp4"
    write_clip(path, [np.full((48, 64, 3), (200, 30, 60), np.uint8)], 10, None, RATE)
    ((_, picture),) = read_frames(path, 5, 10)
    np.testing.assert_allclose(picture.mean(axis=(0, 1)), (200, 30, 60), atol=6)


# --- containers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mov", ".flv"])
def test_other_containers_give_the_same_pictures(clip, tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    remux(clip, path)
    assert probe(path).duration == pytest.approx(4, abs=0.25)
    assert numbers(path, 5) == list(range(0, 40, 2))


def test_the_clock_starts_at_zero_whatever_the_file_s_time_stamps(clip, tmp_path):
    path = tmp_path / "late.ts"
    remux(clip, path, shift=5000)
    with av.open(str(path)) as container:
        assert container.start_time is not None
        assert container.start_time > 4999 * av.time_base
    first = next(read_frames(path, 5, 100))[0]  # encoded sound starts a little early
    assert 0 <= first < 0.1
    assert numbers(path, 5, start=first + 2, end=first + 3) == [20, 22, 24, 26, 28]


def test_what_an_edit_list_cuts_off_is_not_shown(clip, tmp_path):
    path = tmp_path / "edited.mp4"
    remux(clip, path, shift=-1.5)  # negative times become an edit list
    assert probe(path).duration == pytest.approx(2.5, abs=0.1)
    assert numbers(path, 5) == list(range(15, 40, 2))
    heard = read_waveform(path)
    assert heard is not None
    assert heard[0].size == pytest.approx(2.5 * RATE, abs=1200)


def test_a_raw_stream_without_any_times_is_shown_in_order(tmp_path):
    path = tmp_path / "raw.h264"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for picture in film(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert numbers(path, 5) == list(range(0, 20, 2))


def test_a_recording_that_starts_between_keyframes_shows_what_can_be_decoded(clip, tmp_path):
    path = tmp_path / "joined.ts"
    with av.open(str(clip)) as reader, av.open(str(path), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        packets = [packet for packet in reader.demux(video=0) if packet.size][5:]
        key = next((packet.pts or 0) * packet.time_base for packet in packets if packet.is_keyframe)
        for packet in packets:
            packet.stream = stream
            writer.mux(packet)
    assert key > 0.5
    assert numbers(path, 5) == list(range(round(key * 10), 40, 2))


def test_the_cover_of_a_song_is_no_video(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=RATE)
        sound.layout = "mono"
        cover = container.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "rgb24"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(3), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(sine(1)[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert (probe(path).has_video, probe(path).has_audio) == (False, True)
    with pytest.raises(MediaError, match="no video stream"):
        next(read_frames(path, 5, 100))


# --- sound ----------------------------------------------------------------------------------------


def test_sound_comes_at_the_file_s_own_rate(tmp_path):
    path = tmp_path / "phone.mp4"
    write_clip(path, [], 10, sine(1, 8000), 8000)
    heard = read_waveform(path)
    assert heard is not None
    waveform, rate = heard
    assert rate == 8000
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform[200:7800], sine(1, 8000)[200:7800], atol=0.15)


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_channels_are_mixed_down_without_leaving_the_range(tmp_path, layout, channels):
    path = tmp_path / "loud.wav"
    loud = sine(1, volume=0.99)
    write_sound(path, np.stack([loud] * channels), layout, RATE, "pcm_s16le")
    heard = read_waveform(path)
    assert heard is not None
    np.testing.assert_allclose(heard[0], loud, atol=1e-3)


def test_a_silent_movie_has_no_sound(tmp_path):
    path = tmp_path / "silent.mp4"
    write_clip(path, film(10), 10, None, RATE)
    assert read_waveform(path) is None
    assert (probe(path).has_video, probe(path).has_audio) == (True, False)
    assert probe(path).duration == pytest.approx(1)


def test_an_audio_file_has_no_pictures(tmp_path):
    path = tmp_path / "radio.mp4"
    write_clip(path, [], 10, sine(1), RATE)
    assert (probe(path).has_video, probe(path).has_audio) == (False, True)
    with pytest.raises(MediaError, match=r"radio\.mp4: has no video stream"):
        next(read_frames(path, 5, 100))


def test_an_audio_stream_without_samples_counts_as_no_sound(tmp_path):
    path = tmp_path / "hollow.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
    assert read_waveform(path) is None


def test_values_that_are_no_numbers_are_refused(tmp_path):
    path = tmp_path / "nan.wav"
    broken = sine(1)
    broken[5000] = np.nan
    write_sound(path, broken[None], "mono", RATE, "pcm_f32le")
    with pytest.raises(MediaError, match="no numbers"):
        read_waveform(path)


@pytest.mark.parametrize("target", [8000, 16000, 44100])
def test_resampling_keeps_a_sine(target):
    resampled = resample(sine(1, 22050), 22050, target)
    assert resampled.dtype == np.float32
    assert resampled.size == target
    inside = slice(target // 10, -target // 10)
    np.testing.assert_allclose(resampled[inside], sine(1, target)[inside], atol=0.01)


def test_resampling_to_the_same_rate_changes_nothing():
    waveform = noise(0.1)
    assert resample(waveform, RATE, RATE) is waveform


# --- segments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.3), (1.3, 2.7), (2.4, 3.9), (3.7, None)])
def test_a_segment_s_pictures_are_those_of_the_whole(clip, tmp_path, suffix, start, end):
    path = tmp_path / f"clip{suffix}"
    remux(clip, path)
    first = next(read_frames(path, 10, 1000))[0]  # MPEG-TS starts with some sound
    whole = {round(time - first, 3): picture for time, picture in read_frames(path, 10, 1000)}
    part = list(read_frames(path, 10, 1000, first + start, end and first + end))
    assert len(part) == round(((end or 4) - start) * 10)
    for time, picture in part:
        np.testing.assert_array_equal(picture, whole[round(time - first, 3)])


@pytest.mark.parametrize("kind", ["mp4", "fragmented mp4", "matroska", "mpegts"])
@pytest.mark.parametrize(
    ("start", "end"), [(0.0, 1.0), (0.51234, 2.7), (2.4, 3.99999), (3.7, None)]
)
def test_a_segment_s_sound_is_that_of_the_whole(clip, tmp_path, kind, start, end):
    path = tmp_path / "clip"
    fragmented = {"movflags": "frag_keyframe+empty_moov"} if "fragmented" in kind else {}
    remux(clip, path, kind=kind.split()[-1], options=fragmented)
    whole, part = read_waveform(path), read_waveform(path, start, end)
    assert whole is not None
    assert part is not None
    stop = None if end is None else round(end * RATE)
    np.testing.assert_array_equal(part[0], whole[0][round(start * RATE) : stop])


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_sound_that_starts_late_is_silent_before(clip, tmp_path, kind):
    path = tmp_path / "late"
    remux(clip, path, shift=1.25, moved="audio", kind=kind)
    original, late = read_waveform(clip), read_waveform(path)
    assert original is not None
    assert late is not None
    np.testing.assert_array_equal(late[0][:RATE], 0)
    # An encoder's priming, 1024 samples, is cut off at the file's start alone.
    assert np.flatnonzero(late[0])[0] == pytest.approx(1.25 * RATE, abs=1100)
    assert late[0].size == pytest.approx(1.25 * RATE + original[0].size, abs=1100)


def test_sound_and_pictures_of_a_segment_belong_together(tmp_path):
    """A flash and a click at 2.6 s are both found 0.6 s into the segment from 2 s on."""
    path = tmp_path / "clap.mp4"
    click = np.zeros(4 * RATE, np.float32)
    click[round(2.6 * RATE)] = 0.9
    pictures = [np.full((48, 64, 3), 255 * (n == 26), np.uint8) for n in range(40)]
    write_clip(path, pictures, 10, click, RATE)
    flashes = [time for time, picture in read_frames(path, 10, 100, 2, 3) if picture.mean() > 128]
    assert flashes == pytest.approx([2.6])
    heard = read_waveform(path, 2, 3)
    assert heard is not None
    assert np.abs(heard[0]).argmax() / RATE == pytest.approx(0.6, abs=0.005)


def test_a_segment_may_end_after_the_video(clip):
    assert numbers(clip, 10, start=3.7, end=9) == [37, 38, 39]


@pytest.mark.parametrize(
    ("start", "end"), [(4.5, 6.0), (4.5, None), (2.0, 2.0), (3.0, 2.0), (-1, 1)]
)
def test_an_impossible_segment_is_refused_with_its_times(clip, start, end):
    with pytest.raises(MediaError, match=rf"clip\.mp4: .*{start:g}.* correct"):
        next(read_frames(clip, 5, 100, start, end))


@pytest.mark.parametrize(("fps", "limit"), [(0, 10), (-1, 10), (5, 0)])
def test_a_senseless_clock_is_a_programming_error(clip, fps, limit):
    with pytest.raises(ValueError, match="have to be positive"):
        next(read_frames(clip, fps, limit))


# --- files that are not as they should be ---------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"hello, this is a text file\n" * 200, "Invalid data"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://localhost:1/a.ts\n", "cannot be"),
        (bytes(5000), "Invalid data"),
    ],
)
def test_no_clip_at_all_is_a_media_error(tmp_path, capfd, reader, content, reason):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=rf"clip\.mp4: .*{reason}"):
        READERS[reader](path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("reader", READERS)
def test_a_directory_is_no_clip(tmp_path, reader):
    with pytest.raises(MediaError, match="no such file"):
        READERS[reader](tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_lost_its_index_is_refused(clip, tmp_path, reader):
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"cut\.mp4: cannot be decoded \(Invalid data"):
        READERS[reader](path)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_download_that_broke_off_is_refused(clip, tmp_path, suffix, share, capfd):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    if suffix == ".mp4":
        write_clip(whole, film(40), 10, noise(4), RATE, faststart=True)
    else:
        remux(clip, whole)
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    for reader in ("read_frames", "read_waveform"):
        with pytest.raises(MediaError, match=r"stops at \d\.\d\d s|Invalid data"):
            READERS[reader](path)
    assert capfd.readouterr().err == ""


def test_a_segment_before_the_break_is_still_read(tmp_path):
    whole, path = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    write_clip(whole, film(40), 10, noise(4), RATE, faststart=True)
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    assert numbers(path, 10, end=1.0) == list(range(10))
    heard = read_waveform(path, 0.5, 1.0)
    assert heard is not None
    assert heard[0].size == RATE // 2


def test_undecodable_pictures_are_refused_with_how_far_they_go(clip, tmp_path):
    path = tmp_path / "holed.mp4"
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray(clip.read_bytes())
    for packet in packets[20:]:
        assert packet.pos is not None
        content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"holed\.mp4: .* up to [12]\.\d\d s of 4\.00 s"):
        READERS["read_frames"](path)


def test_a_codec_that_ffmpeg_lacks_is_named(clip, tmp_path):
    path = tmp_path / "exotic.mkv"
    remux(clip, path)
    path.write_bytes(path.read_bytes().replace(b"ISO/AVC", b"ISO/XYZ").replace(b"A_AAC", b"A_XYZ"))
    for reader, kind in {"read_frames": "video", "read_waveform": "audio"}.items():
        with pytest.raises(MediaError, match=rf"exotic\.mkv: FFmpeg cannot decode its {kind}"):
            READERS[reader](path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_damage_anywhere_raises_nothing_but_media_errors(clip, tmp_path, suffix):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"damaged{suffix}"
    remux(clip, whole)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        content = np.frombuffer(whole.read_bytes(), np.uint8).copy()
        content[rng.integers(content.size, size=rng.integers(1, 200))] = rng.integers(256)
        path.write_bytes(content.tobytes())
        for reader in READERS.values():
            try:
                reader(path)
            except MediaError as error:
                refused += str(path) in str(error)
    assert refused > 10


@pytest.mark.parametrize(
    "name",
    ["-y.mp4", "a b'\"%03d.mp4", "concat:a|b.mp4", "http:x.mp4", "映画 é#?&*.mp4", "%d[].mp4"],
)
def test_file_names_are_only_names(clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(clip.read_bytes())
    assert probe(Path(name)).duration == pytest.approx(4)
    assert numbers(Path(name), 1) == [0, 10, 20, 30]
    assert read_waveform(Path(name)) is not None


def test_an_abandoned_clip_is_closed(clip):
    frames = read_frames(clip, 5, 100)
    next(frames)
    assert opened(clip) == 1
    del frames
    assert opened(clip) == 0


def opened(path: Path) -> int:
    """How many file descriptors this process has on a file."""
    links = Path("/proc/self/fd")
    if not links.is_dir():
        pytest.skip("no /proc here")
    return sum(link.exists() and link.samefile(path) for link in links.iterdir())


def test_a_file_without_a_stated_length_is_measured(clip, tmp_path):
    path = tmp_path / "live.webm"
    remux(clip, path, options={"live": "1"}, kind="matroska")
    with av.open(str(path)) as container:
        assert container.duration is None
    assert probe(path).duration == pytest.approx(4, abs=0.1)
    assert numbers(path, 5) == list(range(0, 40, 2))
