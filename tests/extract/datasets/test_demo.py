"""The demo data set: what its docstring promises, looked up in the files it writes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clipmsa.extract.datasets.demo import BAD_WORDS, FPS, GOOD_WORDS, write_clip, write_demo_dataset
from clipmsa.extract.media.video import probe, read_frames, read_waveform

pytestmark = pytest.mark.slow  # They make and read clips.


@dataclass(frozen=True)
class Row:
    """A line of label.csv and the clip it names."""

    video: str
    path: Path
    text: str
    label: float
    annotation: str
    mode: str


def rows_of(table: Path) -> list[Row]:
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == ["video_id", "clip_id", "text", "label", "annotation", "mode"]
        return [
            Row(
                row["video_id"],
                table.parent / "Raw" / row["video_id"] / f"{row['clip_id']}.mp4",
                row["text"],
                float(row["label"]),
                row["annotation"],
                row["mode"],
            )
            for row in reader
        ]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return rows_of(write_demo_dataset(tmp_path_factory.mktemp("demo")))


def pictures(row: Row) -> NDArray[np.uint8]:
    """(T, H, W, 3)"""
    return np.stack([picture for _, picture in read_frames(row.path, 5, 100)])


def correlation(rows: list[Row], statistic: list[float]) -> float:
    return float(np.corrcoef([row.label for row in rows], statistic)[0, 1])


def test_every_clip_of_the_table_is_there_and_no_other(rows):
    assert len(rows) == 48
    table_root = rows[0].path.parents[2]
    assert {row.path for row in rows} == set((table_root / "Raw").rglob("*.mp4"))
    for row in rows:
        info = probe(row.path)
        assert info.has_video
        assert 1.4 <= info.duration <= 2.7
        assert pictures(row).shape[1:] == (120, 160, 3)


def test_labels_and_annotations_agree(rows):
    names = {-1: "Negative", 0: "Neutral", 1: "Positive"}
    assert all(-3 <= row.label <= 3 for row in rows)
    assert all(row.annotation == names[int(np.sign(row.label))] for row in rows)
    assert {row.annotation for row in rows} == set(names.values())


@pytest.mark.parametrize("clips", [6, 7, 12, 13, 24, 30])
def test_no_video_is_in_two_splits_and_each_split_has_two_clips(tmp_path, clips):
    rows = rows_of(write_demo_dataset(tmp_path, clips))
    assert len(rows) == clips
    modes = {row.video: row.mode for row in rows}
    assert all(modes[row.video] == row.mode for row in rows)
    counts = {mode: sum(row.mode == mode for row in rows) for mode in ("train", "valid", "test")}
    assert sum(counts.values()) == clips
    assert min(counts.values()) >= 2


def test_splits_are_about_60_15_and_25_percent(rows):
    shares = [np.mean([row.mode == mode for row in rows]) for mode in ("train", "valid", "test")]
    np.testing.assert_allclose(shares, [0.6, 0.15, 0.25], atol=0.05)


def test_each_split_has_labels_of_both_signs(rows):
    for mode in ("train", "valid", "test"):
        labels = [row.label for row in rows if row.mode == mode]
        assert min(labels) < -1
        assert max(labels) > 1


def test_too_few_clips_for_three_splits_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 6"):
        write_demo_dataset(tmp_path, 5)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    first, again, other = (
        write_demo_dataset(tmp_path / name, 6, seed)
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    for one, two in zip(rows_of(first), rows_of(again), strict=True):
        assert one.path.read_bytes() == two.path.read_bytes()


def test_some_modalities_are_missing_in_the_training_split_alone(rows):
    silent = [row for row in rows if read_waveform(row.path) is None]
    wordless = [row for row in rows if not row.text]
    assert [row.mode for row in silent] == ["train"]
    assert [row.mode for row in wordless] == ["train"]
    assert silent != wordless


def test_a_small_data_set_misses_nothing(tmp_path):
    rows = rows_of(write_demo_dataset(tmp_path, 12))
    assert all(row.text and probe(row.path).has_audio for row in rows)


def test_each_modality_tells_the_label_but_not_all_of_it(rows):
    complete = [row for row in rows if row.text and probe(row.path).has_audio]
    words = [
        float(sum((word in GOOD_WORDS) - (word in BAD_WORDS) for word in row.text.split()))
        for row in complete
    ]
    light = [float(pictures(row).mean()) for row in complete]
    pitch, loudness = [], []
    for row in complete:
        heard = read_waveform(row.path)
        assert heard is not None
        waveform, rate = heard
        spectrum = np.abs(np.fft.rfft(waveform))
        pitch.append(float(np.log(spectrum.argmax() * rate / waveform.size)))
        loudness.append(float(np.sqrt(np.mean(waveform**2))))
    found = [correlation(complete, values) for values in (words, light, pitch, loudness)]
    assert min(found) > 0.5
    assert max(found) < 0.98
    together = sum((np.array(v) - np.mean(v)) / np.std(v) for v in (words, light, pitch))
    assert correlation(complete, list(np.asarray(together))) > max(found)


@pytest.mark.slow
def test_mtcnn_finds_the_face_where_there_is_one(rows):
    import torch
    from facenet_pytorch import MTCNN

    torch.set_num_threads(1)
    detector = MTCNN(min_face_size=20)
    with_face, without = rows[2::6], rows[:2]
    shots = np.concatenate([pictures(row)[::3] for row in with_face])
    boxes, _ = detector.detect(shots)
    assert np.mean([box is not None for box in boxes]) > 0.8
    boxes, _ = detector.detect(np.concatenate([pictures(row)[::3] for row in without]))
    assert all(box is None for box in boxes)


def test_a_clip_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither pictures nor sound"):
        write_clip(tmp_path / "nothing.mp4", [], FPS, None, 16000)


def test_a_clip_holds_what_was_written(tmp_path):
    path = tmp_path / "new" / "clip.mp4"
    shades = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(10)]
    write_clip(path, iter(shades), 8, None, 16000)
    times, found = zip(*read_frames(path, 8, 100), strict=True)
    np.testing.assert_allclose(times, np.arange(10) / 8, atol=1e-6)
    np.testing.assert_allclose([picture.mean() for picture in found], range(0, 200, 20), atol=3)
