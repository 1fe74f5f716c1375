"""`clipmsa verify`: each thing that can be wrong with features or clips is found and named."""

from __future__ import annotations

import hashlib
import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from clipmsa.cache import StreamColumn, StreamSpec, Utterance, write_store
from clipmsa.cache.provenance import fingerprint
from clipmsa.cache.spec import SPLITS, Failure
from clipmsa.cache.verify import verify_apart, verify_store
from clipmsa.cli.main import main
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.datasets.read import Manifest, read_dataset
from clipmsa.extract.datasets.survey import verify_dataset
from clipmsa.extract.transcripts.mismatch import Pace, odd_paces

CONFIG = {"fps": 5}
FRAMES = StreamSpec(
    "frames", "vision", "clip", "sequence", 4, fingerprint=fingerprint(CONFIG), config=CONFIG
)
WORDS = StreamSpec("words", "text", "own", "utterance", 3)


def write(path: Path, utterances: list[Utterance] | None = None) -> Path:
    """Three utterances; the second has no words, the third no frames."""
    listed = utterances or [
        Utterance("a", "1", "train", 2.4, "yes", 3.2),
        Utterance("b", "1", "valid", -3.0, "", 1.7),
        Utterance("c", "0", "test", math.nan, "no"),
    ]
    rng = np.random.default_rng(0)
    columns = [
        StreamColumn(spec, np.array(lengths), [rng.normal(1, 0.1, (n, spec.dim)) for n in lengths])
        for spec, lengths in ((FRAMES, (2, 3, 0)), (WORDS, (1, 0, 1)))
    ]
    failures = [Failure("d$_$0", "media", "no such file")]
    write_store(
        path, dataset="d", profile="p", utterances=listed, streams=columns, failures=failures
    )
    return path


def test_a_sound_store_has_no_fault(tmp_path):
    assert verify_store(write(tmp_path / "s.h5")) == ([], [])


def test_an_utterance_without_any_rows_is_a_fault_where_it_could_have_had_them(tmp_path):
    """Of several modalities one is there; of a single one it may be missing."""
    path = tmp_path / "s.h5"
    utterances = [Utterance("a", str(i), split, 1.0, "") for i, split in enumerate(SPLITS)]
    for specs, part in (((FRAMES, WORDS), "faults"), ((WORDS,), "remarks")):
        columns = [
            StreamColumn(spec, np.array([1, 0, 1]), [np.ones((1, spec.dim))] * 2) for spec in specs
        ]
        write_store(path, dataset="d", profile="p", utterances=utterances, streams=columns)
        told = [line for line in getattr(verify_store(path), part) if "no row in any" in line]
        assert len(told) == 1
        assert told[0].startswith("1 utterances have no row in any stream ('a$_$1')")


def test_the_checksum_is_that_of_the_bytes_in_the_file(tmp_path):
    with h5py.File(write(tmp_path / "s.h5")) as file:
        for stream in file["streams"].values():
            digest = hashlib.sha256(stream["values"][:].tobytes()).hexdigest()
            assert stream.attrs["values_sha256"].decode() == digest


def test_a_store_without_checksums_is_verified_all_the_same(tmp_path):
    path = write(tmp_path / "s.h5")
    with h5py.File(path, "a") as file:
        for stream in file["streams"].values():
            del stream.attrs["values_sha256"]
        file["streams/frames/values"][1, 2] = np.inf
    assert len(verify_store(path).faults) == 1


def put(key: str, place: object, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file[key].__setitem__(place, value)


FAULTS = {
    "NaN": (
        put("streams/frames/values", (3, 0), np.nan),
        ["/streams/frames/values: NaN or infinity in 1 utterances ('b$_$1')"],
    ),
    "a flipped bit": (
        put("streams/words/values", (0, 0), 1.25),
        ["/streams/words/values: SHA-256"],
    ),
    "zeros": (
        put("streams/words/values", 1, 0),
        ["/streams/words/values: nothing but zeros for 1 utterances ('c$_$0')"],
    ),
    "a label out of range": (
        put("utterances/label", 1, 3.5),
        ["/utterances/label: label 3.5 of 'b$_$1' is outside [-3, 3]"],
    ),
    "an id of another clip": (
        put("utterances/id", 1, b"b$_$2"),
        ["/utterances/id 'b$_$2' must be 'b$_$1'"],
    ),
    "no time": (put("utterances/duration", 0, 0), ["/utterances/duration of 'a$_$1' is 0"]),
    "failed and there": (
        put("failures/id", 0, b"c$_$0"),
        ["/failures/id 'c$_$0' is in /utterances too"],
    ),
    "another configuration": (
        lambda file: file["streams/frames"].attrs.__setitem__("config", '{"fps": 4}'),
        ["/streams/frames: fingerprint", "is not that of its config"],
    ),
    "an unknown split": (put("utterances/split", 0, b"dev"), ["/utterances/split of 'a$_$1'"]),
    "offsets that fall": (
        put("streams/frames/offsets", 1, 9),
        ["/streams/frames/offsets must rise"],
    ),
}


@pytest.mark.parametrize(("change", "words"), FAULTS.values(), ids=FAULTS)
def test_what_is_off_is_named(tmp_path, capsys, change, words):
    path = write(tmp_path / "s.h5")
    with h5py.File(path, "a") as file:
        change(file)
    assert main(["verify", str(path)]) == 1
    shown = capsys.readouterr().out
    for word in words:
        assert word in shown
    assert str(path) not in shown


def test_all_faults_are_listed_not_the_first(tmp_path):
    path = write(tmp_path / "s.h5")
    with h5py.File(path, "a") as file:
        for name in ("NaN", "a flipped bit", "a label out of range", "no time"):
            FAULTS[name][0](file)
    assert len(verify_store(path).faults) == 5  # a NaN changes its stream's checksum too


def test_a_damaged_chunk_is_named(tmp_path):
    path = write(tmp_path / "s.h5")
    with h5py.File(path, "a") as file:
        values = file["streams/frames/values"][:]
        del file["streams/frames/values"]
        made = file["streams/frames"].create_dataset("values", data=values, compression="gzip")
        made.id.write_direct_chunk((0, 0), b"no such block")
    assert any("/streams/frames" in fault for fault in verify_store(path).faults)


def test_what_is_allowed_and_odd_is_a_remark(tmp_path, capsys):
    utterances = [
        Utterance("a", "1", "train", 1.0, "x", 1.0),
        Utterance("a", "2", "test", 1.0, "x", 1.0),
        Utterance("a", "3", "test", 1.0, "x", 1.0),
    ]
    path = write(tmp_path / "s.h5", utterances)
    assert main(["verify", str(path)]) == 0
    said = capsys.readouterr().err
    assert "no utterance of split valid" in said
    assert "1 videos have clips in several splits ('a')" in said
    assert "no rule is broken; 2 remarks, above" in said
    assert "all as it must be" not in said


@pytest.mark.slow
def test_a_file_that_hangs_hdf5_is_a_fault_in_words(tmp_path, plant):
    """Zeros in the heap where texts of variable length lie: HDF5 2.0 walks it without an end."""
    path = tmp_path / "s.h5"
    plant(path, (4, 2, 2))
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL") + 16
    content[start : start + 16] = bytes(16)
    path.write_bytes(content)
    checked = verify_apart(path, patience=1.0)
    assert len(checked.verdict.faults) == 1
    assert "HDF5 does not come to an end of reading it" in checked.verdict.faults[0]


@pytest.mark.slow
def test_a_store_is_checked_apart_as_it_is_here(tmp_path):
    path = write(tmp_path / "s.h5")
    rows = []
    checked = verify_apart(path, lambda done, total: rows.append((done, total)))
    assert checked.verdict == verify_store(path)
    assert [clip[1] for clip in checked.clips] == ["yes", "", "no"]
    assert rows[-1] == (7, 7)


def test_our_own_stores_have_nothing_in_the_heap_that_hangs_hdf5(tmp_path):
    assert b"GCOL" not in write(tmp_path / "s.h5").read_bytes()


def test_memory_holds_a_block_however_large_the_store_is(tmp_path):
    rows = np.ones((1024, 4096), np.float16)
    column = StreamColumn(replace(FRAMES, dim=4096), np.array([1024] * 12), [rows] * 12)
    utterances = [Utterance("a", str(i), "train", 0.0, "x", 1.0) for i in range(12)]
    path = tmp_path / "large.h5"
    write_store(path, dataset="d", profile="p", utterances=utterances, streams=[column])
    tracemalloc.start()
    try:
        assert not verify_store(path).faults
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 90e6
    assert peak < 40e6


# ---- Datasets, before they are encoded.


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    picture = np.full((32, 48, 3), 90, np.uint8)
    write_clip(root / "good.mp4", [picture] * 10, 10, np.zeros(8000, np.float32), 8000)
    write_clip(root / "silent.mp4", [picture] * 10, 10, None, 8000)
    (root / "broken.mp4").write_bytes(b"not a clip")
    return root / "clips.csv"


def listed(table: Path, *rows: str) -> Manifest:
    table.write_text("\n".join(["path,text,label,split,clip_id,start,end", *rows]))
    return read_dataset(str(table))


def test_every_file_of_a_dataset_is_looked_into(table):
    manifest = listed(
        table,
        "good.mp4,fine,1,train,0,,",
        "good.mp4,a part,3,train,1,0.25,0.75",
        "good.mp4,after the end,4,train,2,5,6",
        "good.mp4,ends late,1,train,3,0.5,9",
        "silent.mp4,no sound,,valid,0,,",
        "broken.mp4,bytes,1,test,0,,",
        "absent.mp4,gone,1,test,0,,",
    )
    verdict, seconds = verify_dataset(manifest, workers=2)
    assert [fault.split(": ")[0] for fault in verdict.faults] == [
        "'good$_$2'",
        "label 4 of 'good$_$2' is outside [-3, 3]",
        "'broken$_$0'",
        "'absent$_$0'",
    ]
    assert "no such file" in verdict.faults[-1]
    assert "starts at 5 s" in verdict.faults[0]
    assert [remark.split(": ")[0] for remark in verdict.remarks] == ["'good$_$3'", "'silent$_$0'"]
    assert seconds["good$_$1"] == pytest.approx(0.5)
    assert seconds["good$_$0"] == pytest.approx(1.0, abs=0.1)


def test_the_verb_fails_when_a_file_is_off(table, capsys):
    listed(table, "good.mp4,fine,1,train,0,,")
    assert main(["verify", str(table)]) == 0
    listed(table, "good.mp4,fine,1,train,0,,", "broken.mp4,bytes,1,test,0,,")
    assert main(["verify", str(table)]) == 1
    assert "'broken$_$0'" in capsys.readouterr().out


# ---- Text against length.


def test_texts_that_do_not_fit_their_clips_are_found():
    rng = np.random.default_rng(0)
    usual = [
        (f"v$_${i}", " ".join(["word"] * n), n / rng.normal(2.8, 0.3))
        for i, n in enumerate(rng.integers(4, 30, 200))
    ]
    fast = ("fast", " ".join(["word"] * 40), 4.0)
    slow = ("slow", "only three words", 30.0)
    quiet = [("blank", "", 20.0), ("short", "Oh no", 20.0), ("unknown", "a b c d", math.nan)]
    assert [pace.id for pace in odd_paces([*usual, fast, slow, *quiet])] == ["slow", "fast"]


def test_of_few_clips_only_what_nobody_speaks_is_found():
    clips = [("a", "three little words", 1.0), ("b", "one two three four", 9.0)]
    assert odd_paces(clips) == []
    assert odd_paces([*clips, ("c", "x " * 80, 10.0)]) == [
        Pace("c", 80, 10.0, "8.0 words a second, usual are 3.0")
    ]


def test_chinese_is_counted_by_character():
    assert odd_paces([("a", "我不想嫁给李茶", 2.0)]) == []
    assert [pace.words for pace in odd_paces([("a", "我不想嫁给李茶", 0.5)])] == [7]


def test_the_verb_lists_texts_that_do_not_fit_and_fails_nothing(tmp_path, capsys):
    utterances = [
        Utterance("a", str(i), "train", 0.0, "x " * n, 1.0) for i, n in enumerate((9, 2, 3))
    ]
    path = write(tmp_path / "s.h5", utterances)
    assert main(["verify", str(path), "--check-speech"]) == 0
    shown = capsys.readouterr().out
    assert "a$_$0" in shown
    assert "a$_$2" not in shown
