"""Dataset layouts from outside clipmsa: found where the user says, or installed, and checked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from clipmsa.cache import plugins
from clipmsa.cache.errors import PluginError, TableError
from clipmsa.extract.datasets.read import read_dataset
from clipmsa.extract.datasets.survey import survey

MODULE = "layouts_of_test"
TALKS = """
import json
from clipmsa.extract.datasets import Clip, Manifest, Published, Utterance


class Talks:
    name, looks_like = "talks", "talks.json, and a video for each key of it"
    published = {"talks": [Published("clips", "our paper", (2, 1, 1))]}

    def recognises(self, root):
        return (root / "talks.json").is_file()

    def read(self, root):
        rows = json.loads((root / "talks.json").read_text())
        clips = [
            Clip(Utterance(video, "0", row["split"], row["score"], row["said"]), root / video)
            for video, row in rows.items()
        ]
        return Manifest("talks", clips)
"""
ROWS = ", ".join(
    f'"{video}": {{"split": "{split}", "score": 1.5, "said": "well"}}'
    for video, split in (("a.mp4", "train"), ("b.mp4", "valid"), ("c.mp4", "test"))
)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path) -> Iterator[Path]:
    """The current folder: a layout, and a folder in it, `spring`."""
    monkeypatch.setattr(plugins, "_trusted", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    write(TALKS)
    Path("spring").mkdir()
    Path("spring/talks.json").write_text(f"{{{ROWS}}}")
    yield tmp_path
    sys.modules.pop(MODULE, None)


def write(code: str) -> None:
    Path(f"{MODULE}.py").write_text(code)
    sys.modules.pop(MODULE, None)


def talks(name: str = "spring", **options):
    return read_dataset(name, layout=f"{MODULE}:Talks", **options)


def test_a_folder_is_read_by_a_class_that_the_user_names():
    manifest = talks()
    assert (manifest.dataset, manifest.splits) == ("spring", "layout talks")
    assert [clip.utterance.id for clip in manifest.clips] == [f"{v}.mp4$_$0" for v in "abc"]
    assert [clip.utterance.split for clip in manifest.clips] == ["train", "valid", "test"]


def test_its_published_counts_stand_beside_what_is_found():
    assert survey(talks()).published == {("clips", "our paper"): (2, 1, 1)}


def test_a_layout_need_not_say_what_is_published():
    write(TALKS.replace("    published", "    pass  # "))
    assert survey(talks()).published == {}


def test_a_layout_may_be_of_a_file():
    write(TALKS.replace('(root / "talks.json").read_text()', "root.read_text()"))
    assert talks("spring/talks.json").dataset == "talks"


def test_splits_that_a_layout_leaves_open_are_those_of_fold_lists_or_drawn(tmp_path):
    write(TALKS.replace('row["split"]', '""'))
    assert talks().drawn
    Path("folds.json").write_text('{"train": ["a.mp4"], "valid": ["b.mp4"], "test": ["c.mp4"]}')
    manifest = talks(fold_file=Path("folds.json"))
    assert not manifest.drawn
    assert [clip.utterance.split for clip in manifest.clips] == ["train", "valid", "test"]


def test_a_layout_that_is_installed_is_recognised(monkeypatch):
    points = [
        EntryPoint("broken", "no_such_module_of_ours:Layout", "clipmsa.datasets"),
        EntryPoint("talks", f"{MODULE}:Talks", "clipmsa.datasets"),
    ]
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: EntryPoints(points).select(group=group)
    )
    sys.path.insert(0, str(Path.cwd()))
    assert len(read_dataset("spring").clips) == 3
    assert len(read_dataset("spring", layout="talks").clips) == 3


def test_a_folder_in_no_layout_is_told_what_all_of_them_look_like():
    with pytest.raises(TableError, match=r"spring: .*mmsa: label\.csv.*cmu-mosi: .*cmu-mosei: "):
        read_dataset("spring")
    with pytest.raises(PluginError, match="there are mmsa, cmu-mosi, cmu-mosei"):
        read_dataset("spring", layout="nothing")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name, looks_like", "name, other", "has no looks_like"),
        ('row["said"]', 'row["text"]', rf"fails: KeyError: 'text' .*{MODULE}\.py, line"),
        ("return Manifest", "return list", "fails: TypeError"),
        ('return Manifest("talks", clips)', "return clips", "gives a list, must give a"),
    ],
)
def test_a_layout_that_fails_is_told_in_a_line(old, new, words):
    write(TALKS.replace(old, new))
    with pytest.raises(PluginError, match=words):
        talks()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rows.items()", "()", "no clips in it"),
        ("Utterance(video,", 'Utterance("v",', r"'v\$_\$0' is there twice"),
        ('row["split"]', '"dev"', "split of .* is 'dev', must be one of train, valid, test"),
        ('row["split"]', 'row["split"].strip("valid")', "split of .* is ''"),
    ],
)
def test_clips_that_no_store_could_hold_are_refused(old, new, words):
    write(TALKS.replace(old, new))
    with pytest.raises(TableError, match=words):
        talks()


def test_a_table_whose_name_begins_like_a_dataset_s_is_compared_with_nothing(tmp_path):
    Path("mosimages.csv").write_text("path,text,label,split\na.mp4,well,1,train\n")
    assert survey(read_dataset("mosimages.csv")).published == {}
    Path("mosimages").mkdir()
    Path("mosimages/label.csv").write_text("video_id,clip_id,text,label,mode\na,0,well,1,train\n")
    assert survey(read_dataset("mosimages")).published == {}
