"""The parts of an interrupted run: lost, damaged or foreign ones never become silent gaps.

The encoder is a stand-in that reads texts alone, so that a run takes milliseconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn

from clipmsa.cache import FeatureStore, Utterance
from clipmsa.cache.errors import ClipmsaError, StoreError
from clipmsa.cache.plugins import Registry
from clipmsa.extract.datasets.read import Clip, Manifest
from clipmsa.extract.encoders import registry
from clipmsa.extract.encoders.encoder import Encoder
from clipmsa.extract.engine import pipeline
from clipmsa.extract.engine.merge import merge_stores
from clipmsa.extract.engine.pipeline import extract
from clipmsa.extract.engine.plan import Settings
from clipmsa.extract.engine.worker import Worker
from clipmsa.extract.profiles.profile import Media, Profile, StreamRecipe


class Words(Encoder):
    """The length of a text; notes what it encodes, and fails on "boom" once told to."""

    modality, consumes, level, dim = "text", "text", "utterance", 3
    seen: ClassVar[list[str]] = []

    def __init__(self, setup):
        super().__init__(setup, nn.Linear(1, 1))

    def _encode(self, items):
        if "boom" in items:
            raise RuntimeError("no such word")
        Words.seen.extend(items)
        return [torch.full((1, 3), float(len(text))) for text in items]


@pytest.fixture(autouse=True)
def words(monkeypatch):
    here = Registry("encoder", {"words": f"{__name__}:Words"})
    monkeypatch.setattr(registry, "ENCODERS", here)
    monkeypatch.setattr(pipeline, "_PART_CLIPS", 1)  # each clip is a part
    Words.seen.clear()


def table(*texts: str) -> Manifest:
    texts = texts or tuple("a" * (i + 1) for i in range(6))
    clips = [
        Clip(Utterance("v", str(i), "train", 1.0, text), Path("nowhere"))
        for i, text in enumerate(texts)
    ]
    return Manifest("d", clips)


def settings() -> Settings:
    recipe = StreamRecipe("words", "words", "own", {}, {})
    return Settings(Profile("p", "random", Media(5.0, 8), (recipe,)), "random", batch_clips=1)


def parts(out: Path) -> list[Path]:
    return sorted((out.parent / f".{out.name}.parts").glob("*.h5"))


def rows(out: Path) -> list[Any]:
    """Each utterance's features; [] where it has none."""
    store = FeatureStore(out)
    return [store.streams["words"][row][:, 0].tolist() for row in range(len(store))]


def at(clips: int, act: Callable[[], object]) -> Callable[[int, int, int], None]:
    """Progress that acts when so many clips are done."""

    def on_progress(done: int, total: int, failed: int) -> None:
        if done == clips:
            act()

    return on_progress


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupted_run(out: Path, clips: int = 3) -> None:
    """Leave the parts of a run that was stopped after so many clips."""
    with pytest.raises(KeyboardInterrupt):
        extract(table(), out, settings(), on_progress=at(clips, interrupt))
    assert len(parts(out)) == clips
    Words.seen.clear()


WHOLE = [[float(i + 1)] for i in range(6)]


# --- lost -----------------------------------------------------------------------------------------


def remove_a_part(out: Path) -> None:
    parts(out)[0].unlink()


def empty_a_part(out: Path) -> None:
    parts(out)[0].write_bytes(b"")


def swap_a_part(out: Path) -> None:
    """Another part's bytes, which are a good store, under this one's name."""
    first, second = parts(out)[:2]
    first.write_bytes(second.read_bytes())


@pytest.mark.parametrize("lose", [remove_a_part, empty_a_part, swap_a_part])
def test_a_part_that_is_lost_while_the_run_goes_on_is_an_error_and_no_gap(tmp_path, lose):
    out = tmp_path / "s.h5"
    with pytest.raises(StoreError, match=r"features of 1 clips \('v\$_\$0', \.\.\.\) were lost"):
        extract(table(), out, settings(), on_progress=at(4, lambda: lose(out)))
    assert not out.exists()
    Words.seen.clear()
    assert extract(table(), out, settings()).encoded == 1
    assert Words.seen == ["a"]
    assert rows(out) == WHOLE
    assert list(tmp_path.iterdir()) == [out]


def test_a_part_of_an_earlier_run_that_is_lost_is_missed_too(tmp_path):
    out = tmp_path / "s.h5"
    interrupted_run(out)
    with pytest.raises(StoreError, match="were lost meanwhile"):
        extract(table(), out, settings(), on_progress=at(5, lambda: remove_a_part(out)))


def test_the_failures_of_a_part_that_is_lost_are_missed_too(tmp_path):
    out = tmp_path / "s.h5"
    clips = table("a", "boom", "aaa")
    first = r"features of 1 clips \('v\$_\$1'"
    with pytest.raises(StoreError, match=first):
        extract(clips, out, settings(), on_progress=at(3, lambda: parts(out)[1].unlink()))
    assert [failure.id for failure in extract(clips, out, settings()).failures] == ["v$_$1"]


def test_a_clip_that_was_encoded_when_tried_again_and_then_lost_is_no_failure(tmp_path):
    out = tmp_path / "s.h5"
    extract(table("a", "boom"), out, settings())
    with pytest.raises(StoreError, match=r"'v\$_\$1'"):
        extract(
            table("a", "good"),
            out,
            settings(),
            retry_failed=True,
            on_progress=at(2, lambda: time.sleep(0)),
            engine=losing(out),
        )


def losing(out: Path) -> Any:
    """An engine that ends by losing all parts."""

    class Losing(Worker):
        def close(self) -> None:
            for part in parts(out):
                part.unlink()

    return Losing


def test_parts_do_not_overwrite_one_another_though_the_clock_stands_still(tmp_path, monkeypatch):
    monkeypatch.setattr("clipmsa.extract.engine.pipeline.time.time_ns", lambda: 7)
    extract(table(), tmp_path / "s.h5", settings())
    assert rows(tmp_path / "s.h5") == WHOLE


# --- damaged, or of something else ----------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:],
        lambda whole: b"not HDF5",
    ],
    ids=["empty", "half", "one bit", "junk"],
)
def test_a_damaged_part_is_told_of_and_its_clips_are_encoded_again(tmp_path, damage):
    out = tmp_path / "s.h5"
    interrupted_run(out)
    first = parts(out)[0]
    first.write_bytes(damage(first.read_bytes()))
    notes: list[str] = []
    report = extract(table(), out, settings(), on_note=notes.append)
    assert notes == [f"{first}: is not as it was written; its clips are encoded again"]
    assert report.encoded == 4
    assert rows(out) == WHOLE


def test_a_text_that_is_corrected_before_the_next_run_is_encoded(tmp_path):
    """What an interrupted run had made of the old text does not stand in the new one's way."""
    out = tmp_path / "s.h5"
    interrupted_run(out)
    corrected = table("corrected", *("a" * (i + 1) for i in range(1, 6)))
    assert extract(corrected, out, settings()).encoded == 4
    assert rows(out) == [[9.0], *WHOLE[1:]]


def test_features_that_were_damaged_in_the_store_are_not_copied_into_another(tmp_path):
    out, merged = tmp_path / "s.h5", tmp_path / "merged.h5"
    extract(table().first(3), out, settings())
    with h5py.File(out, "r+") as file:
        file["streams/words/values"][1] = 7.0
    damaged = out.read_bytes()
    for copy_it in (
        lambda: extract(table(), out, settings()),
        lambda: merge_stores([out], merged),
    ):
        with pytest.raises(StoreError, match=r"words/values are not those that were written"):
            copy_it()
    assert out.read_bytes() == damaged
    assert not merged.exists()
    extract(table(), out, settings(), overwrite=True)  # replaces what is damaged
    assert rows(out) == WHOLE


# --- going on -------------------------------------------------------------------------------------


def test_progress_begins_with_what_was_there_before(tmp_path):
    out = tmp_path / "s.h5"
    told: list[tuple[int, int]] = []
    interrupted_run(out)
    extract(table(), out, settings(), on_progress=lambda d, t, f: told.append((d, t)))
    assert told == [(3, 6), (4, 6), (5, 6), (6, 6)]


def test_what_is_encoded_when_a_run_is_interrupted_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "_PART_CLIPS", 100)
    out = tmp_path / "s.h5"
    with pytest.raises(KeyboardInterrupt):
        extract(table(), out, settings(), on_progress=at(4, interrupt))
    Words.seen.clear()
    assert extract(table(), out, settings()).encoded == 2
    assert len(Words.seen) == 2


# --- shards ---------------------------------------------------------------------------------------


def shards(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{i}.h5" for i in range(count)]
    for i, path in enumerate(paths):
        extract(table().shard(i, count), path, settings())
    return paths


def test_a_merge_without_all_shards_says_which_are_missing(tmp_path):
    out = tmp_path / "m.h5"
    stores = shards(tmp_path, 4)
    with pytest.raises(StoreError, match=r"2 of the 4 shards are missing \(1, 3\)"):
        merge_stores([stores[0], stores[2]], out)
    assert not out.exists()
    assert merge_stores([stores[0], stores[2]], out, partial=True) == 2
    assert FeatureStore(out).shard == "0,2/4"
    assert merge_stores([out, stores[1], stores[3]], tmp_path / "all.h5") == 6
    assert FeatureStore(tmp_path / "all.h5").shard == ""


def test_shards_of_two_ways_of_cutting_are_not_merged(tmp_path):
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    extract(table().shard(0, 2), one, settings())
    extract(table().shard(2, 3), two, settings())
    with pytest.raises(StoreError, match=r"one\.h5 is a shard of 2, .*two\.h5 of 3"):
        merge_stores([one, two], tmp_path / "m.h5")


def test_a_shard_that_grows_into_the_whole_is_no_shard(tmp_path):
    out = tmp_path / "s.h5"
    extract(table().shard(0, 2), out, settings())
    assert FeatureStore(out).shard == "0/2"
    extract(table(), out, settings())
    assert FeatureStore(out).shard == ""


# --- anything at all ------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["x.h5", ".x.h5.1.tmp", "part-1.new", ".lock", "00000000000000000001-abc.h5", "notes.txt"]
)
LEFT = st.one_of(st.just("folder"), st.just("link"), st.just("pipe"), st.binary(max_size=200))
CHANGE = st.tuples(
    st.integers(0, 2), st.integers(0, 20_000), st.binary(max_size=8), st.integers(0, 1)
)


@pytest.mark.slow
@given(left=st.lists(st.tuples(NAMES, LEFT), max_size=4), changes=st.lists(CHANGE, max_size=3))
@examples(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_lies_in_the_working_folder_a_run_ends_with_the_store_or_a_clear_error(
    tmp_path_factory, left, changes
):
    folder = tmp_path_factory.mktemp("anything")
    out, work, victim = folder / "s.h5", folder / ".s.h5.parts", folder / "victim"
    interrupted_run(out)
    victim.write_bytes(b"precious")
    for which, where, new, cut in changes:
        path = parts(out)[which]
        old = path.read_bytes()
        where %= max(len(old), 1)
        path.write_bytes(old[:where] + new + (b"" if cut else old[where + len(new) :]))
    for name, what in left:
        put(work / name, what, victim)
    try:
        extract(table(), out, settings())
    except (ClipmsaError, OSError):
        assert not out.exists()
    else:
        assert rows(out) == WHOLE
    assert victim.read_bytes() == b"precious"


def put(path: Path, what: str | bytes, victim: Path) -> None:
    """Something under a name, if that is free."""
    if os.path.lexists(path):
        return
    if isinstance(what, bytes):
        path.write_bytes(what)
    elif what == "folder":
        path.mkdir()
    elif what == "link":
        path.symlink_to(victim)
    else:
        os.mkfifo(path)


def test_rows_read_the_features_there_are(tmp_path):
    """The measure of the tests above: one number a text, none for a blank one."""
    extract(table("a", " ", "aaa"), tmp_path / "s.h5", settings())
    assert rows(tmp_path / "s.h5") == [[1.0], [], [3.0]]
    assert np.allclose(FeatureStore(tmp_path / "s.h5").streams["words"].values[:, 2], [1, 3])
