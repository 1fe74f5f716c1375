"""Files of someone else's: they open nothing, run nothing, reach nothing and cost no more than
they are large. Stores, computational sequences and pickles.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import re
import signal
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ClipmsaError, ExchangeError, StoreError
from clipmsa.cache.exchange.csd import ComputationalSequence
from clipmsa.cache.exchange.mmsa_pickle import import_mmsa
from clipmsa.cache.exchange.unpickle import load_plain
from clipmsa.cache.verify import verify_apart
from clipmsa.extract.datasets.cmu import read_csd

# ---- HDF5: one guard for stores and csd files.


def sequence(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        for video in "ab":
            file[f"All Labels/data/{video}/intervals"] = [[0.0, 1.0], [1.0, 2.0]]
            file[f"All Labels/data/{video}/features"] = np.ones((2, 7), np.float32)
        names = ["sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear"]
        file["All Labels/metadata/dimension names"] = [json.dumps(names)]
    return path


def read_all(path: Path) -> None:
    with ComputationalSequence(path) as opened:
        for video in opened.videos:
            opened[video]


@pytest.fixture(params=["store", "csd"])
def kind(request, tmp_path, plant) -> tuple[Path, Callable[[Path], object], str, str]:
    """A file, what reads it, a dataset of floats of two axes in it, and the group around that."""
    if request.param == "store":
        plant(tmp_path / "a.h5", (4, 2, 2))
        return tmp_path / "a.h5", FeatureStore, "streams/albert/values", "streams/albert"
    path = sequence(tmp_path / "a.csd")
    return path, read_all, "All Labels/data/a/features", "All Labels/data/a"


def external(file: h5py.File, values: str, group: str) -> None:
    shape = file[values].shape
    del file[values]
    file.create_dataset(values, shape, "f4", external=[("/etc/passwd", 0, 4 * shape[0] * shape[1])])


def virtual(file: h5py.File, values: str, group: str) -> None:
    shape = file[values].shape
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource("gone.h5", "x", shape)
    del file[values]
    file.create_virtual_dataset(values, layout)


def linked(target: str) -> Callable[[h5py.File, str, str], None]:
    def change(file: h5py.File, values: str, group: str) -> None:
        del file[group]
        file[group] = h5py.ExternalLink(target, "/x")

    return change


def linked_twice(file: h5py.File, values: str, group: str) -> None:
    file["away"] = h5py.ExternalLink("pipe", "/x")
    del file[values]
    file[values] = h5py.SoftLink("/away/y")


def in_a_circle(file: h5py.File, values: str, group: str) -> None:
    del file[values]
    file["one"], file["two"] = h5py.SoftLink("/two"), h5py.SoftLink("/one")
    file[values] = h5py.SoftLink("/one")


def declared(rows: int, **layout: Any) -> Callable[[h5py.File, str, str], None]:
    def change(file: h5py.File, values: str, group: str) -> None:
        width = file[values].shape[1]
        del file[values]
        file.create_dataset(values, (rows, width), "f4", **layout)

    return change


def packed(file: h5py.File, values: str, group: str) -> None:
    del file[values]
    zeros = np.zeros((40_000, 1000), np.float32)
    file.create_dataset(values, data=zeros, chunks=(4000, 1000), compression="gzip")


HOSTILE = {
    "data in another file": (external, "is kept in other files"),
    "virtual data": (virtual, "is kept in other files"),
    "a link to a text": (linked("/etc/passwd"), "links to another file"),
    "a link to a pipe": (linked("pipe"), "links to another file"),
    "a link to a device": (linked("/dev/zero"), "links to another file"),
    "a link to a link": (linked_twice, "links to another file"),
    "links in a circle": (in_a_circle, "its links lead in a circle"),
    "chunks never written": (declared(10**9, chunks=(1000, 4)), "of which the file holds 0"),
    "values never written": (declared(10**9), "of which the file holds 0"),
    "zeros by the gigabyte": (packed, "more than can be meant"),
}


@pytest.mark.parametrize(("change", "words"), HOSTILE.values(), ids=HOSTILE)
def test_no_file_chooses_what_is_opened_or_how_much_it_takes(
    kind, tmp_path, monkeypatch, change, words
):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    path, read, values, group = kind
    with h5py.File(path, "a") as file:
        change(file, values, group)
    with limited(), pytest.raises(ClipmsaError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("behind_a_link", [False, True])
def test_only_regular_files_are_opened(kind, tmp_path, behind_a_link):
    _, read, _, _ = kind
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / ("link" if behind_a_link else "pipe"), Path("/dev/zero")):
        with limited(), pytest.raises(ClipmsaError, match="not a regular file"):
            read(path)


@contextlib.contextmanager
def limited(seconds: int = 60) -> Any:
    """A test that hangs fails, rather than end the run."""

    def out(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, out)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_an_attribute_of_another_type_is_refused_by_name(tmp_path, plant):
    path = tmp_path / "a.h5"
    plant(path, (4, 2, 2))
    with h5py.File(path, "a") as file:
        file.attrs["dataset"] = np.zeros(2, "i4,f8")
    with pytest.raises(StoreError, match="attribute 'dataset' is not a text or a number"):
        FeatureStore(path)


def test_a_configuration_of_any_depth_is_an_error_or_read(tmp_path, plant):
    path = tmp_path / "a.h5"
    plant(path, (4, 2, 2))
    with h5py.File(path, "a") as file:
        file["streams/albert"].attrs["config"] = '{"a":' * 5000 + "1" + "}" * 5000
    with pytest.raises(StoreError, match="'config' is not JSON"):
        FeatureStore(path)


def test_links_within_the_file_are_followed(tmp_path, plant):
    path = tmp_path / "a.h5"
    plant(path, (4, 2, 2))
    before = FeatureStore(path).streams["albert"].values.tolist()
    with h5py.File(path, "a") as file:
        file.move("streams/albert", "elsewhere")
        file["streams/albert"] = h5py.SoftLink("/elsewhere")
    assert FeatureStore(path).streams["albert"].values.tolist() == before


# ---- Pickles: NumPy is told nothing that a file says without a look at it.


class Call:
    """Something that pickles as a call of what the pickle names, and a state."""

    def __init__(self, name: str, arguments: Any = None, state: Any = None) -> None:
        self.name, self.arguments, self.state = name, arguments, state


class Pickler(pickle._Pickler):  # the one in Python, which can be told what to write
    def save(self, obj: Any, *arguments: Any, **options: Any) -> None:
        untyped: Any = super()
        write: Any = vars(self)["write"]
        if not isinstance(obj, Call):
            untyped.save(obj, *arguments, **options)
            return
        module, _, name = obj.name.rpartition(".")
        write(f"c{module}\n{name}\n".encode())
        if obj.arguments is not None:
            self.save(obj.arguments)
            write(pickle.REDUCE)
        if obj.state is not None:
            self.save(obj.state)
            write(pickle.BUILD)


def dump(path: Path, content: Any) -> Path:
    with path.open("wb") as file:
        Pickler(file, 2).dump(content)
    return path


def dtype(name: str, state: Any = None) -> Call:
    return Call("numpy.dtype", (name, False, True), state)


def array(raw: Any, shape: Any, kind: Call) -> Call:
    made = Call("numpy.core.multiarray._reconstruct", (Call("numpy.ndarray"), (0,), b"b"))
    made.state = (1, shape, kind, False, raw)
    return made


def fields(inner: str, offset: int = 0) -> Call:
    """A structure of 8 bytes whose only field is of another type or size, and may lie beyond."""
    within = {"a": (dtype(inner), offset)}
    return dtype("V8", (4, "|", None, ("a",), within, 8, 1, 0))


RAW = b"A" * 24
HOSTILE_ARRAYS = {
    "objects in a structure": lambda: array(RAW, (3,), fields("O8")),
    "a field beyond": lambda: array(RAW, (3,), fields("S4000")),
    "a field far beyond": lambda: array(RAW, (3,), fields("S64", 1 << 30)),
    "a field before": lambda: array(RAW, (3,), fields("S64", -4096)),
    "types within types": lambda: array(
        RAW, (3,), dtype("V8", (4, "|", (dtype("S8"), (10**5,)), None, None, 8, 1, 0))
    ),
    "a state with types within": lambda: array(
        RAW, (3,), dtype("S8", (4, "|", None, ("a",), {"a": (dtype("O8"), 0)}, 8, 1, 0))
    ),
    "objects of bytes": lambda: array(RAW, (3,), dtype("O8")),
    "objects from a buffer": lambda: Call(
        "numpy.core.numeric._frombuffer", (RAW, dtype("O8"), (3,), "C")
    ),
    "a scalar of objects": lambda: Call("numpy.core.multiarray.scalar", (fields("O8"), b"A" * 8)),
    "a shape below nothing": lambda: array(RAW, (-3,), dtype("S8")),
    "a shape beyond the bytes": lambda: array(RAW, (1 << 62,), dtype("S8")),
    "rows of nothing": lambda: array(b"", (1 << 40, 0), dtype("f8")),
    "an array made of no bytes": lambda: Call("numpy.ndarray", ((3,), "O")),
    "dates": lambda: array(RAW, (3,), dtype("M8")),
    "a change of what is named": lambda: Call(
        "numpy.core.numeric._frombuffer", None, {"__defaults__": (1,)}
    ),
    "another encoding": lambda: Call("_codecs.encode", ("a" * 9, "punycode")),
}


@pytest.mark.parametrize("made", HOSTILE_ARRAYS.values(), ids=HOSTILE_ARRAYS)
def test_an_array_that_is_not_of_plain_kinds_is_refused(tmp_path, made):
    for content in (made(), {"train": {"id": [made()]}}):
        with pytest.raises(ExchangeError, match=r"a\.pkl: (names|not a readable pickle)"):
            load_plain(dump(tmp_path / "a.pkl", content))


def shared(levels: int) -> list[Any]:
    lists: list[Any] = ["x"]
    for _ in range(levels):
        lists = [lists, lists]
    return lists


BOMBS = {
    "a place far beyond": b"\x80\x02]r\xff\xff\xff\x7f.",
    "more bytes than there are": b"\x80\x04\x8e" + struct.pack("<q", 1 << 40) + b"abc.",
    "a longer number": b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"\xff" * 16 + b".",
    "a longer frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",
    "lists within lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "lists that hold each other": pickle.dumps(shared(30)),
    "an extension": b"\x80\x02\x82\x01.",
    "a list within itself": b"\x80\x02]q\x00h\x00a.",
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_a_pickle_costs_no_more_than_it_is_large(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    wanted = r"a\.pkl: not a readable pickle \(.+\)"
    with limited(), pytest.raises(ExchangeError, match=wanted) as caught:
        load_plain(tmp_path / "a.pkl")
    assert "MemoryError" not in str(caught.value)  # which was asked for, and not there


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_arrays_are_what_they_were(tmp_path, protocol):
    content = {
        "doubles": np.arange(6.0).reshape(2, 3),
        "objects": np.array(["x", None, b"y", 2.5], object),
        "ragged": np.array([np.ones(2), "z"], object),
        "texts": np.array(["ab", "cé"]),
        "bytes": np.array([b"ab"]),
        "none": np.zeros((0, 50, 3), np.float32),
        "columns first": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "turned": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
        "truth": np.array([True, False]),
        "big-endian": np.arange(3, dtype=">f4"),
        "number": np.float32(1.5),
        "no bytes": b"",
        "pair": (1, None),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    read = load_plain(tmp_path / "a.pkl")
    for name, value in content.items():
        if name == "ragged":
            assert read[name][0].tolist() == [1, 1]
        elif isinstance(value, np.ndarray):
            assert (read[name].dtype, read[name].shape) == (value.dtype, value.shape), name
            assert np.array_equal(read[name], value), name
        else:
            assert (type(read[name]), read[name]) == (type(value), value)


def test_pickles_are_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with limited(), pytest.raises(ExchangeError, match="not a regular file"):
        load_plain(tmp_path / "pipe")


# ---- Damage of any kind: a result or an error of ours, in bounded time and memory.

ODD = (b"\0" * 16, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\0\0\0\x80")


def damaged(whole: bytes, seed: int) -> bytes:
    """The file with up to six places overwritten, and now and then cut off: by the seed alone."""
    chance = random.Random(seed)
    content = bytearray(whole)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(whole))
        patch = chance.choice([chance.choice(ODD), chance.randbytes(chance.randint(1, 8))])
        content[place : place + len(patch)] = patch
    return bytes(content[: chance.choice([len(content)] * 4 + [chance.randrange(len(content))])])


def innermost(stack: str) -> str:
    """The file of Python's in which a process was when a signal ended it."""
    found = re.search(r'File "(.+?)"', stack)
    return found[1] if found else stack


@pytest.fixture(scope="module")
def samples(tmp_path_factory, plant) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    plant(folder / "a.h5", (4, 2, 2), widths={"clip_image": 2, "face_vgg": 2, "esresnext": 2})
    part = {
        "id": np.array(["a$_$1", "b$_$1"], object),
        "raw_text": ["x", "y"],
        "regression_labels": np.array([1.0, -1.0]),
        "text": np.ones((2, 3, 2), np.float32),
        "audio": np.ones((2, 3, 2)),
        "audio_lengths": [3, 2],
    }
    other = {**part, "id": ["c$_$1", "d$_$1"]}
    return {
        "a.h5": (folder / "a.h5").read_bytes(),
        "a.csd": sequence(folder / "a.csd").read_bytes(),
        "a.pkl": pickle.dumps({"train": part, "test": other}, 4),
    }


def check(
    apart: Any, path: Path, whole: bytes, seeds: range, read: Callable[[Path], object]
) -> list[int]:
    """Read the file as each seed damages it; gives the seeds on which HDF5 ended the process."""
    ended = []
    for seed in seeds:
        path.write_bytes(damaged(whole, seed))
        outcome = apart(partial(read, path), ClipmsaError)
        if outcome.how == "ended":  # by HDF5's own crash or endless loop, and no code of ours
            where = innermost(outcome.told)
            assert "/h5py/" in where or where.endswith("/cache/hdf5.py"), outcome.told
            ended.append(seed)
        else:
            assert outcome.how == "done" or str(path) in outcome.told, f"seed {seed}: {outcome}"
    return ended


@pytest.mark.slow
def test_a_damaged_store_is_read_or_refused(apart, samples, tmp_path):
    def read(path: Path) -> None:
        store = FeatureStore(path)
        assert all(len(stream.values) >= 0 for stream in store.streams.values())

    path = tmp_path / "a.h5"
    for seed in check(apart, path, samples["a.h5"], range(200), read):
        path.write_bytes(damaged(samples["a.h5"], seed))
        faults = verify_apart(path, patience=2.0).verdict.faults
        assert faults, f"seed {seed} ends HDF5, and verify finds no fault"


@pytest.mark.slow
def test_a_damaged_csd_is_read_or_refused(apart, samples, tmp_path):
    check(apart, tmp_path / "a.csd", samples["a.csd"], range(200), read_csd)


@pytest.mark.slow
def test_a_damaged_pickle_is_read_or_refused(apart, samples, tmp_path):
    def read(path: Path) -> None:
        import_mmsa(path, path.with_suffix(".h5"))

    assert not check(apart, tmp_path / "a.pkl", samples["a.pkl"], range(300), read)


def overwritten(path: Path, place: int, value: int) -> Path:
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)
    return path


def test_damage_among_attributes_names_the_one_that_cannot_be_read(tmp_path, plant):
    path = tmp_path / "a.h5"
    plant(path, (4, 2, 2))
    version = path.read_bytes().index(b"modality\0") - 8  # of the attribute's message
    with pytest.raises(StoreError, match="/streams/albert attribute 'modality' cannot be read"):
        FeatureStore(overwritten(path, version, 0xFF))


def test_a_root_that_is_no_group_is_refused(tmp_path, plant):
    path = tmp_path / "a.h5"
    plant(path, (4, 2, 2))
    table = 96 + 16  # the type of the root's first message, which makes it a group
    with pytest.raises(StoreError, match=r"a\.h5: / cannot be read"):
        FeatureStore(overwritten(path, table, 0))
