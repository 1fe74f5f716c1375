"""Videos cut into utterances: at the cues of subtitles, or where nobody speaks."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from clipmsa.cache.errors import MediaError, SubtitleError
from clipmsa.extract import media
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.transcripts import pauses
from clipmsa.extract.transcripts.cut import Script, find_videos, sidecar, utterances
from clipmsa.extract.transcripts.pauses import FRAME, cut_at_pauses, loudness, spoken_spans
from clipmsa.extract.transcripts.subtitles import Cue, Subtitles

RATE, FPS = 16000, 10

SRT = """1
00:00:01,000 --> 00:00:02,500
It was <i>not</i> what I
hoped for.

2
00:00:03,250 --> 00:00:04,000
{\\an8}The ending though!
"""
CUES = [Cue(1.0, 2.5, "It was not what I hoped for."), Cue(3.25, 4.0, "The ending though!")]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def speech(*spans: tuple[float, float], seconds: float, noise: float = 0.001) -> np.ndarray:
    """(samples,) of quiet noise with a tone in each span."""
    generator = np.random.default_rng(0)
    waveform = generator.normal(0, noise, round(seconds * RATE))
    for start, end in spans:
        time = np.arange(round(start * RATE), round(end * RATE))
        waveform[time] += 0.3 * np.sin(time * 2 * np.pi * 200 / RATE)
    return waveform.astype(np.float32)


def write_talk(path: Path, waveform: np.ndarray | None, seconds: float = 5.0) -> Path:
    """A video whose every picture is a grey of its number."""
    numbers = range(round(seconds * FPS))
    frames = (np.full((32, 32, 3), 4 * number % 256, np.uint8) for number in numbers)
    write_clip(path, frames, FPS, waveform, RATE, crf=0)
    return path


def test_a_video_is_cut_at_its_cues_to_the_picture_and_the_sample(tmp_path):
    ramp = np.linspace(-0.5, 0.5, 5 * RATE).astype(np.float32)
    video = write_talk(tmp_path / "talk.mp4", ramp)
    write(tmp_path / "talk.srt", SRT)
    first, second = utterances(video, Script()).clips
    assert [clip.utterance.text for clip in (first, second)] == [cue.text for cue in CUES]
    assert (first.start, first.end, second.start, second.end) == (1.0, 2.5, 3.25, 4.0)
    frames = [*media.read_frames(video, FPS, 64, first.start, first.end)]
    assert [int(picture[0, 0, 0].round(-0) + 2) // 4 for _, picture in frames] == [*range(10, 25)]
    sound = media.read_waveform(video, first.start, first.end)
    assert sound is not None
    assert len(sound[0]) == 1.5 * RATE
    whole = media.read_waveform(video)
    assert whole is not None
    np.testing.assert_allclose(sound[0], whole[0][RATE : RATE + len(sound[0])], atol=1e-4)


def test_words_that_are_given_go_before_those_beside_the_video(tmp_path):
    video = write_talk(tmp_path / "talk.mp4", None)
    write(tmp_path / "talk.txt", "a text\nof two lines")
    assert [clip.utterance.text for clip in utterances(video, Script()).clips] == [
        "a text of two lines"
    ]
    write(tmp_path / "talk.srt", SRT)  # says more than a text does
    assert len(utterances(video, Script()).clips) == 2
    (clip,) = utterances(video, Script(text="given")).clips
    assert (clip.utterance.text, clip.start, clip.end) == ("given", 0.0, None)
    (clip,) = utterances(video, Script(subtitles=Subtitles([Cue(0.5, 1.0, "given")], []))).clips
    assert (clip.utterance.text, clip.start, clip.end) == ("given", 0.5, 1.0)


def test_a_long_video_is_cut_at_its_pauses_and_a_short_one_is_not(tmp_path):
    video = write_talk(tmp_path / "talk.mp4", speech((0.8, 2.0), (2.9, 4.2), seconds=5.0))
    (clip,) = utterances(video, Script(longest=6)).clips
    assert (clip.start, clip.end) == (0, None)
    clips = utterances(video, Script(longest=4)).clips
    spans = [(clip.start, clip.end or 0.0) for clip in clips]
    np.testing.assert_allclose(spans, [(0.55, 2.25), (2.65, 4.45)], atol=2 * FRAME)
    assert {clip.utterance.text for clip in clips} == {""}


def test_without_sound_a_long_video_is_cut_evenly(tmp_path):
    video = write_talk(tmp_path / "talk.mp4", None)
    spans = spoken_spans(video, 5.0, 2.0)
    np.testing.assert_allclose(spans, [(0, 5 / 3), (5 / 3, 10 / 3), (10 / 3, 5)])


def test_sound_is_measured_in_blocks_as_it_is_in_one_piece(tmp_path, monkeypatch):
    waveform = speech((0.4, 2.0), (2.9, 4.6), seconds=5.0)
    video = write_talk(tmp_path / "talk.mp4", waveform)
    whole = spoken_spans(video, 5.0, 4.0)
    monkeypatch.setattr(pauses, "_BLOCK_SECONDS", 1.0)
    np.testing.assert_allclose(spoken_spans(video, 5.0, 4.0), whole, atol=2 * FRAME)


@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_loudness_is_in_decibels_of_full_scale_on_a_grid_that_does_not_drift(rate):
    tone = np.sin(np.arange(60 * rate) * 2 * np.pi * 1000 / rate).astype(np.float32)
    tone[: 30 * rate] *= 0.1
    levels = loudness(tone, rate)
    assert len(levels) == 60 / FRAME
    np.testing.assert_allclose(levels[: round(30 / FRAME)], -23.01, atol=0.3)
    np.testing.assert_allclose(levels[round(30 / FRAME) :], -3.01, atol=0.3)
    assert loudness(np.zeros(rate, np.float32), rate).max() == -90


def levels_of(*runs: tuple[float, float]) -> np.ndarray:
    """Levels of stretches, each (seconds, dB)."""
    return np.concatenate([np.full(round(seconds / FRAME), level) for seconds, level in runs])


@pytest.mark.parametrize("noise", [-90.0, -60.0, -35.0])  # digital silence, a room, a street
def test_pauses_are_found_above_any_background(noise):
    levels = levels_of(
        (2, noise), (3, -20), (1, noise), (2, -25), (0.3, noise), (2, -20), (4, noise)
    )
    spans = cut_at_pauses(levels, 20)
    np.testing.assert_allclose(
        spans, [(1.75, 5.25), (5.75, 10.55)], atol=FRAME
    )  # 0.3 s is no pause


def test_silence_that_was_added_does_not_hide_the_pauses_of_a_room():
    levels = levels_of((4, -90), (3, -20), (1, -60), (3, -20), (1, -60))
    np.testing.assert_allclose(cut_at_pauses(levels, 20), [(3.75, 7.25), (7.75, 11.25)], atol=FRAME)


def test_a_short_pause_is_shared_by_its_neighbours():
    levels = levels_of((3, -20), (0.5, -60), (3, -20), (1, -60))
    np.testing.assert_allclose(cut_at_pauses(levels, 20), [(0, 3.25), (3.25, 6.75)], atol=FRAME)


def test_a_short_word_joins_what_is_near_and_stays_alone_where_nothing_is():
    near = levels_of((2, -60), (3, -20), (0.6, -60), (0.3, -20), (2, -60))
    np.testing.assert_allclose(cut_at_pauses(near, 20), [(1.75, 6.15)], atol=FRAME)
    far = levels_of((2, -60), (3, -20), (2, -60), (0.3, -20), (2, -60))
    np.testing.assert_allclose(cut_at_pauses(far, 20), [(1.75, 5.25), (6.75, 7.55)], atol=FRAME)


def test_speech_without_a_pause_is_cut_at_its_quietest_places():
    levels = levels_of((5, -60), (9, -20), (0.2, -40), (9, -21), (0.2, -40), (9, -20), (5, -60))
    spans = cut_at_pauses(levels, 12)
    edges = [start for start, _ in spans[1:]]
    np.testing.assert_allclose(edges, [14.1, 23.3], atol=0.1)
    assert all(end - start <= 12 for start, end in spans)


@pytest.mark.parametrize(
    "levels", [levels_of((30, -90)), levels_of((30, -20)), levels_of((9, -75))]
)
def test_sound_in_which_nothing_stands_out_has_no_speech(levels):
    assert cut_at_pauses(levels, 10) == []


def test_videos_are_files_folders_and_patterns(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.mp4", "deep/a.MKV", "deep/notes.md", ".hidden.mp4", "b.srt"):
        (tmp_path / name).touch()
    found = [tmp_path / "b.mp4", tmp_path / "deep" / "a.MKV"]
    assert find_videos([str(tmp_path)]) == found
    assert find_videos([f"{tmp_path}/*.*", f"{tmp_path}/deep/a.MKV"]) == found
    assert find_videos([str(path) for path in (tmp_path / "b.srt", tmp_path / "b.mp4")]) == [
        tmp_path / "b.mp4"
    ]
    with pytest.raises(MediaError, match="only files of words"):
        find_videos([str(tmp_path / "b.srt")])


SUFFIXES = ("mp4", "MP4", "ts", "mts", "m2ts", "mpg", "wmv", "3gp", "flv", "ogg", "opus", "aac")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_s_videos_and_sounds_are_found_in_any_format_and_case(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").touch()
    assert find_videos([str(tmp_path)]) == [tmp_path / f"a.{suffix}"]
    assert find_videos([f"{tmp_path}/a.*"]) == [tmp_path / f"a.{suffix}"]


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        (["talk.SRT"], "talk.SRT"),
        (["talk.en.srt"], "talk.en.srt"),
        (["talk.pt-BR.vtt"], "talk.pt-BR.vtt"),
        (["talk.en.sdh.srt"], "talk.en.sdh.srt"),
        (["talk.de.srt", "talk.en-US.vtt"], "talk.en-US.vtt"),
        (["talk.en.srt", "talk.txt"], "talk.txt"),  # of its very name
        (["talk.txt", "talk.vtt", "talk.srt"], "talk.srt"),
        (["talk.ass"], "talk.ass"),
        (["talk.two.srt", "talk.two.mp4"], None),  # of another video
        (["talks.srt", "talk.draft 3.srt", "talk.json", "other.srt"], None),
    ],
)
def test_words_beside_a_video_are_found_by_its_name(tmp_path, beside, found):
    for name in ["talk.mp4", *beside]:
        (tmp_path / name).touch()
    expected = None if found is None else tmp_path / found
    assert sidecar(tmp_path / "talk.mp4") == expected


def test_of_subtitles_in_several_foreign_languages_none_is_guessed(tmp_path):
    for name in ("talk.mp4", "talk.de.srt", "talk.fr.srt"):
        (tmp_path / name).touch()
    with pytest.raises(SubtitleError, match=r"talk\.de\.srt, talk\.fr\.srt; give one"):
        sidecar(tmp_path / "talk.mp4")


def test_cues_that_cannot_be_read_are_told_beside_the_clips(tmp_path):
    video = write_talk(tmp_path / "talk.mp4", None)
    write(tmp_path / "talk.srt", SRT.replace("00:00:03,250", "00:00:0x,250"))
    clips, (fault,) = utterances(video, Script())
    assert [clip.utterance.text for clip in clips] == [CUES[0].text]
    assert "talk.srt" in fault
    assert "The ending though!" in fault


def add_subtitles(video: Path, out: Path, codec: str, cues: list[Cue]) -> Path:
    """A copy of the video with cues as a track of subtitles."""
    with av.open(str(video)) as source, av.open(str(out), "w") as target:
        copies = {s.index: target.add_stream_from_template(s) for s in source.streams}
        track = target.add_stream(codec)
        track.time_base = Fraction(1, 1000)
        context: Any = track.codec_context
        context.subtitle_header = b"[Script Info]\n[V4+ Styles]\nFormat: Name\n"
        packets = [packet for packet in source.demux() if packet.dts is not None]
        for packet in packets:
            packet.stream = copies[packet.stream.index]
            target.mux(packet)
        for cue in cues:
            packet = av.Packet(cue.text.encode())
            packet.stream, packet.time_base = track, Fraction(1, 1000)
            packet.pts = packet.dts = round(cue.start * 1000)
            packet.duration = round((cue.end - cue.start) * 1000)
            target.mux(packet)
    return out


def test_subtitles_inside_a_video_are_used_unless_there_are_some_beside_it(tmp_path):
    video = write_talk(tmp_path / "plain.mp4", None)
    cues = [Cue(1.0, 2.5, "It was <i>not</i>\nfor me & you."), Cue(3.25, 4.0, "a < b")]
    talk = add_subtitles(video, tmp_path / "talk.mkv", "srt", cues)
    clips, faults = utterances(talk, Script())
    assert [(clip.start, clip.end, clip.utterance.text) for clip in clips] == [
        (1.0, 2.5, "It was not for me & you."),
        (3.25, 4.0, "a < b"),
    ]
    assert faults == []
    write(tmp_path / "talk.txt", "beside")
    assert [clip.utterance.text for clip in utterances(talk, Script()).clips] == ["beside"]
