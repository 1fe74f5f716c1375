"""`clipmsa cut`: recordings to a table of utterances that `extract` reads back."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np
import pytest

from clipmsa.cli.main import main
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.datasets.read import read_dataset

RATE = 8000
SRT = """1
00:00:00,500 --> 00:00:01,250
It was, well, great.

2
00:00:02,000 --> 00:00:03,000
No.
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Four recordings: with subtitles, with a pause at 1.5 s, short, and broken."""
    monkeypatch.chdir(tmp_path)
    time = np.arange(4 * RATE) / RATE
    tone = np.where(abs(time - 1.5) < 0.4, 0.0, 0.3 * np.sin(time * 2000)).astype(np.float32)
    for name in ("a", "b"):
        write_clip(tmp_path / "talks" / f"{name}.mp4", [], 10, tone, RATE)
    write_clip(tmp_path / "talks" / "c.mp4", [], 10, tone[:RATE], RATE)
    (tmp_path / "talks" / "a.srt").write_text(SRT)
    (tmp_path / "talks" / "d.mp4").write_text("broken")
    return tmp_path


def test_the_table_is_what_extract_reads(folder, capsys):
    assert main(["cut", "talks", "--out", "clips.csv", "--max-seconds", "3"]) == 0
    told = capsys.readouterr().err
    assert "left out talks/d.mp4: cannot be decoded" in told
    assert "5 utterances of 3 videos" in told
    clips = read_dataset("clips.csv").clips
    assert [clip.path.name for clip in clips] == ["a.mp4", "a.mp4", "b.mp4", "b.mp4", "c.mp4"]
    assert [clip.utterance.text for clip in clips] == ["It was, well, great.", "No.", "", "", ""]
    assert [(clip.start, clip.end) for clip in clips[:2]] == [(0.5, 1.25), (2.0, 3.0)]
    assert clips[2].start == 0
    assert clips[2].end == pytest.approx(1.35, abs=0.05)
    assert (clips[4].start, clips[4].end) == (0, None)
    assert np.isnan([clip.utterance.label for clip in clips]).all()


def test_all_of_a_video_is_in_one_split_and_every_split_has_a_video(folder):
    assert main(["cut", "talks/[abc].mp4", "--out", "clips.csv", "--max-seconds", "3"]) == 0
    splits = {(c.path.name, c.utterance.split) for c in read_dataset("clips.csv").clips}
    assert len(splits) == 3
    assert {split for _, split in splits} == {"train", "valid", "test"}


def test_two_videos_are_too_few_for_three_splits(folder, capsys):
    assert main(["cut", "talks/a.mp4", "talks/b.mp4", "--out", "clips.csv"]) == 0
    assert "fewer than three videos" in capsys.readouterr().err
    assert {clip.utterance.split for clip in read_dataset("clips.csv").clips} == {"train"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["talks", "--out", "labelled.csv"], "labelled.csv: is there already"),
        (["talks", "--out", "elsewhere/clips.csv"], "is not below"),
        (["talks/d.mp4", "--out", "clips.csv"], "no video could be cut"),
        (["nothing", "--out", "clips.csv"], "nothing: no such file or folder"),
    ],
)
def test_a_table_is_not_written_where_it_would_do_harm_or_no_good(
    folder, capsys, arguments, message
):
    (folder / "labelled.csv").write_text("mine")
    assert main(["cut", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert (folder / "labelled.csv").read_text() == "mine"
    assert not (folder / "clips.csv").exists()


def test_what_the_package_logs_is_told_once(folder, capsys):
    """Of a recording whose sides cancel each other, each block of sound would say so."""
    time = np.arange(4 * RATE) / RATE
    wave_ = (8000 * np.sin(time * 2000)).astype("<i2")
    with wave.open("inverted.wav", "wb") as file:
        file.setparams((2, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.stack([wave_, -wave_], axis=1).tobytes())
    for _ in range(2):
        main(["cut", "inverted.wav", "--out", "clips.csv", "--max-seconds", "3"])
        told = capsys.readouterr().err
        (folder / "clips.csv").unlink()
        assert told.count("inverted.wav: the sides of its sound cancel each other") == 1


def test_a_video_and_its_sound_of_one_name_are_one_video_to_extract(folder, capsys):
    (folder / "talks" / "a.wav").write_bytes((folder / "talks" / "b.mp4").read_bytes())
    for suffix in ("mp4", "wav"):
        (folder / "talks" / f"c.{suffix}").write_bytes((folder / "talks" / "b.mp4").read_bytes())
    assert main(["cut", "talks", "--out", "clips.csv", "--max-seconds", "3"]) == 0
    assert "talks/a.wav: of the same name as another file" in capsys.readouterr().err
    rows = [(c.path.name, c.utterance) for c in read_dataset("clips.csv").clips]
    of_a = [(name, utterance.clip_id) for name, utterance in rows if name.startswith("a")]
    assert [name for name, _ in of_a[:2]] == ["a.mp4", "a.mp4"]
    assert [id_ for _, id_ in of_a] == [str(place) for place in range(len(of_a))]
    assert of_a[-1][0] == "a.wav"
    assert len({(utterance.video_id, utterance.split) for _, utterance in rows}) == 3


def test_a_cue_that_cannot_be_read_is_told(folder, capsys):
    (folder / "talks" / "a.srt").write_text(SRT.replace("00:00:02,000", "00:00:0x,000"))
    assert main(["cut", "talks/a.mp4", "--out", "clips.csv"]) == 0
    assert "talks/a.srt: left out 'No.', whose cue at line 6 has" in capsys.readouterr().err


def test_a_name_that_a_table_cannot_hold_is_refused(folder, capsys):
    name = os.fsdecode(b"talks/caf\xe9.mp4")
    (folder / "talks" / "a.mp4").rename(folder / name)
    assert main(["cut", name, "--out", "clips.csv"]) == 1
    assert r"talks/caf\udce9.mp4: a name that is not UTF-8; rename it" in capsys.readouterr().err
