"""The feature store: what FORMAT.md promises, whoever wrote the file, and that nothing is half."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmsa.cache import FeatureStore, StreamColumn, StreamSpec, Utterance, write_store
from clipmsa.cache.errors import StoreError
from clipmsa.cache.files import publish, publish_text
from clipmsa.cache.provenance import canonical_json, difference, fingerprint, sha256_of_files
from clipmsa.cache.spec import Failure

ROOT = Path(__file__).parents[2]
FORMAT = ROOT / "cache" / "FORMAT.md"

UTTERANCES = [
    Utterance("03bSnISJMiM", "1", "train", 2.4, "A wonderful film 🎬", 3.2),
    Utterance("03bSnISJMiM", "2", "valid", -0.6, "", 1.7),
    Utterance("-wny0OAz3g8", "0", "test", float("nan"), "I left early"),
]
WORDS = StreamSpec("words", "text", "own", "utterance", 3, config={"model": "tiny"})
FRAMES = StreamSpec(
    "frames", "vision", "clip", "sequence", 4, weights="random (seed 0)", states_of="picture"
)


def rows_of(spec: StreamSpec, lengths: Sequence[int], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """(T, D) for every length, of numbers that float16 holds."""
    generator = np.random.default_rng(seed)
    return [
        (generator.integers(-2000, 2000, (length, spec.dim)) / 8).astype(np.float32)
        for length in lengths
    ]


def column(spec: StreamSpec, lengths: Sequence[int], seed: int = 0) -> StreamColumn:
    return StreamColumn(spec, np.array(lengths, np.int64), rows_of(spec, lengths, seed))


def write(
    path: Path,
    utterances: Sequence[Utterance] = UTTERANCES,
    streams: Sequence[StreamColumn] | None = None,
    failures: Sequence[Failure] = (),
) -> Path:
    """A store by our own writer."""
    if streams is None:
        streams = [column(WORDS, (1, 0, 1)), column(FRAMES, (2, 3, 0))]
    write_store(
        path,
        dataset="mine",
        profile="tiny",
        utterances=utterances,
        streams=streams,
        failures=failures,
    )
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write(tmp_path / "store.h5")


# ---- What is written is what is read.

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ids = texts | st.sampled_from(["-x", "a_b", "a___b", "a$_$b", "$_$", "0001", "1", "🎬", " "])
labels = st.floats(width=32, allow_infinity=False)


@st.composite
def utterances(draw: st.DrawFn) -> list[Utterance]:
    return draw(
        st.lists(
            st.builds(
                Utterance,
                video_id=ids,
                clip_id=ids,
                split=st.sampled_from(["train", "valid", "test"]),
                label=labels,
                text=texts,
                duration=st.floats(0, 1e4, width=32) | st.just(float("nan")),
                start=st.just(0.0) | st.floats(0, 1e4),
                end=st.just(float("inf")) | st.floats(0, 1e4),
            ),
            max_size=6,
            unique_by=lambda utterance: utterance.id,
        )
    )


@settings(deadline=None, max_examples=25)
@given(listed=utterances(), failed=st.lists(st.tuples(ids, ids, texts)), data=st.data())
def test_what_is_written_is_what_is_read(listed, failed, data):
    columns = []
    for name, level in (("words", "utterance"), ("frames", "sequence"), ("é ü", "sequence")):
        lengths = data.draw(
            st.lists(
                st.integers(0, 1 if level == "utterance" else 5),
                min_size=len(listed),
                max_size=len(listed),
            )
        )
        config = {"encoder": data.draw(texts), "options": {"fps": 5.0, "none": None}}
        spec = StreamSpec(
            name, "audio", "own", level, 3, "e", data.draw(texts), "sha", "print", config
        )
        columns.append(column(spec, lengths, data.draw(st.integers(0, 9))))
    failures = [Failure(*row) for row in failed]
    with tempfile.TemporaryDirectory() as folder:
        opened = FeatureStore(write(Path(folder) / "a.h5", listed, columns, failures))
    assert [opened.utterance(row).id for row in range(len(opened))] == opened.ids
    for row, wanted in enumerate(listed):
        assert repr(opened.utterance(row)) == repr(wanted)  # repr: NaN is itself, -0.0 is not 0.0
    assert opened.failed == failures
    assert opened.streams.keys() == {"words", "frames", "é ü"}
    for spec, lengths, rows, _ in columns:
        stream = opened.streams[spec.name]
        assert stream.spec == spec
        assert stream.lengths.tolist() == lengths.tolist()
        assert stream.values.dtype == (np.float32 if spec.level == "utterance" else np.float16)
        for row, wanted_rows in enumerate(rows):
            assert stream[row].shape == (lengths[row], 3)
            np.testing.assert_array_equal(stream[row], wanted_rows)


def test_rows_may_come_in_any_pieces(tmp_path):
    (rows,) = rows_of(FRAMES, [10_000])
    pieces = [rows[:0], rows[:1], rows[1:5000], rows[5000:5000], rows[5000:]]
    opened = FeatureStore(
        write(
            tmp_path / "a.h5",
            UTTERANCES[:1],
            [StreamColumn(FRAMES, np.array([10_000]), iter(pieces))],
        )
    )
    np.testing.assert_array_equal(opened.streams["frames"].values, rows)


def test_the_store_says_what_made_it(store):
    opened = FeatureStore(store)
    assert (opened.dataset, opened.profile) == ("mine", "tiny")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", opened.created)
    assert opened.clipmsa_version
    assert opened.streams["words"].spec == WORDS
    assert opened.untrained_streams == ["frames"]


def test_rows_are_found_by_id_and_by_split(store):
    opened = FeatureStore(store)
    assert opened.index["-wny0OAz3g8$_$0"] == 2
    assert [opened.rows_of_split(split).tolist() for split in ("train", "valid", "test")] == [
        [0],
        [1],
        [2],
    ]


def test_the_tables_are_data_frames(tmp_path):
    failures = [Failure("a$_$1", "media", "no such file")]
    opened = FeatureStore(write(tmp_path / "a.h5", failures=failures))
    table = opened.utterances
    assert list(table) == ["id", "video_id", "clip_id", "split", "label", "text", "duration"]
    assert table.id.tolist() == [utterance.id for utterance in UTTERANCES]
    assert table.label.isna().tolist() == [False, False, True]
    assert opened.failures.to_dict("records") == [failures[0]._asdict()]
    assert FeatureStore(write(tmp_path / "b.h5")).failures.empty


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A store whose values are large enough for our writer to align: more than 4 KB."""
    listed = [Utterance("v", str(row), "train", 0.5, "word") for row in range(400)]
    columns = [column(WORDS, [1] * 400), column(FRAMES, [row % 7 for row in range(400)])]
    return write(tmp_path / "large.h5", listed, columns)


def test_values_of_our_own_files_are_mapped_not_read(large):
    for stream in FeatureStore(large).streams.values():
        assert isinstance(stream.values, np.memmap)
        assert stream.values.offset % 4096 == 0
        assert stream.values.flags.writeable  # torch shares no memory with other arrays
        np.testing.assert_array_equal(
            stream.values, np.concatenate(rows_of(stream.spec, stream.lengths.tolist()))
        )


def test_reading_leaves_the_file_as_it_is_even_where_values_are_written_to(large):
    before = large.read_bytes(), large.stat().st_mtime_ns
    opened = FeatureStore(large)
    opened.streams["words"].values[:] = 7
    assert opened.utterances is not None
    del opened
    assert (large.read_bytes(), large.stat().st_mtime_ns) == before


def test_a_reader_keeps_its_features_while_a_new_store_takes_the_place(large):
    opened = FeatureStore(large)
    before = opened.streams["frames"].values.tolist()
    write(large, streams=[column(FRAMES, (0, 0, 1), seed=1)])
    assert opened.streams["frames"].values.tolist() == before


def test_the_same_contents_make_the_same_bytes(tmp_path, monkeypatch):
    one, other = write(tmp_path / "one.h5"), write(tmp_path / "other.h5")
    times = [FeatureStore(path).created.encode() for path in (one, other)]
    assert one.read_bytes().replace(times[0], b"") == other.read_bytes().replace(times[1], b"")


# A store as version 1 wrote it, kept for good. It was made by
#     KEPT, columns and failures as below
#     write_store(Path("tests/data/store-v1.h5"), dataset="kept", profile="tiny", utterances=KEPT,
#                 streams=columns, failures=failures)
# with clipmsa 0.1.0 and h5py 3.16. A new version gets a file of its own; this one stays.
KEPT = [
    Utterance("03bSnISJMiM", "1", "train", 2.4, "A wonderful film 🎬", 3.25),
    Utterance("-wny0OAz3g8", "0001", "valid", -0.6, "", 1.5),
    Utterance("a___b", "$_$", "test", float("nan"), 'Er sagte, „nein“\nund "ging".'),
]
KEPT_WORDS = StreamSpec(
    "words", "text", "own", "utterance", 2, "toy-text", "hub:toy/text", "ab12", "f00d", {"fps": 5.0}
)
KEPT_FACES = StreamSpec(
    "faces", "vision", "own", "sequence", 3, "toy-face", "random (seed 0)", "", "beef", {"a": [1]}
)


def test_a_store_of_version_1_still_reads_to_the_same_values():
    opened = FeatureStore(ROOT / "tests" / "data" / "store-v1.h5")
    assert (opened.dataset, opened.profile, opened.clipmsa_version) == ("kept", "tiny", "0.1.0")
    assert opened.ids == ["03bSnISJMiM$_$1", "-wny0OAz3g8$_$0001", "a___b$_$$_$"]
    for row, kept in enumerate(KEPT):
        read = opened.utterance(row)
        assert (read.id, read.split, read.text) == (kept.id, kept.split, kept.text)
        assert (read.video_id, read.clip_id) == (kept.video_id, kept.clip_id)
        np.testing.assert_array_equal(
            np.array([read.label, read.duration], np.float32),
            np.array([kept.label, kept.duration], np.float32),
        )
    words, faces = opened.streams["words"], opened.streams["faces"]
    assert (words.spec, faces.spec) == (KEPT_WORDS, KEPT_FACES)
    assert words.offsets.tolist() == [0, 1, 1, 2]
    assert words.values.tolist() == [[0.5, -1.25], [3.0, 0.10000000149011612]]
    assert faces.offsets.tolist() == [0, 2, 2, 3]
    assert faces.values.dtype == np.float16
    assert faces.values.tolist() == [[1, 2, 3], [4, 5, 6], [0.0999755859375, -65504, 0]]
    assert opened.failed == [Failure("broken$_$7", "media", "cannot be decoded — naïve")]


# ---- Stores of other programs.


def by_hand(
    path: Path,
    *,
    string: Callable[[list[bytes]], dict[str, Any]] | None = None,
    numbers: str = "<",
    sequence: str = "f2",
    attribute: Callable[[str], Any] = str,
    **layout: Any,
) -> Path:
    """The store of FORMAT.md's example with h5py alone, in the dialect of some other program."""

    def fixed(coded: list[bytes]) -> dict[str, Any]:
        dtype = h5py.string_dtype("utf-8", max(1, *map(len, coded)))
        return {"data": np.array(coded, dtype), "dtype": dtype}

    table: dict[str, list[str]] = {
        "id": [u.id for u in UTTERANCES],
        "video_id": [u.video_id for u in UTTERANCES],
        "clip_id": [u.clip_id for u in UTTERANCES],
        "split": [u.split for u in UTTERANCES],
        "text": [u.text for u in UTTERANCES],
    }
    # On pages, so that a reader could map whatever layout allows it.
    with h5py.File(path, "w", alignment_threshold=1, alignment_interval=4096) as file:
        file.attrs["format"], file.attrs["version"] = attribute("clipmsa-features"), 1
        for key, texts in table.items():
            arguments = (string or fixed)([text.encode() for text in texts])
            file.create_dataset(f"utterances/{key}", **arguments)
        file["utterances/label"] = np.array([u.label for u in UTTERANCES], f"{numbers}f4")
        file["utterances/duration"] = np.array([u.duration for u in UTTERANCES], f"{numbers}f4")
        for spec, lengths, dtype in ((WORDS, (1, 0, 1), "f4"), (FRAMES, (2, 3, 0), sequence)):
            group = file.create_group(f"streams/{spec.name}")
            values = np.concatenate(rows_of(spec, lengths)).astype(f"{numbers}{dtype}")
            group.create_dataset("values", data=values, **layout)
            group["offsets"] = np.cumsum([0, *lengths]).astype(f"{numbers}i8")
            for key in ("modality", "branch", "level"):
                group.attrs[key] = attribute(getattr(spec, key))
    return path


def holds_the_example(opened: FeatureStore) -> None:
    assert opened.ids == [utterance.id for utterance in UTTERANCES]
    for row, wanted in enumerate(UTTERANCES):
        read = opened.utterance(row)
        assert (read.video_id, read.clip_id, read.split, read.text) == (
            wanted.video_id,
            wanted.clip_id,
            wanted.split,
            wanted.text,
        )
    np.testing.assert_array_equal(opened.labels, np.array([2.4, -0.6, np.nan], np.float32))
    for spec, lengths in ((WORDS, (1, 0, 1)), (FRAMES, (2, 3, 0))):
        stream = opened.streams[spec.name]
        assert (stream.spec.modality, stream.spec.branch) == (spec.modality, spec.branch)
        assert (stream.spec.level, stream.spec.dim) == (spec.level, spec.dim)
        assert stream.lengths.tolist() == list(lengths)
        assert stream.offsets.dtype == np.int64
        assert stream.values.dtype.isnative
        for row, rows in enumerate(rows_of(spec, lengths)):
            np.testing.assert_array_equal(stream[row], rows)


DIALECTS: dict[str, dict[str, Any]] = {
    "fixed strings": {},
    "variable strings": {"string": lambda c: {"data": c, "dtype": h5py.string_dtype()}},
    "variable strings called ASCII": {
        "string": lambda c: {"data": c, "dtype": h5py.string_dtype("ascii")}
    },
    "fixed strings called ASCII": {"string": lambda c: {"data": np.array(c)}},
    "compressed strings": {
        "string": lambda c: {"data": c, "dtype": h5py.string_dtype(), "compression": "gzip"}
    },
    "chunks and gzip": {"chunks": (1, 2), "compression": "gzip", "shuffle": True},
    "checksums": {"fletcher32": True},
    "room to grow": {"maxshape": (None, None)},
    "big-endian": {"numbers": ">"},
    "big-endian chunks": {"numbers": ">", "chunks": True},
    "float32 sequences": {"sequence": "f4"},
    "attributes as bytes": {"attribute": str.encode},
    "attributes as fixed strings": {"attribute": np.bytes_},
    "attributes as fixed UTF-8": {
        "attribute": lambda t: np.array(t.encode(), h5py.string_dtype("utf-8", 20))
    },
    "attributes as arrays of one": {"attribute": lambda t: np.array([t.encode()])},
    "attributes as arrays of one variable string": {"attribute": lambda t: [t]},
}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_another_program_s_store_is_read(tmp_path, dialect):
    holds_the_example(FeatureStore(by_hand(tmp_path / "a.h5", **dialect)))


def test_strings_padded_with_spaces_are_read_without(tmp_path):
    path = by_hand(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        texts = file["utterances/split"].asstr()[:]
        del file["utterances/split"]
        stored = h5py.h5t.C_S1.copy()
        stored.set_size(9)
        stored.set_strpad(h5py.h5t.STR_SPACEPAD)
        dataset = h5py.h5d.create(
            file["utterances"].id, b"split", stored, h5py.h5s.create_simple((3,))
        )
        padded = np.array([text.encode().ljust(9) for text in texts], "S9")
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, padded, stored)
    holds_the_example(FeatureStore(path))


@pytest.mark.parametrize(
    "version", [1, np.uint8(1), np.int64(1), 1.0, np.array([1]), np.array([1.0])], ids=repr
)
def test_the_version_may_be_a_number_of_any_type(tmp_path, version):
    path = by_hand(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file.attrs["version"] = version
    holds_the_example(FeatureStore(path))


@pytest.mark.parametrize("dtype", ["<i4", ">i4", "u8", "u2"])
def test_offsets_may_be_integers_of_any_type(tmp_path, dtype):
    path = by_hand(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        replace(file, "streams/frames/offsets", np.array([0, 2, 5, 5], dtype))
    holds_the_example(FeatureStore(path))


def test_labels_may_be_doubles(tmp_path):
    path = by_hand(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        replace(file, "utterances/label", np.array([2.4, -0.6, np.nan]))
    opened = FeatureStore(path)
    assert opened.labels.dtype == np.float32
    holds_the_example(opened)


def test_values_behind_a_user_block_are_found(large, tmp_path):
    moved = tmp_path / "a.h5"
    with (
        h5py.File(large) as source,
        h5py.File(moved, "w", userblock_size=4096) as file,
    ):
        file.attrs.update(source.attrs)
        for key in source:
            source.copy(key, file)
    before, after = FeatureStore(large), FeatureStore(moved)
    for name in ("words", "frames"):
        np.testing.assert_array_equal(before.streams[name].values, after.streams[name].values)


def test_bfloat16_is_converted_not_taken_for_the_type_that_h5py_shows(tmp_path):
    path = by_hand(tmp_path / "a.h5")
    bfloat16 = h5py.h5t.IEEE_F32LE.copy()
    bfloat16.set_fields(15, 7, 8, 0, 7)
    bfloat16.set_size(2)
    bfloat16.set_ebias(127)
    values = np.array([[1, -2, 0.5], [256, 0, 3]], np.float32)
    with h5py.File(path, "a", alignment_threshold=1, alignment_interval=4096) as file:
        del file["streams/words/values"]
        dataset = h5py.h5d.create(
            file["streams/words"].id, b"values", bfloat16, h5py.h5s.create_simple((2, 3))
        )
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    np.testing.assert_array_equal(FeatureStore(path).streams["words"].values, values)


def test_what_the_format_does_not_name_is_ignored(tmp_path):
    path = by_hand(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["notes"] = "of another program"
        file["utterances/speaker"] = np.arange(7)
        file["streams/frames/times"] = np.arange(5.0)
        file.attrs["mood"] = np.array([(1, 2.0)], "i4,f4")
        file["streams/frames"].attrs["colours"] = b"\xff\xfe"
        file["broken"] = h5py.ExternalLink("nowhere.h5", "/")
    holds_the_example(FeatureStore(path))


def test_what_is_told_of_a_stream_may_be_missing(tmp_path):
    opened = FeatureStore(by_hand(tmp_path / "a.h5"))
    spec = opened.streams["words"].spec
    assert (spec.encoder, spec.weights, spec.weights_sha256, spec.fingerprint) == ("", "", "", "")
    assert spec.config == {}
    assert (opened.dataset, opened.profile, opened.created, opened.failed) == ("", "", "", [])


def test_an_empty_attribute_is_an_empty_text(tmp_path):
    path = by_hand(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["streams/words"].attrs["weights"] = h5py.Empty("S1")
        file["streams/words"].attrs["config"] = ""
    assert FeatureStore(path).streams["words"].spec.weights == ""


# ---- A broken rule is named with its file and its key.


def replace(file: h5py.File, key: str, data: Any, **options: Any) -> None:
    del file[key]
    file.create_dataset(key, data=data, **options)


def without(key: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(key)


def put(key: str, data: Any, **options: Any) -> Callable[[h5py.File], None]:
    return lambda file: replace(file, key, data, **options)


def attribute(key: str, name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file[key].attrs.__setitem__(name, value)


def no_attribute(key: str, name: str) -> Callable[[h5py.File], None]:
    return lambda file: file[key].attrs.__delitem__(name)


def link(key: str, target: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = target

    return change


def virtual(key: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        shape, dtype = file[key].shape, file[key].dtype
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource("shard.h5", key, shape)
        del file[key]
        file.create_virtual_dataset(key, layout)

    return change


def damaged(key: str) -> Callable[[h5py.File], None]:
    """A chunk whose checksum does not fit."""

    def change(file: h5py.File) -> None:
        data = file[key][:]
        del file[key]
        dataset = file.create_dataset(key, data=data, chunks=data.shape, fletcher32=True)
        dataset.id.write_direct_chunk((0,) * data.ndim, b"\1" * (data.nbytes + 4))

    return change


VALUES, OFFSETS, FRAMES_KEY = "streams/frames/values", "streams/frames/offsets", "streams/frames"
TWENTY = np.zeros((5, 4), np.float32)
LATIN = np.array([b"caf\xe9", b"", b""])
BROKEN: list[tuple[Callable[[h5py.File], None], list[str]]] = [
    *((without(key), [f"/{key} is missing"]) for key in ("utterances", "streams")),
    *(
        (without(f"utterances/{key}"), [f"/utterances/{key} is missing"])
        for key in ("id", "video_id", "clip_id", "split", "label", "text", "duration")
    ),
    *((without(key), [f"/{key} is missing"]) for key in (VALUES, OFFSETS)),
    (no_attribute("/", "format"), ["'format' is not 'clipmsa-features'"]),
    (attribute("/", "format", "anndata"), ["'format' is not 'clipmsa-features'"]),
    (no_attribute("/", "version"), ["no attribute 'version'"]),
    (attribute("/", "version", 2), ["'version' is 2", "reads 1", "install"]),
    (attribute("/", "version", 1.5), ["'version' is 1.5"]),
    (attribute("/", "version", "one"), ["'version' is one"]),
    (attribute("/", "version", [1, 2]), ["'version' is [1 2]"]),
    (attribute("/", "dataset", np.bytes_(b"caf\xe9")), ["attribute 'dataset'", "not UTF-8"]),
    # The table.
    (put("utterances/id", np.array([1, 2, 3])), ["/utterances/id", "int64", "UTF-8 strings"]),
    (put("utterances/text", LATIN), ["/utterances/text", "not UTF-8"]),
    (
        put("utterances/text", list(LATIN), dtype=h5py.string_dtype()),
        ["/utterances/text", "not UTF-8"],
    ),
    (put("utterances/text", np.array([[b"a"], [b"b"], [b"c"]])), ["/utterances/text", "(3, 1)"]),
    (put("utterances/text", "one"), ["/utterances/text", "shape ()", "1 axes"]),
    (put("utterances/label", h5py.Empty("f4")), ["/utterances/label", "shape None"]),
    (put("utterances/label", np.arange(3)), ["/utterances/label is int64", "float32"]),
    (
        put("utterances/label", np.array([0, np.inf, 0], np.float32)),
        ["/utterances/label", "$_$2' is inf"],
    ),
    (put("utterances/label", np.array([0, 0, -1e300])), ["/utterances/label", "$_$0' is -inf"]),
    (put("utterances/label", np.zeros(2, "f4")), ["/utterances/label has 2 rows", "id has 3"]),
    (put("utterances/clip_id", np.array([b"1"] * 4)), ["/utterances/clip_id has 4 rows"]),
    (
        put("utterances/split", np.array([b"train", b"dev", b"test"])),
        ["/utterances/split of '03bSnISJMiM$_$2' is 'dev'", "train, valid, test"],
    ),
    (
        put("utterances/id", np.array([u.id.encode() for u in UTTERANCES[:2] + UTTERANCES[1:2]])),
        ["'03bSnISJMiM$_$2' occurs twice in /utterances/id"],
    ),
    (link("utterances", h5py.SoftLink("/nowhere")), ["/utterances cannot be read"]),
    (put("utterances", np.zeros(3)), ["/utterances is not a group"]),
    (damaged("utterances/label"), ["/utterances/label cannot be read"]),
    # The streams.
    (put("streams", np.zeros(3)), ["/streams is not a group"]),
    (put(FRAMES_KEY, np.zeros(3)), ["/streams/frames is not a group"]),
    (link(VALUES, h5py.SoftLink("/streams")), ["/streams/frames/values is not a dataset"]),
    (put(VALUES, TWENTY.astype(np.int16)), ["/streams/frames/values is int16", "float16 or float"]),
    (put(VALUES, TWENTY.astype(np.float64)), ["/streams/frames/values is float64"]),
    (put(VALUES, TWENTY.astype(np.complex64)), ["/streams/frames/values is complex64"]),
    (put(VALUES, np.zeros(5, np.float32)), ["/streams/frames/values has shape (5,)", "2 axes"]),
    (put(VALUES, np.zeros((5, 2, 2), "f4")), ["/streams/frames/values has shape (5, 2, 2)"]),
    (put(VALUES, np.zeros((5, 0), "f4")), ["/streams/frames/values", "(5, 0)", "D at least 1"]),
    (put(VALUES, TWENTY[:4]), ["/streams/frames/offsets must rise from 0 to the 4 rows"]),
    (put(OFFSETS, np.array([0, 2, 5])), ["/streams/frames/offsets has 3 entries", "3 utterances"]),
    (put(OFFSETS, np.array([0, 2, 5, 5, 5])), ["/streams/frames/offsets has 5 entries"]),
    (put(OFFSETS, np.array([[0], [2], [5], [5]])), ["/streams/frames/offsets has shape (4, 1)"]),
    (put(OFFSETS, np.array([0, 3, 2, 5])), ["/streams/frames/offsets must rise"]),
    (put(OFFSETS, np.array([1, 2, 5, 5])), ["/streams/frames/offsets must rise from 0"]),
    (put(OFFSETS, np.array([0, 2, 4, 4])), ["/streams/frames/offsets must rise from 0 to the 5"]),
    (put(OFFSETS, np.array([0, 2, 2**64 - 1, 5], "u8")), ["/streams/frames/offsets must rise"]),
    (put(OFFSETS, np.array([0, 2**63 - 1, -(2**63), 5])), ["/streams/frames/offsets must rise"]),
    (put(OFFSETS, np.array([0.0, 2, 5, 5])), ["/streams/frames/offsets is float64", "int64"]),
    (
        put("streams/words/offsets", np.array([0, 2, 2, 2])),
        ["/streams/words/offsets", "'utterance'", "'03bSnISJMiM$_$1' has 2 rows"],
    ),
    *(
        (no_attribute(FRAMES_KEY, name), [f"/streams/frames has no attribute '{name}'"])
        for name in ("modality", "branch", "level")
    ),
    (attribute(FRAMES_KEY, "modality", "smell"), ["'frames'", "modality is 'smell'", "vision"]),
    (attribute(FRAMES_KEY, "branch", "twig"), ["'frames'", "branch is 'twig'", "own, clip"]),
    (attribute(FRAMES_KEY, "level", ["a", "b"]), ["'frames'", "level is", "utterance, sequence"]),
    (attribute(FRAMES_KEY, "encoder", b"\xff"), ["/streams/frames", "'encoder'", "not UTF-8"]),
    (
        attribute(FRAMES_KEY, "encoder", np.array(b"\xff", h5py.string_dtype())),
        ["/streams/frames", "'encoder'", "not UTF-8"],
    ),
    (attribute(FRAMES_KEY, "config", "{fps: 5}"), ["/streams/frames", "'config' is not JSON"]),
    (attribute(FRAMES_KEY, "config", "[5]"), ["/streams/frames", "'config'", "JSON object"]),
    # One file.
    (virtual(VALUES), ["/streams/frames/values is kept in other files"]),
    (virtual(OFFSETS), ["/streams/frames/offsets is kept in other files"]),
    (
        lambda file: replace(
            file, VALUES, None, shape=(5, 4), dtype="f4", external=[("values.bin", 0, 80)]
        ),
        ["/streams/frames/values is kept in other files"],
    ),
    (link(VALUES, h5py.ExternalLink("other.h5", VALUES)), ["/streams/frames/values links to ano"]),
    (link(FRAMES_KEY, h5py.ExternalLink("other.h5", FRAMES_KEY)), ["/streams/frames links to ano"]),
    (link(FRAMES_KEY, h5py.ExternalLink("gone.h5", "/")), ["/streams/frames links to ano"]),
    (link(FRAMES_KEY, h5py.SoftLink("/nowhere")), ["/streams/frames cannot be read"]),
    (damaged(VALUES), ["/streams/frames/values cannot be read"]),
    (damaged(OFFSETS), ["/streams/frames/offsets cannot be read"]),
    # The clips left out.
    (
        lambda file: file.update({"utterances/start": [1, 2, 3]}),
        ["/utterances/start is int64, must be float64"],
    ),
    (lambda file: file.update({"utterances/end": [1.0]}), ["/utterances/end has 1 rows"]),
    (lambda file: file.create_group("failures"), ["/failures/id is missing"]),
    (lambda file: file.create_dataset("failures", data=[1]), ["/failures is not a group"]),
    (
        lambda file: file.update(
            {f"failures/{key}": np.array([b"a"] * n) for key, n in (("id", 2), ("stage", 1))}
            | {"failures/error": np.array([b"a"])}
        ),
        ["/failures/id", "2, 1, 1 rows"],
    ),
]


@pytest.mark.parametrize(
    ("change", "words"), BROKEN, ids=[re.sub(r"[^\w/ ]", "", words[0]) for _, words in BROKEN]
)
def test_a_broken_rule_is_named_with_its_file_and_key(tmp_path, change, words):
    path = by_hand(tmp_path / "a.h5")
    by_hand(tmp_path / "other.h5")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(StoreError) as caught:
        FeatureStore(path)
    message = str(caught.value)
    assert message.count(str(path)) == 1
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_path_without_a_store_says_how_to_make_one(tmp_path):
    for path in (tmp_path / "nothing.h5", tmp_path):
        with pytest.raises(StoreError, match="no such feature store; `clipmsa extract") as caught:
            FeatureStore(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 a zip", b"\x89HDF\r\n\x1a\n"], ids=repr)
def test_a_file_that_is_not_hdf5_is_refused(tmp_path, content):
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"a\.h5: not a readable HDF5 file"):
        FeatureStore(path)


def test_a_file_that_was_cut_off_is_refused(store):
    whole = store.read_bytes()
    for length in range(0, len(whole), 331):
        store.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"store\.h5: not a readable HDF5 file"):
            FeatureStore(store)


@pytest.mark.parametrize("signature", [b"HEAP", b"TREE", b"SNOD"], ids=repr)
def test_a_file_whose_structure_is_damaged_is_refused(tmp_path, signature):
    path = by_hand(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes().replace(signature, b"rust"))
    with pytest.raises(StoreError, match=r"a\.h5: /.* cannot be read"):
        FeatureStore(path)


# ---- The writer: a whole store or none.


def stream(spec: StreamSpec, lengths: Sequence[int], rows: Any) -> list[StreamColumn]:
    return [StreamColumn(spec, np.array(lengths, np.int64), rows)]


TOO_LARGE = np.full((1, 4), 1e5, np.float32)
UNWRITABLE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "too few rows": (
        {"streams": stream(FRAMES, (1, 1, 1), rows_of(FRAMES, (1, 1)))},
        ["'frames'", "2 rows were given", "sum to 3"],
    ),
    "too many rows": (
        {"streams": stream(FRAMES, (1, 1, 0), rows_of(FRAMES, (1, 1, 2)))},
        ["'frames'", "4 rows were given", "sum to 2"],
    ),
    "rows of one number": (
        {"streams": stream(FRAMES, (1, 0, 0), [np.ones((1, 1))])},
        ["'frames'", "(1, 1)", "(T, 4)"],
    ),
    "a vector for a row": (
        {"streams": stream(FRAMES, (4, 0, 0), [np.ones(4)])},
        ["'frames'", "(4,)", "(T, 4)"],
    ),
    "too few lengths": (
        {"streams": [column(FRAMES, (1, 1))]},
        ["/streams/frames/offsets has 3 entries"],
    ),
    "two vectors": ({"streams": [column(WORDS, (2, 0, 0))]}, ["/streams/words", "2 rows"]),
    "too large for float16": (
        {"streams": stream(FRAMES, (1, 0, 0), [TOO_LARGE])},
        ["'frames'", "65504", "float16"],
    ),
    "an id twice": (
        {"utterances": [*UTTERANCES[:2], UTTERANCES[0]]},
        ["'03bSnISJMiM$_$1' occurs twice"],
    ),
    "one id from two pairs": (
        {
            "utterances": [
                UTTERANCES[0],
                Utterance("a$_$b", "c", "train", 0, ""),
                Utterance("a", "b$_$c", "train", 0, ""),
            ]
        },
        ["'a$_$b$_$c' occurs twice"],
    ),
    "a split of another name": (
        {"utterances": [*UTTERANCES[:2], Utterance("a", "b", "dev", 0, "")]},
        ["'a$_$b' is 'dev'"],
    ),
    "a zero byte": (
        {"utterances": [*UTTERANCES[:2], Utterance("a", "b", "test", 0, "x\0")]},
        ["/utterances/text", r"'x\x00'", "zero byte"],
    ),
    "a surrogate": (
        {"utterances": [*UTTERANCES[:2], Utterance("\udcff", "b", "test", 0, "")]},
        ["/utterances/id", "not Unicode"],
    ),
}


@pytest.mark.parametrize(("arguments", "words"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_breaks_a_rule_is_not_published(store, arguments, words):
    before = store.read_bytes()
    with pytest.raises(StoreError) as caught:
        write(store, **arguments)
    assert ".tmp" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert store.read_bytes() == before
    assert names_in(store.parent) == [store.name]


def test_a_stream_of_an_unknown_role_cannot_be_made():
    with pytest.raises(StoreError, match="'x': modality is 'smell', must be one of text, audio"):
        StreamSpec("x", "smell", "own", "utterance", 3)


def test_the_reason_of_a_failure_may_be_any_text(tmp_path):
    failures = [Failure("a$_$1", "media", "caf\udce9.mp4: a\0b")]
    assert FeatureStore(write(tmp_path / "a.h5", failures=failures)).failed == [
        Failure("a$_$1", "media", r"caf\udce9.mp4: ab")
    ]


def test_rows_are_taken_as_they_are_written(tmp_path):
    """Memory holds a block of rows, not a stream."""
    alive: list[int] = []

    def rows() -> Iterator[Any]:
        for number in range(40):
            alive.append(number)
            yield np.ones((1000, 4), np.float32)

    lengths = np.array([40_000, 0, 0])
    write(tmp_path / "a.h5", streams=[StreamColumn(FRAMES, lengths, rows())])
    assert len(alive) == 40
    assert FeatureStore(tmp_path / "a.h5").streams["frames"].values.shape == (40_000, 4)


def test_publish_makes_folders_and_leaves_the_new_file_alone(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    publish_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    publish_text(path, "again")
    assert path.read_text() == "again"
    assert names_in(path.parent) == ["a.txt"]


def test_what_is_published_is_not_there_before_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    with publish(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename works within one file system only
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()], ids=repr)
def test_an_exception_leaves_the_old_file_and_no_temporary_one(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted() -> None:
        with publish(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from clipmsa.cache import StreamColumn, StreamSpec, Utterance, write_store

def rows():
    for _ in range(20):
        yield np.ones((1000, 64), np.float32)
    print("half", flush=True)
    time.sleep(600)

write_store(
    Path(sys.argv[1]),
    dataset="new",
    profile="new",
    utterances=[Utterance("a", "b", "train", 0.0, "")],
    streams=[
        StreamColumn(
            StreamSpec("x", "vision", "own", "sequence", 64), np.array([40_000]), rows()
        )
    ],
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False], ids=["an old store", "no store"])
def test_a_kill_in_the_middle_of_a_write_leaves_what_was_there(tmp_path, there):
    path = tmp_path / "store.h5"
    before = write(path).read_bytes() if there else None
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert (path.read_bytes() if path.exists() else None) == before
    (temporary,) = [name for name in names_in(tmp_path) if name != path.name]
    assert temporary.startswith(".store.h5.")
    write(path)  # what the kill left behind is in nobody's way
    assert len(FeatureStore(path)) == 3
    assert names_in(tmp_path) == [path.name]  # and is gone


def test_opening_a_store_loads_neither_pandas_nor_torch(store):
    code = (
        "import sys, clipmsa.cache as cache; store = cache.FeatureStore(sys.argv[1]); "
        "store.streams['frames'][1].sum(); store.rows_of_split('train'); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "h5py" in loaded
    assert not {"pandas", "torch"} & set(loaded)


# ---- FORMAT.md is true.


def test_the_code_of_the_format_page_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(\w+)\n(.*?)```", FORMAT.read_text(encoding="utf-8"), re.DOTALL)
    assert {kind for kind, _ in blocks} == {"python", "text"}
    names: dict[str, Any] = {}
    printed = io.StringIO()
    for kind, content in blocks:
        if kind == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(content, names)
        else:
            assert printed.getvalue() == content


def test_the_format_page_names_all_that_our_writer_writes_and_nothing_else(tmp_path):
    page = FORMAT.read_text(encoding="utf-8")
    tree = "".join(line[4:] for line in page.splitlines(True) if line.startswith("    "))
    named = {"/streams/x" + key for key in re.findall(r"^/streams/<name>(\S*)", tree, re.M)}
    named |= set(re.findall(r"^(/(?:utterances|failures)/\w+)", tree, re.M))
    described = {
        name
        for listed in re.findall(r"attributes: ([\w, \n]+?)\n/", tree)
        for name in re.findall(r"\w+", listed)
    }
    spec = StreamSpec("x", "text", "own", "sequence", 2, states_of="y")
    written, attributes = set(), set()
    cut = [dataclasses.replace(utterance, start=1.0, end=2.5) for utterance in UTTERANCES]
    with h5py.File(write(tmp_path / "a.h5", cut, [column(spec, (1, 0, 2))])) as file:
        attributes |= file.attrs.keys() | file["streams/x"].attrs.keys()
        file.visit(lambda key: written.add(f"/{key}"))
    assert written - {"/utterances", "/streams", "/failures"} == named
    assert attributes == described


# ---- Provenance.


def test_a_fingerprint_does_not_depend_on_the_order_of_keys_at_any_depth():
    one = {"a": 1, "b": {"c": [1, 2], "d": None}}
    other = {"b": {"d": None, "c": [1, 2]}, "a": 1}
    assert fingerprint(one) == fingerprint(other)
    assert re.fullmatch("[0-9a-f]{16}", fingerprint(one))


@pytest.mark.parametrize(
    "changed",
    [
        {"a": 2, "b": {"c": [1, 2]}},
        {"a": 1, "b": {"c": [2, 1]}},
        {"a": 1, "b": {"d": [1, 2]}},
        {"a": 1, "b": {"c": [1, 2], "d": None}},
        {"a": 1, "b": {"c": [1, 2]}, "e": {}},
        {"a": 1.0, "b": {"c": [1, 2]}},
        {"a": True, "b": {"c": [1, 2]}},
        {"a": "1", "b": {"c": [1, 2]}},
    ],
    ids=str,
)
def test_two_fingerprints_come_with_a_difference_in_words(changed):
    config = {"a": 1, "b": {"c": [1, 2]}}
    assert fingerprint(changed) != fingerprint(config)
    assert difference(config, changed)
    assert difference(changed, config)


def test_the_difference_names_every_change_by_its_whole_key():
    old = {"media": {"fps": 5.0, "max_frames": 64}, "options": {}, "model": "a", "weights": None}
    new = {"media": {"fps": 4.0, "max_frames": 64}, "options": {"pool": "mean"}, "model": "a"}
    assert difference(old, new) == (
        "media.fps: 5.0 -> 4.0; options: {} -> nothing; options.pool: nothing -> mean; "
        "weights: None -> nothing"
    )
    assert difference(old, old) == ""


def test_a_fingerprint_is_of_the_configuration_as_it_is_stored(tmp_path):
    config = {"encoder": "é", "media": {"fps": 5.0}}
    spec = StreamSpec(
        "x", "text", "own", "sequence", 2, fingerprint=fingerprint(config), config=config
    )
    with h5py.File(write(tmp_path / "a.h5", streams=[column(spec, (1, 0, 2))])) as file:
        attributes = {k: v.decode() for k, v in file["streams/x"].attrs.items()}
    assert json.loads(attributes["config"]) == config
    assert attributes["config"] == canonical_json(config)
    digest = hashlib.sha256(attributes["config"].encode()).hexdigest()
    assert attributes["fingerprint"] == digest[:16]


def test_the_digest_of_one_file_is_what_sha256sum_prints(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(range(256)) * 5000)
    assert sha256_of_files([file]) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_digest_of_several_files_is_of_names_and_contents_in_any_order(tmp_path):
    def digest(**contents: str) -> str:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for name, content in contents.items():
            (folder / name).write_text(content)
        assert sha256_of_files(folder.iterdir()) == sha256_of_files(sorted(folder.iterdir())[::-1])
        return sha256_of_files(folder.iterdir())

    assert digest(a="1", b="2") == digest(b="2", a="1")
    assert len({digest(a="1", b="2"), digest(a="2", b="1"), digest(a="1", c="2")}) == 3
