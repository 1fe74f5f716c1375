"""Text files as people save them, and files of the wrong kind: read, or named in one line."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import random
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmsa.cache.errors import ClipmsaError, TableError
from clipmsa.cache.texts import kind_of, read_text
from clipmsa.cli.main import main
from clipmsa.extract.datasets.folds import read_folds
from clipmsa.extract.datasets.read import read_dataset
from clipmsa.extract.profiles.profile import load_profile
from clipmsa.fusion.analysis.scored import read_scored
from clipmsa.fusion.training.config import read_toml

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
TEXT = 'päth,"語"\r\nsecond\rthird\n'


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_is_read_in_every_encoding_that_says_its_name(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert read_text(tmp_path / "a.txt", TableError, "a text") == TEXT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\r\nb\rcafé".encode("latin-1"), "line 3: not UTF-8; save it in UTF-8, as a table"),
        ("a\nb".encode("utf-16") + b"\xd8", "not UTF-16"),
        ("some words".encode("utf-16-le"), "is a binary file, or a text in UTF-16 without a"),
        (b"PK\x03\x04\x14\x00", "is a damaged ZIP archive, must be a table"),
        (b"{\\rtf1 words}", "is a rich text document, must be a table"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, words):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(TableError) as caught:
        read_text(tmp_path / "a.csv", TableError, "a table")
    assert str(caught.value).startswith(str(tmp_path / "a.csv"))
    assert words in str(caught.value)


def test_a_pipe_in_the_place_of_a_text_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(TableError, match="is no regular file"):
        read_text(tmp_path / "a.csv", TableError, "a table")


def test_a_missing_text_and_a_folder_are_told(tmp_path):
    with pytest.raises(TableError, match=r"a\.csv: no such file"):
        read_text(tmp_path / "a.csv", TableError, "a table")
    with pytest.raises(TableError, match="is a folder, must be a table"):
        read_text(tmp_path, TableError, "a table")


TABLE = "path,text,label,split\na.mp4,fine,1,train\n"
FOLDS = '{"train": ["é"], "valid": [], "test": []}'
SETTINGS = '[model]\nd = 64\n# "é"\n'
PROFILE = '[streams.x]\nencoder = "open-clip-text"\nbranch = "clip"\nsource = { hub = "é/é" }\n'
SCORED = json.dumps({"file": "é.mp4", "start": 0, "text": "a\u2028b"}, ensure_ascii=False) + "\n"
READERS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "a table": ("t.csv", TABLE, lambda path: read_dataset(str(path)).clips[0].utterance.text),
    "folds": ("f.json", FOLDS, lambda path: read_folds(path).of),
    "settings": ("s.toml", SETTINGS, read_toml),
    "predictions": ("p.jsonl", SCORED, lambda path: read_scored(path)["é.mp4"][0].text),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(("name", "text", "read"), READERS.values(), ids=READERS)
def test_every_text_that_people_save_goes_through_the_one_reader(
    tmp_path, encoding, end, name, text, read
):
    plain, saved = tmp_path / f"plain-{name}", tmp_path / name
    plain.write_bytes(text.encode())
    saved.write_bytes(text.replace("\n", end).encode(encoding))
    assert read(saved) == read(plain)


# ---- Files of the wrong kind.


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """A folder with a file of each of several kinds."""
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("book.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
        archive.writestr("xl/workbook.xml", "<x/>")
    with h5py.File("some.h5", "w") as file:
        file["x"] = 1
    Path("some.pkl").write_bytes(pickle.dumps({}))
    Path("empty.pt").touch()
    Path("words.txt").write_text("words")
    Path("clip.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("book.xlsx", "an Excel workbook"),
        ("some.h5", "an HDF5 file"),
        ("some.pkl", "a pickle"),
        ("empty.pt", "empty"),
        ("clip.mp4", "a video or sound file (MP4)"),
        (".", "a folder"),
    ],
)
def test_a_kind_is_told_from_what_is_in_a_file(files, name, kind):
    assert (kind_of(files / name) or "").startswith(kind)


def test_a_zip_archive_of_a_version_to_come_is_a_damaged_one(tmp_path):
    file = tmp_path / "later.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 64  # the version that extracting needs, 6.4
    file.write_bytes(content)
    assert kind_of(file) == "a damaged ZIP archive"


def test_the_kind_of_a_text_and_of_a_missing_file_is_not_told(files):
    assert kind_of(files / "words.txt") is None
    assert kind_of(files / "missing") is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("inspect book.xlsx", "(it is an Excel workbook)"),
        ("verify empty.pt", "empty"),
        ("inspect clip.mp4", "(it is a video or sound file (MP4))"),
        ("train --features book.xlsx", "(it is an Excel workbook)"),
        ("report some.h5", "some.h5: is an HDF5 file, as feature stores and csd files are, must"),
        ("report words.txt", "words.txt: line 1: not a row of `clipmsa predict --json`"),
        ("extract --dataset book.xlsx", "book.xlsx: is an Excel workbook, must be a folder, or a"),
        ("inspect some.csv", "no such manifest"),
        ("predict empty.pt clip.mp4 --device cpu", "empty.pt: is empty, must be a checkpoint"),
        ("predict book.xlsx clip.mp4 --device cpu", "book.xlsx: is an Excel workbook, must be"),
    ],
)
def test_a_file_of_the_wrong_kind_is_named_in_one_line(files, capsys, line, words):
    assert main(line.split()) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert words in told[-1]
    assert "Traceback" not in "".join(told)


# ---- What mutation makes of them.

LABELS = 'video_id,clip_id,text,label,mode\nv,1,"fine, really",1.5,train\nw,2,no,-1,test\n'
MOSI = "1_DELIM_A GOOD FILM\n2_DELIM_BUT LONG\n"
MOSI_LABELS = "0.0,1.0,v,1,2.4\n1.0,2.0,v,2,-1\n"
MOSEI = "v___0___0.0___1.0___a good film\nv___1___1.0___2.0___but long\n"


def mosi(root: Path, changed: bytes) -> object:
    (root / "Transcript" / "Segmented").mkdir(parents=True)
    (root / "Transcript" / "Segmented" / "v.annotprocessed").write_bytes(changed)
    (root / "OpinionLevelSentiment.csv").write_text(MOSI_LABELS)
    return read_dataset(str(root))


def mosi_labels(root: Path, changed: bytes) -> object:
    (root / "Transcript" / "Segmented").mkdir(parents=True)
    (root / "Transcript" / "Segmented" / "v.annotprocessed").write_text(MOSI)
    (root / "OpinionLevelSentiment.csv").write_bytes(changed)
    return read_dataset(str(root))


def mosei(root: Path, changed: bytes) -> object:
    folder = root / "Transcript" / "Segmented" / "Combined"
    folder.mkdir(parents=True)
    (folder / "v.txt").write_bytes(changed)
    with h5py.File(root / "CMU_MOSEI_Labels.csd", "w") as file:
        file["L/data/v/intervals"] = [[0.0, 1.0], [1.0, 2.0]]
        file["L/data/v/features"] = [[1.0], [-1.0]]
    return read_dataset(str(root))


def named(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def reader(root: Path, changed: bytes) -> object:
        (root / name).write_bytes(changed)
        return read(root / name)

    return reader


MUTATED: dict[str, tuple[str, Callable[[Path, bytes], object]]] = {
    "label.csv": (LABELS, named("label.csv", lambda path: read_dataset(str(path.parent)))),
    "a manifest": (TABLE, named("m.csv", lambda path: read_dataset(str(path)))),
    "annotprocessed": (MOSI, mosi),
    "MOSI's labels": (MOSI_LABELS, mosi_labels),
    "MOSEI's text": (MOSEI, mosei),
    "folds": (FOLDS, named("f.json", read_folds)),
    "settings": (SETTINGS, named("s.toml", read_toml)),
    "a profile": (PROFILE, named("p.toml", lambda path: load_profile(str(path)))),
    "predictions": (SCORED, named("p.jsonl", read_scored)),
}
JUNK = [
    b"",
    b"\0",
    b'"',
    b",",
    b";",
    b"\t",
    b"\n",
    b"\r",
    b"{",
    b"[",
    b"}",
    b"=",
    b"\xff",
    b"-",
    b"9",
]


@pytest.mark.parametrize(("text", "read"), MUTATED.values(), ids=MUTATED)
@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32),
    encoding=st.sampled_from(ENCODINGS),
    junk=st.lists(st.sampled_from(JUNK) | st.binary(max_size=4), max_size=4),
    repeat=st.sampled_from([1, 1, 1, 5000]),
)
def test_a_mutated_text_gives_a_result_or_a_clear_error(text, read, seed, encoding, junk, repeat):
    draw = random.Random(seed)
    content = bytearray(text.encode(encoding))
    for piece in junk:
        place = draw.randrange(len(content) + 1)
        content[place : place + draw.choice([0, 1, 1, 20])] = piece * repeat
    with tempfile.TemporaryDirectory() as folder:
        try:
            read(Path(folder), bytes(content))
        except ClipmsaError as error:
            message = str(error)
        else:
            return
    assert folder in message
    assert "\n" not in message


# ---- Tables as spreadsheets save them.

ROWS = [
    ["video_id", "clip_id", "text", "label", "mode"],
    ["v", "1", "fine, really; yes\tno", "1.5", "train"],
    ["v", "2", "", "", "test"],
]


def saved(path: Path, delimiter: str, rows: list[list[str]], encoding: str = "utf-8") -> Path:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_a_table_may_be_parted_by_commas_semicolons_or_tabs(tmp_path, delimiter, encoding):
    saved(tmp_path / "label.csv", delimiter, ROWS, encoding)
    first, second = [clip.utterance for clip in read_dataset(str(tmp_path)).clips]
    assert (first.id, first.text, first.label) == ("v$_$1", ROWS[1][2], 1.5)
    assert (second.id, second.split) == ("v$_$2", "test")


def test_a_manifest_may_end_in_tsv(tmp_path):
    rows = [["path", "text", "label", "split"], ["a.mp4", "fine", "1", "train"]]
    manifest = read_dataset(str(saved(tmp_path / "m.tsv", "\t", rows)))
    assert (manifest.dataset, len(manifest.clips)) == ("m", 1)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_decimal_comma_is_refused_and_never_misread(tmp_path, delimiter):
    rows = [ROWS[0], ["v", "1", "fine", "1,5", "train"]]
    with pytest.raises(TableError, match="row 2: label '1,5' is no number"):
        read_dataset(str(saved(tmp_path / "label.csv", delimiter, rows).parent))


def test_a_table_parted_in_two_ways_is_refused_with_the_row(tmp_path):
    (tmp_path / "Transcript" / "Segmented").mkdir(parents=True)
    (tmp_path / "Transcript" / "Segmented" / "v.annotprocessed").write_text(MOSI)
    (tmp_path / "OpinionLevelSentiment.csv").write_text("0,0;1,0;v;1;2,4;a,b\n0;1;2;3,a,b,c,d;4\n")
    with pytest.raises(TableError, match="row 1"):
        read_dataset(str(tmp_path))
    (tmp_path / "OpinionLevelSentiment.csv").write_text("0;1;v,1,2;1,3;2,4\n")
    with pytest.raises(TableError, match="row 1: parted by ',' or ';'; save it with one"):
        read_dataset(str(tmp_path))


# ---- What a table may hold and seldom means.


def test_labels_off_the_scale_and_videos_in_two_splits_are_told_by_every_verb(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    rows = [ROWS[0], ["v", "1", "fine", "4", "train"], ["v", "2", "well", "1", "test"]]
    saved(Path("label.csv"), ",", rows)
    for verb in ("inspect .", "verify .", "extract --dataset . --profile tiny --device cpu"):
        main(verb.split())
        told = " ".join("".join(capsys.readouterr()).split())
        assert "1 videos have clips in several splits ('v')" in told, verb
        assert "outside [-3, 3]" in told, verb
        assert "'v$_$1'" in told, verb


def test_of_a_table_that_is_as_it_should_be_nothing_is_told(tmp_path, capsys):
    saved(tmp_path / "label.csv", ",", [ROWS[0], ["v", "1", "fine", "3", "train"]])
    main(["inspect", str(tmp_path)])
    assert "check:" not in capsys.readouterr().err
