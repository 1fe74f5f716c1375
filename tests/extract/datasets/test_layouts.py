"""CMU's own folders: what was downloaded is read as it is, and what is missing in it is told.

Every folder here is made from one list of segments, so that layouts can be compared.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ExchangeError, MediaError, TableError
from clipmsa.cache.plugins import Registry
from clipmsa.extract import media
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.datasets.read import Clip, Manifest, read_dataset
from clipmsa.extract.datasets.survey import survey
from clipmsa.extract.encoders import registry
from clipmsa.extract.encoders.encoder import Encoder, Setup
from clipmsa.extract.engine.decode import decode
from clipmsa.extract.engine.pipeline import extract
from clipmsa.extract.engine.plan import Settings
from clipmsa.extract.profiles.profile import Media, Profile, StreamRecipe

RATE, FPS = 8000, 10


class Segment(NamedTuple):
    clip: str
    start: float
    end: float
    label: float
    text: str


# MOSI counts clips from 1.
MOSI: dict[str, list[Segment]] = {
    "03bSnISJMiM": [Segment("1", 0.2, 1.0, 2.4, "ANYHOW"), Segment("2", 1.0, 1.6, -0.6, " ")],
    "_dI--eQ6qVU": [Segment("1", 0.0, 0.7, 0.0, "ON _DELIM_ OFF"), Segment("2", 0.9, 2, -3, "NO")],
    "zhpQhgha_KU": [Segment("1", 0.4, 1.4, 1.0, "YES, BUT")],
}
FOLDS = {"train": ["03bSnISJMiM", "gone"], "valid": ["_dI--eQ6qVU"], "test": ["zhpQhgha_KU"]}


def full_video(path: Path) -> None:
    """Two seconds whose shade and loudness tell the time."""
    frames = [np.full((32, 48, 3), 20 + 10 * k, np.uint8) for k in range(2 * FPS)]
    time = np.arange(2 * RATE) / RATE
    write_clip(path, frames, FPS, (time / 4 * np.sin(time * 2500)).astype(np.float32), RATE)


@pytest.fixture(scope="session")
def films(tmp_path_factory) -> Path:
    """One full video, and a file for each of the segments in MOSI."""
    root = tmp_path_factory.mktemp("films")
    full_video(root / "full.mp4")
    sound, _ = media.read_waveform(root / "full.mp4") or (np.zeros(0, np.float32), 0)
    for segment in {s[1:3]: s for segments in MOSI.values() for s in segments}.values():
        first, last = round(segment.start * FPS), round(segment.end * FPS)
        frames = [np.full((32, 48, 3), 20 + 10 * k, np.uint8) for k in range(first, last)]
        piece = sound[round(segment.start * RATE) : round(segment.end * RATE)]
        write_clip(root / f"{segment.start}-{segment.end}.mp4", frames, FPS, piece, RATE)
    return root


def write_csd(path: Path, name: str, videos: Mapping[str, tuple[Any, Any]]) -> None:
    """A computational sequence: intervals and features by video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for video, (intervals, features) in videos.items():
            file[f"{name}/data/{video}/intervals"] = np.array(intervals, np.float32)
            file[f"{name}/data/{video}/features"] = np.array(features, np.float32)
        file[f"{name}/metadata/root name"] = json.dumps(name)


def transcripts(folder: Path, suffix: str, lines: Mapping[str, Sequence[str]]) -> None:
    folder.mkdir(parents=True)
    for video, said in lines.items():
        (folder / f"{video}{suffix}").write_text("\n".join(said) + "\n", encoding="utf-8")


def raw_mosi(root: Path, films: Path, *, full: bool) -> Path:
    lines = {v: [f"{s.clip}_DELIM_{s.text}" for s in segments] for v, segments in MOSI.items()}
    transcripts(root / "Raw" / "Transcript" / "Segmented", ".annotprocessed", lines)
    (root / "Labels").mkdir()
    with (root / "Labels" / "OpinionLevelSentiment.csv").open("w", newline="") as file:
        for video, segments in MOSI.items():
            csv.writer(file).writerows([s.start, s.end, video, s.clip, s.label] for s in segments)
    for video, segments in MOSI.items():
        folder = root / "Raw" / "Video" / ("Full" if full else "Segmented")
        folder.mkdir(parents=True, exist_ok=True)
        if full:
            shutil.copy(films / "full.mp4", folder / f"{video}.mp4")
        for s in () if full else segments:
            shutil.copy(films / f"{s.start}-{s.end}.mp4", folder / f"{video}_{s.clip}.mp4")
    return root


def mmsa(root: Path, films: Path) -> Path:
    root.mkdir()
    splits = {video: split for split, videos in FOLDS.items() for video in videos}
    with (root / "label.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "clip_id", "text", "label", "annotation", "mode"])
        for video, segments in MOSI.items():
            (root / "Raw" / video).mkdir(parents=True)
            for s in segments:
                writer.writerow([video, s.clip, s.text.strip(), s.label, "", splits[video]])
                shutil.copy(
                    films / f"{s.start}-{s.end}.mp4", root / "Raw" / video / f"{s.clip}.mp4"
                )
    return root


@pytest.fixture
def folds(tmp_path) -> Path:
    (tmp_path / "folds.json").write_text(json.dumps(FOLDS))
    return tmp_path / "folds.json"


# ---- One store from every layout.


class Stub(Encoder):
    """Rows that tell the time in the full video, quickly."""

    def __init__(self, setup):
        super().__init__(setup, nn.Identity())

    def features(self, item: Any) -> Any:
        raise NotImplementedError

    def _encode(self, items):
        return [torch.from_numpy(self.features(item)) for item in items]


class StubText(Stub):
    modality, consumes, level, dim = "text", "text", "utterance", 1

    def features(self, text):
        return np.full((1, 1), len(text), np.float32)


class StubSound(Stub):
    modality, consumes, level, dim, sample_rate = "audio", "waveform", "utterance", 2, RATE

    def features(self, waveform):
        return np.array([[len(waveform) / RATE, np.abs(waveform).mean()]], np.float32)


class StubFrames(Stub):
    modality, consumes, level, dim = "vision", "frames", "sequence", 1

    def prepare(self, frame):
        return frame.mean()

    def features(self, frames):
        return np.array(frames, np.float32)[:, None]


STUBS = {
    "words": f"{__name__}:StubText",
    "sound": f"{__name__}:StubSound",
    "frames": f"{__name__}:StubFrames",
}


@pytest.fixture
def encoded(monkeypatch, tmp_path) -> Callable[[Manifest], FeatureStore]:
    monkeypatch.setattr(registry, "ENCODERS", Registry("encoder", STUBS))
    recipes = tuple(StreamRecipe(name, name, "own", {}, {}) for name in STUBS)
    settings = Settings(Profile("p", "random", Media(FPS, 64), recipes), "random")

    def run(manifest: Manifest, name: str = "store.h5") -> FeatureStore:
        report = extract(manifest, tmp_path / name, settings)
        assert not report.failures
        return FeatureStore(tmp_path / name)

    return run


def test_all_layouts_of_the_same_clips_give_the_same_store(films, folds, tmp_path, encoded):
    of_mmsa = encoded(read_dataset("mosi", mmsa(tmp_path / "mmsa", films)), "mmsa.h5")
    for full in (False, True):
        root = raw_mosi(tmp_path / f"raw{full}", films, full=full)
        store = encoded(read_dataset("mosi", root, folds), f"{full}.h5")
        assert store.dataset == of_mmsa.dataset == "mosi"
        columns = ["id", "video_id", "clip_id", "split", "label", "text"]
        assert store.utterances[columns].equals(of_mmsa.utterances[columns])
        for name, stream in store.streams.items():
            there = of_mmsa.streams[name]
            assert stream.lengths.tolist() == there.lengths.tolist()
            # Cut out of the full video they were compressed once, and not twice.
            assert stream.values == pytest.approx(there.values, abs=3 if full else 0)
    loudness = store.streams["sound"].values[:, 1], of_mmsa.streams["sound"].values[:, 1]
    assert loudness[0] == pytest.approx(loudness[1], rel=0.15)
    assert store.durations == pytest.approx([0.8, 0.6, 0.7, 1.1, 1.0])


def test_a_clip_is_cut_out_to_the_frame_and_the_sample(films):
    path = films / "full.mp4"
    whole = list(media.read_frames(path, FPS, 999))
    sound, rate = media.read_waveform(path) or (np.zeros(0, np.float32), 0)
    u = read_dataset_clip(path, 0.4, 1.4)
    encoders = {"sound": StubSound(Setup("s", None, torch.device("cpu"), "fp32"))}
    frames = StubFrames(Setup("f", None, torch.device("cpu"), "fp32"))
    decoded = decode(u, encoders | {"frames": frames}, Media(FPS, 999))
    assert decoded.duration == pytest.approx(1.0)
    assert decoded.items["frames"] == [picture.mean() for _, picture in whole[4:14]]
    cut = sound[round(0.4 * rate) : round(1.4 * rate)]
    assert np.array_equal(decoded.items["sound"], media.resample(cut, rate, RATE))


def read_dataset_clip(path: Path, start: float, end: float | str) -> Clip:
    table = path.parent / f"{start}.csv"
    table.write_text(f"path,text,label,split,start,end\n{path.name},,0,train,{start},{end}\n")
    (clip,) = read_dataset(str(table)).clips
    return clip


def test_a_manifest_may_cut_clips_out_of_longer_files(films):
    clip = read_dataset_clip(films / "full.mp4", 0.5, "")
    assert (clip.start, clip.end) == (0.5, None)
    encoders = {"s": StubSound(Setup("s", None, torch.device("cpu"), "fp32"))}
    assert decode(clip, encoders, Media()).duration == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize(("start", "end"), [("1", "1"), ("-1", "2"), ("a", "2"), ("0", "nan")])
def test_times_between_which_nothing_lies_are_refused(films, start, end):
    with pytest.raises(TableError, match=r"row 2: (start|end) "):
        read_dataset_clip(films / "full.mp4", start, end)


def test_a_clip_after_the_pictures_end_keeps_its_sound(tmp_path, caplog):
    path = tmp_path / "full.mp4"
    pictures = [np.full((48, 64, 3), 100, np.uint8)] * 20
    write_clip(path, pictures, 10, np.full(5 * RATE, 0.1, np.float32), RATE)
    encoders = {
        "sound": StubSound(Setup("s", None, torch.device("cpu"), "fp32")),
        "frames": StubFrames(Setup("f", None, torch.device("cpu"), "fp32")),
    }
    decoded = decode(read_dataset_clip(path, 3.0, 4.0), encoders, Media())
    assert list(decoded.items) == ["sound"]
    assert len(decoded.items["sound"]) == RATE
    assert "has no features of pictures: " in caplog.text
    assert "its pictures end at 2.00 s" in caplog.text


def test_a_clip_after_the_end_of_its_file_is_told(films):
    clip = read_dataset_clip(films / "full.mp4", 5.0, 6.0)
    encoders = {"s": StubSound(Setup("s", None, torch.device("cpu"), "fp32"))}
    with pytest.raises(MediaError, match=r"2\.\d\d s long, the clip is from 5 to 6 s"):
        decode(clip, encoders, Media())


def test_other_times_are_encoded_again_and_nothing_else(films, folds, tmp_path, encoded):
    root = raw_mosi(tmp_path / "raw", films, full=True)
    before = encoded(read_dataset("mosi", root, folds))
    table = root / "Labels" / "OpinionLevelSentiment.csv"
    table.write_text(table.read_text().replace("0.4,1.4,zhp", "0.4,1.2,zhp"))
    after = encoded(read_dataset("mosi", root, folds))
    assert after.ends.tolist() == [1.0, 1.6, 0.7, 2.0, 1.2]
    assert after.durations[-1] == pytest.approx(0.8)
    changed = [
        not np.array_equal(before.streams["sound"][i], after.streams["sound"][i]) for i in range(5)
    ]
    assert changed == [False] * 4 + [True]
    assert after.streams["words"].values.tolist() == before.streams["words"].values.tolist()


# ---- Raw CMU-MOSI.


def test_mosi_s_labels_may_come_from_its_csd(films, folds, tmp_path):
    root = raw_mosi(tmp_path / "raw", films, full=True)
    table = root / "Labels" / "OpinionLevelSentiment.csv"
    of_table = read_dataset("mosi", root, folds)
    table.unlink()
    with pytest.raises(TableError, match=r"raw: no labels; put OpinionLevelSentiment\.csv"):
        read_dataset("mosi", root, folds)
    rows = {
        video: ([s[1:3] for s in segments], [[s.label] for s in segments])
        for video, segments in MOSI.items()
    }
    write_csd(root / "CMU_MOSI_Opinion_Labels.csd", "Opinion Segment Labels", rows)
    for one, other in zip(read_dataset("mosi", root, folds).clips, of_table.clips, strict=True):
        assert one.utterance.id == other.utterance.id
        assert one.utterance.label == pytest.approx(other.utterance.label)
        assert (one.start, one.end) == pytest.approx((other.start, other.end))


def test_what_does_not_fit_together_in_mosi_is_told(films, folds, tmp_path):
    root = raw_mosi(tmp_path / "raw", films, full=True)
    with (root / "Labels" / "OpinionLevelSentiment.csv").open("a") as file:
        file.write("1.0,1.5,zhpQhgha_KU,2,1.0\n0.5,0.5,zhpQhgha_KU,3,1.0\n")
    with (root / "Raw/Transcript/Segmented/zhpQhgha_KU.annotprocessed").open("a") as file:
        file.write(
            "3_DELIM_REMOVED\n4_DELIM_NEVER RATED\nno delimiter\n../1_DELIM_X\n1_DELIM_YES\n"
        )
    manifest = read_dataset("mosi", root, folds)
    assert len(manifest.clips) == 5
    assert manifest.gaps == {
        "label without a transcript": ["zhpQhgha_KU$_$2"],
        "label of an empty interval (a clip that CMU removed)": ["zhpQhgha_KU$_$3"],
        "transcript without a label": ["zhpQhgha_KU$_$4"],
        "line of a transcript that is none": [
            "zhpQhgha_KU.annotprocessed:4",
            "zhpQhgha_KU.annotprocessed:5",
        ],
        "transcript listed twice": ["zhpQhgha_KU$_$1"],
        "video of a fold without a clip": ["gone"],
    }


def test_a_faulty_label_names_its_row(films, tmp_path):
    root = raw_mosi(tmp_path / "raw", films, full=True)
    with (root / "Labels" / "OpinionLevelSentiment.csv").open("a") as file:
        file.write("0,1,zhpQhgha_KU,2,good\n")
    with pytest.raises(TableError, match=r"Sentiment\.csv: row 6: label 'good' is no number"):
        read_dataset("mosi", root)


# ---- Raw CMU-MOSEI, and all that is odd in it.


def raw_mosei(root: Path, lines: Mapping[str, Sequence[str]], labels: Mapping[str, Any]) -> Path:
    """Transcript lines by video, and (start, end, sentiment) rows of the csd."""
    transcripts(root / "Raw" / "Transcript" / "Segmented" / "Combined", ".txt", lines)
    (root / "Raw" / "Videos" / "Full" / "Combined").mkdir(parents=True)
    rows = {
        video: ([row[:2] for row in rows], [[row[2], 0, 0, 3, 0, 0, 0] for row in rows])
        for video, rows in labels.items()
    }
    write_csd(root / "CMU_MOSEI_Labels.csd", "All Labels", rows)
    return root


def told(clip: Clip) -> tuple[str, float, float, float, str]:
    u = clip.utterance
    return u.id, round(u.start, 3), round(u.end, 3), round(u.label, 3), u.text


def test_mosei_is_joined_on_video_and_interval(tmp_path):
    root = raw_mosei(
        tmp_path,
        {
            "-wny0OAz3g8": ["-wny0OAz3g8___0___0.0___8.025___Deloitte _____ announced"],
            "100499": ["100499___0___-0.04___3.5___first", "100499___1___3.2___6.0___overlaps"],
            "x___y": ["x___y___3___1.5___2.5___a third", "x___y___0___0.25___1.5___ "],
        },
        {
            # Not in the order of the transcripts.
            "x___y": [(0.25, 1.5, -1.0), (1.5, 2.5, 3.0)],
            "100499": [(3.2, 6.0, 0.6666667), (-0.04, 3.5, -2.0)],
            "-wny0OAz3g8": [(0.0, 8.025, 0.0)],
        },
    )
    (tmp_path / "folds.json").write_text(
        json.dumps({"train": ["-wny0OAz3g8"], "valid": ["100499"], "test": ["x___y"]})
    )
    manifest = read_dataset("mosei", root, tmp_path / "folds.json")
    assert [told(clip) for clip in manifest.clips] == [
        ("-wny0OAz3g8$_$0", 0.0, 8.025, 0.0, "Deloitte _____ announced"),
        ("100499$_$0", 0.0, 3.5, -2.0, "first"),
        ("100499$_$1", 3.2, 6.0, 0.667, "overlaps"),
        ("x___y$_$3", 1.5, 2.5, 3.0, "a third"),
        ("x___y$_$0", 0.25, 1.5, -1.0, ""),
    ]
    assert [clip.utterance.split for clip in manifest.clips] == [
        "train",
        "valid",
        "valid",
        "test",
        "test",
    ]
    assert not manifest.gaps


def test_what_does_not_fit_together_in_mosei_is_told(tmp_path):
    root = raw_mosei(
        tmp_path,
        {
            "a": [
                "a___0___0.0___1.0___fine",
                "a___1___1.0___2.0___never rated",
                "a___2___3.0___3.0___removed",
                "which goes on in a line of its own",
                "a___4___soon___later___no times",
                "a___0___0.0___1.0___fine",
            ],
            "b": ["b___0___0.0___1.0___in no fold"],
        },
        {
            "a": [(0.0, 1.0, 1.0), (3.0, 3.0, 0.0), (4.0, 5.0, 1.0), (6.0, 6.0, 1.0)],
            "b": [(0.0, 1.0, 1.0)],
            "c": [(0.0, 1.0, 1.0)],
        },
    )
    (tmp_path / "folds.json").write_text('{"train": ["a"], "valid": [], "test": ["d"]}')
    manifest = read_dataset("mosei", root, tmp_path / "folds.json")
    assert [clip.utterance.id for clip in manifest.clips] == ["a$_$0"]
    assert manifest.gaps == {
        "transcript without a label": ["a$_$1"],
        "label of an empty interval (a clip that CMU removed)": ["a$_$2", "a[3]"],
        "line of a transcript that is none": ["a.txt:4", "a.txt:5"],
        "transcript listed twice": ["a$_$0"],
        "label without a transcript": ["a[2]", "c[0]"],
        "clip of a video in no fold": ["b$_$0"],
        "video of a fold without a clip": ["d"],
    }


def test_mosei_s_segmented_files_are_taken_where_a_full_video_is_missing(films, tmp_path):
    root = raw_mosei(
        tmp_path,
        {v: [f"{v}___0___0.5___1.5___words"] for v in ("full", "cut", "gone")},
        {v: [(0.5, 1.5, 1.0)] for v in ("full", "cut", "gone")},
    )
    videos = root / "Raw" / "Videos"
    shutil.copy(films / "full.mp4", videos / "Full" / "Combined" / "full.mp4")
    (videos / "Segmented" / "Combined").mkdir(parents=True)
    shutil.copy(films / "full.mp4", videos / "Segmented" / "Combined" / "cut_0.mp4")
    manifest = read_dataset("mosei", root)
    assert manifest.layout == (
        "raw CMU-MOSEI (1 cut out of full videos, 1 segmented files, 1 without a file)"
    )
    clips = {c.utterance.video_id: c for c in manifest.clips}
    assert clips["gone"].path == videos / "Full" / "Combined" / "gone.mp4"
    assert (clips["full"].path.name, clips["full"].start, clips["full"].end) == (
        "full.mp4",
        0.5,
        1.5,
    )
    assert (clips["cut"].path.name, clips["cut"].start, clips["cut"].end) == ("cut_0.mp4", 0, None)


def test_mosei_without_its_csd_says_where_labels_are(tmp_path):
    root = raw_mosei(tmp_path, {"a": ["a___0___0.0___1.0___x"]}, {})
    (root / "CMU_MOSEI_Labels.csd").write_bytes(b"not HDF5")
    with pytest.raises(ExchangeError, match=r"CMU_MOSEI_Labels\.csd: not a readable HDF5 file"):
        read_dataset("mosei", root)
    (root / "CMU_MOSEI_Labels.csd").unlink()
    with pytest.raises(TableError, match=r"MOSEI's are in CMU_MOSEI_Labels\.csd alone"):
        read_dataset("mosei", root)


def test_a_damaged_csd_names_the_video(tmp_path):
    root = raw_mosei(tmp_path, {"a": ["a___0___0.0___1.0___x"]}, {"a": [(0, 1, 1)]})
    with h5py.File(root / "CMU_MOSEI_Labels.csd", "a") as file:
        del file["All Labels/data/a/intervals"]
        file["All Labels/data/a/intervals"] = np.zeros((3, 2))
    with pytest.raises(
        ExchangeError, match=r"video 'a' has 1 rows and intervals of shape \(3, 2\)"
    ):
        read_dataset("mosei", root)


@pytest.mark.parametrize("inside", [True, False], ids=["Raw", "no Raw"])
def test_the_root_may_be_the_folder_raw_itself(films, folds, tmp_path, inside):
    root = raw_mosi(tmp_path / "raw", films, full=True)
    manifest = read_dataset("mosi", root / "Raw" if inside else root, folds)
    assert len(manifest.clips) == 5


def test_a_dataset_in_the_place_of_the_other_is_refused(films, tmp_path):
    root = raw_mosi(tmp_path / "raw", films, full=True)
    with pytest.raises(TableError, match=r"is MOSI \(cmu-mosi\), and --dataset mosei was"):
        read_dataset("mosei", root)


# ---- CH-SIMS is in MMSA's layout.


def test_ch_sims_is_read_as_it_is(tmp_path):
    (tmp_path / "label.csv").write_text(
        "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
        "video_0001,0001,我不想嫁给李茶,-1.0,-0.8,-0.6,-0.8,Negative,train\n"
        "aqgy4_0004,00043,对,0.2,0.0,0.4,0.2,Weakly Positive,valid\n"
    )
    clips = read_dataset("sims", tmp_path).clips
    assert [clip.utterance.id for clip in clips] == ["video_0001$_$0001", "aqgy4_0004$_$00043"]
    assert [clip.utterance.label for clip in clips] == [-1.0, 0.2]
    assert clips[0].path == tmp_path / "Raw" / "video_0001" / "0001.mp4"


# ---- Splits.


def test_folds_of_a_file_replace_the_table_s(films, folds, tmp_path):
    root = mmsa(tmp_path / "mmsa", films)
    assert not read_dataset("mosi", root).drawn
    folds.write_text(json.dumps({"train": ["zhpQhgha_KU"], "valid": ["03bSnISJMiM"], "test": []}))
    manifest = read_dataset("mosi", root, folds)
    assert [c.utterance.split for c in manifest.clips] == ["valid", "valid", "train"]
    assert manifest.splits == f"fold lists of {folds.name}"
    assert manifest.gaps == {"clip of a video in no fold": ["_dI--eQ6qVU$_$1", "_dI--eQ6qVU$_$2"]}


def test_the_sdk_s_fold_lists_are_read_and_not_run(films, tmp_path, monkeypatch):
    root = raw_mosi(tmp_path / "raw", films, full=True)
    package = tmp_path / "site" / "mmsdk"
    folder = package / "mmdatasdk" / "dataset" / "standard_datasets" / "CMU_MOSI"
    folder.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the SDK was run')")
    lists = [f"standard_{split}_fold = {videos!r}" for split, videos in FOLDS.items()]
    text = "raise SystemExit('the folds were run')\n" + "\n".join(lists)
    (folder / "cmu_mosi_std_folds.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    manifest = read_dataset("mosi", root)
    splits = {c.utterance.video_id: c.utterance.split for c in manifest.clips}
    assert splits == {"03bSnISJMiM": "train", "_dI--eQ6qVU": "valid", "zhpQhgha_KU": "test"}
    assert "the CMU SDK's fold lists" in manifest.splits
    assert not manifest.drawn


def test_without_folds_videos_are_drawn_and_that_is_said(films, tmp_path):
    root = raw_mosi(tmp_path / "raw", films, full=True)
    manifest = read_dataset("mosi", root)
    assert manifest.drawn
    assert manifest.splits == "drawn by video with seed 1111"
    by_video: dict[str, set[str]] = {}
    for clip in manifest.clips:
        by_video.setdefault(clip.utterance.video_id, set()).add(clip.utterance.split)
    assert sorted(split for splits in by_video.values() for split in splits) == [
        "test",
        "train",
        "valid",
    ]
    assert read_dataset("mosi", root) == manifest


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "an object of three lists of video ids, train, valid, test"),
        ('{"train": [], "dev": [], "test": []}', "an object of three lists"),
        ('{"train": ["a"], "valid": ["a"], "test": []}', "video 'a' is in train and in valid"),
        ('{"train": ["a"], "valid": [], "test": []}', "holds none of the 3 videos"),
    ],
)
def test_a_faulty_fold_file_is_refused(films, folds, tmp_path, content, words):
    folds.write_text(content)
    with pytest.raises(TableError, match=words) as caught:
        read_dataset("mosi", raw_mosi(tmp_path / "raw", films, full=True), folds)
    assert str(folds) in str(caught.value)


# ---- What is there and what is missing.


def test_a_survey_counts_what_was_found_next_to_what_was_published(films, folds, tmp_path):
    root = raw_mosi(tmp_path / "raw", films, full=False)
    segmented = root / "Raw" / "Video" / "Segmented"
    (segmented / "03bSnISJMiM_2.mp4").rename(segmented / "03bSnISJMiM_9.mp4")
    found = survey(read_dataset(str(root), None, folds))
    assert found.found == {
        "clips": [2, 2, 1],
        "videos": [1, 1, 1],
        "no label": [0, 0, 0],
        "label 0": [0, 1, 0],
        "blank text": [1, 0, 0],
    }
    assert found.published[("clips", "MMSA")] == (1284, 229, 686)
    missing = segmented / "03bSnISJMiM_2.mp4"
    assert found.gaps == {
        "video of a fold without a clip": ["gone"],
        "clip whose file is missing": [f"03bSnISJMiM$_$2 ({missing})"],
        "media file that no clip uses": [str(segmented / "03bSnISJMiM_9.mp4")],
    }


@pytest.mark.parametrize(
    ("name", "counted"), [("mosei", 16326), ("CMU_MOSI", 1284), ("SIMS", 1368), ("mine", None)]
)
def test_published_counts_are_those_of_the_dataset(tmp_path, name, counted):
    (tmp_path / "label.csv").write_text("video_id,clip_id,text,label,mode\nv,1,x,,train\n")
    published = survey(read_dataset(name, tmp_path)).published
    firsts = [counts[0] for (what, _), counts in published.items() if what == "clips"]
    assert firsts[:1] == ([] if counted is None else [counted])


def test_a_store_keeps_where_its_clips_were_cut(films, folds, tmp_path, encoded):
    whole = encoded(read_dataset("mosi", mmsa(tmp_path / "mmsa", films)), "whole.h5")
    assert set(whole.starts) == {0.0}
    assert set(whole.ends) == {math.inf}
    with h5py.File(whole.path) as file:
        assert "start" not in file["utterances"]
    cut = encoded(read_dataset("mosi", raw_mosi(tmp_path / "raw", films, full=True), folds), "c.h5")
    assert cut.starts.tolist() == [0.2, 1.0, 0.0, 0.9, 0.4]
    assert cut.utterance(1).end == 1.6
