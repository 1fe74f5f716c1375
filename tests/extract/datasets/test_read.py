"""Tables of clips: what people have on disk is read as it is meant, and a fault is shown by row."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmsa.cache.errors import TableError
from clipmsa.extract.datasets.read import Clip, Manifest, read_dataset

MOSI = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"
MOSEI = "video_id,clip_id,text,label,annotation,mode,label_T,label_A,label_V"
SHORT = "video_id,clip_id,text,label,mode"


def refused(call: Callable[[], object], *words: str) -> None:
    """The call fails with one line that holds the words."""
    with pytest.raises(TableError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.fixture
def mmsa(tmp_path: Path) -> Callable[..., Manifest]:
    """Write label.csv into the folder `ds` and read it."""
    folder = tmp_path / "ds"
    folder.mkdir()

    def read(*lines: str | bytes, end: str = "\n") -> Manifest:
        coded = [line if isinstance(line, bytes) else line.encode() for line in lines]
        (folder / "label.csv").write_bytes(b"".join(line + end.encode() for line in coded))
        return read_dataset(str(folder))

    return read


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Manifest]:
    """Write clips.csv and read it."""

    def read(*lines: str, root: Path | None = None) -> Manifest:
        (tmp_path / "clips.csv").write_text("\n".join(lines), encoding="utf-8")
        return read_dataset(str(tmp_path / "clips.csv"), root)

    return read


# ---- The MMSA layout.


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (MOSI, "03bSnISJMiM,1,A GOOD FILM,2.4,,,,Positive,train"),
        (MOSEI, "03bSnISJMiM,1,A GOOD FILM,2.4,Positive,train,,,"),
        (SHORT, "03bSnISJMiM,1,A GOOD FILM,2.4,train"),
        (
            "video_id,clip_id,text,label,annotation,mode,label_by",
            "03bSnISJMiM,1,A GOOD FILM,2.4,Positive,train,0",
        ),
        ("mode,text,clip_id,video_id,label", "train,A GOOD FILM,1,03bSnISJMiM,2.4"),
        (" video_id, clip_id,text ,label,mode", "03bSnISJMiM,1,A GOOD FILM,2.4,train"),
    ],
    ids=["MOSI", "MOSEI", "short", "MMSA 1", "any order", "spaces in the header"],
)
def test_columns_are_found_by_name(mmsa, tmp_path, header, row):
    manifest = mmsa(header, row)
    assert manifest.dataset == "ds"
    (clip,) = manifest.clips
    utterance = clip.utterance
    assert (utterance.video_id, utterance.clip_id) == ("03bSnISJMiM", "1")
    assert (utterance.split, utterance.label, utterance.text) == ("train", 2.4, "A GOOD FILM")
    assert math.isnan(utterance.duration)
    assert clip.path == tmp_path / "ds" / "Raw" / "03bSnISJMiM" / "1.mp4"


ROWS = (SHORT, 'v,1,"yes, but ""no""\nand é 🎬",-1.0,train', "v,2,,0,valid")


@pytest.mark.parametrize(
    ("start", "end"),
    [(b"", "\n"), (b"\xef\xbb\xbf", "\n"), (b"", "\r\n"), (b"\xef\xbb\xbf", "\r\n"), (b"", "\r")],
    ids=["plain", "BOM", "CRLF", "BOM and CRLF", "CR"],
)
def test_a_table_is_read_as_editors_and_spreadsheets_save_it(mmsa, start, end):
    clips = mmsa(start + ROWS[0].encode(), *ROWS[1:], end=end).clips
    assert [clip.utterance.id for clip in clips] == ["v$_$1", "v$_$2"]
    assert clips[0].utterance.text == 'yes, but "no"\nand é 🎬'
    assert clips[1].utterance.text == ""


def test_the_order_of_the_table_is_kept(mmsa):
    clips = mmsa(SHORT, "b,2,,0,train", "a,10,,0,test", "b,1,,0,valid").clips
    assert [clip.utterance.id for clip in clips] == ["b$_$2", "a$_$10", "b$_$1"]


def test_blank_lines_and_rows_of_commas_are_no_clips(mmsa):
    assert len(mmsa("", SHORT, "", "v,1,,0,train", ",,,,", " , ,,,", "v,2,,0,train", "").clips) == 2


@pytest.mark.parametrize(
    ("video", "clip"),
    [
        ("0001", "0001"),
        ("20006", "1"),
        ("1e5", "007"),
        ("-wny0OAz3g8", "-1"),
        ("_dI--eQ6qVU", "1_2"),
        ("a___b", "c__d"),
        ("a$_$b", "$_$"),
        ("nan", "None"),
        ("..a", "b.."),
        ("a.b", "1.5"),
        ("12:30", "a b"),
        ("映画", "é🎬"),
    ],
)
def test_ids_stay_the_strings_they_are(mmsa, tmp_path, video, clip):
    (read,) = mmsa(SHORT, f"{video},{clip},,0,train").clips
    assert (read.utterance.video_id, read.utterance.clip_id) == (video, clip)
    assert read.utterance.id == f"{video}$_${clip}"
    assert read.path == tmp_path / "ds" / "Raw" / video / f"{clip}.mp4"


@pytest.mark.parametrize(
    ("cell", "label"),
    [("-3", -3), ("1.0 ", 1), (" 1.0", 1), ("+2.4", 2.4), (".5", 0.5), ("-1e-3", -0.001)],
)
def test_a_label_is_any_way_of_writing_a_number(mmsa, cell, label):
    assert mmsa(SHORT, f"v,1,,{cell},train").clips[0].utterance.label == label


@pytest.mark.parametrize("cell", ["", "  "])
def test_an_empty_label_is_unknown(mmsa, cell):
    assert math.isnan(mmsa(SHORT, f"v,1,,{cell},train").clips[0].utterance.label)


@pytest.mark.parametrize("text", ["nan", "NA", "null", " ", "1,5", "=1+1", "\u2028"])
def test_a_text_is_taken_as_it_is(mmsa, text):
    assert mmsa(SHORT, f'v,1,"{text}",0,train').clips[0].utterance.text == text


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".MP4", ".avi", ".wav", ".ts", ".opus"])
def test_a_clip_in_another_container_is_found(mmsa, tmp_path, suffix):
    folder = tmp_path / "ds" / "Raw" / "v"
    folder.mkdir(parents=True)
    file = folder / f"1{suffix}"
    file.touch()
    assert mmsa(SHORT, "v,1,,0,train").clips[0].path == file
    (folder / "1.mp4").touch()
    assert mmsa(SHORT, "v,1,,0,train").clips[0].path == folder / "1.mp4"


def test_of_clips_that_differ_in_the_suffix_the_likeliest_is_taken(mmsa, tmp_path):
    folder = tmp_path / "ds" / "Raw" / "v"
    folder.mkdir(parents=True)
    for name in ("1.wav", "1.MKV", "1.txt", "2.WAV", "3.wav", "3.Mp4", "30.mp4"):
        (folder / name).touch()
    clips = mmsa(SHORT, "v,1,,0,train", "v,2,,0,train", "v,3,,0,train").clips
    assert [clip.path.name for clip in clips] == ["1.MKV", "2.WAV", "3.Mp4"]


@pytest.mark.parametrize("clip", ["absent", "x" * 300], ids=["no file", "too long for a file"])
def test_a_missing_media_file_is_no_fault_of_the_table(mmsa, tmp_path, clip):
    (tmp_path / "ds" / "Raw" / "v").mkdir(parents=True)
    (read,) = mmsa(SHORT, f"v,{clip},,0,train").clips
    assert read.path == tmp_path / "ds" / "Raw" / "v" / f"{clip}.mp4"


def test_a_folder_in_the_place_of_a_clip_is_no_clip(mmsa, tmp_path):
    (tmp_path / "ds" / "Raw" / "v" / "1.mp4").mkdir(parents=True)
    (tmp_path / "ds" / "Raw" / "v" / "1.mkv").touch()
    assert mmsa(SHORT, "v,1,,0,train").clips[0].path.suffix == ".mkv"


# ---- Where a data set is looked for.


def test_a_name_is_looked_for_in_data_and_a_root_wins(mmsa, tmp_path, monkeypatch):
    mmsa(SHORT, "v,1,,0,train")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "ds").rename(tmp_path / "data" / "mosi")
    manifest = read_dataset("mosi")
    assert manifest.dataset == "mosi"
    assert manifest.clips[0].path == Path("data/mosi/Raw/v/1.mp4")
    (tmp_path / "data" / "mosi").rename(tmp_path / "elsewhere")
    manifest = read_dataset("mosi", tmp_path / "elsewhere")
    assert manifest.dataset == "mosi"
    assert manifest.clips[0].path == tmp_path / "elsewhere" / "Raw" / "v" / "1.mp4"


@pytest.mark.parametrize("name", [".", "../ds", "../ds/", "./"])
def test_a_folder_names_the_data_set(mmsa, tmp_path, monkeypatch, name):
    mmsa(SHORT, "v,1,,0,train")
    monkeypatch.chdir(tmp_path / "ds")
    assert read_dataset(name).dataset == "ds"


def test_a_link_names_the_data_set_not_what_it_leads_to(mmsa, tmp_path):
    mmsa(SHORT, "v,1,,0,train")
    (tmp_path / "mosi").symlink_to(tmp_path / "ds")
    assert read_dataset(str(tmp_path / "mosi")).dataset == "mosi"


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: read_dataset("mosi"), "data/mosi: no such folder", "label.csv", "with `root`")
    refused(lambda: read_dataset("mosi", tmp_path / "nowhere"), str(tmp_path / "nowhere"))
    refused(lambda: read_dataset("clips.csv"), "clips.csv: no such manifest")
    (tmp_path / "data" / "mosi").mkdir(parents=True)
    told = ("data/mosi: in none of the layouts", "(mmsa: label.csv", SHORT, "cmu-mosei: ")
    refused(lambda: read_dataset("mosi"), *told)


def test_the_first_clips_are_those_of_the_table(mmsa):
    manifest = mmsa(SHORT, "b,1,,0,train", "a,1,,0,train", "c,1,,0,train")
    assert [clip.utterance.video_id for clip in manifest.first(2).clips] == ["b", "a"]
    assert manifest.first(9) == manifest


# ---- CSV manifests.


def test_a_manifest_lists_files_below_its_folder(listed, tmp_path):
    manifest = listed(
        "path,text,label,split",
        "a.mp4,hello,1.5,train",
        "sub/b.c.wav,,,test",
        r"win\d.mkv,,-1,valid",
        "./e.mp4,,0,train",
        "12:30.mp4,,0,train",
        "..f.mp4,,0,train",
        "g,,0,train",
    )
    assert manifest.dataset == "clips"
    assert [clip.path for clip in manifest.clips] == [
        tmp_path / name
        for name in (
            "a.mp4",
            "sub/b.c.wav",
            "win/d.mkv",
            "e.mp4",
            "12:30.mp4",
            "..f.mp4",
            "g",
        )
    ]
    assert [clip.utterance.id for clip in manifest.clips] == [
        "a$_$0",
        "sub/b.c$_$0",
        "win/d$_$0",
        "e$_$0",
        "12:30$_$0",
        "..f$_$0",
        "g$_$0",
    ]
    assert [clip.utterance.split for clip in manifest.clips][:3] == ["train", "test", "valid"]
    assert manifest.clips[0].utterance.text == "hello"
    assert math.isnan(manifest.clips[1].utterance.label)


def test_a_manifest_may_give_ids(listed):
    manifest = listed(
        "clip_id,video_id,path,text,label,split",
        "0001,-x,a.mp4,,0,train",
        ",y,b.mp4,,0,train",
        "7,,c/d.mp4,,0,train",
    )
    assert [clip.utterance.id for clip in manifest.clips] == ["-x$_$0001", "y$_$0", "c/d$_$7"]


def test_a_manifest_s_paths_are_below_the_root_if_one_is_given(listed, tmp_path):
    (clip,) = listed("path,text,label,split", "a.mp4,,0,train", root=tmp_path / "media").clips
    assert clip.path == tmp_path / "media" / "a.mp4"


@pytest.mark.parametrize(
    "path",
    [
        "../a.mp4",
        "a/../../b.mp4",
        r"..\a.mp4",
        r"a\..\..\b.mp4",
        "/etc/passwd",
        r"\windows\a.mp4",
        r"C:\a.mp4",
        "C:a.mp4",
        "c:/a.mp4",
        r"\\server\share\a.mp4",
        "//server/share/a.mp4",
        "..",
    ],
)
def test_a_path_out_of_the_folder_is_refused(listed, tmp_path, path):
    refused(
        lambda: listed("path,text,label,split", "ok.mp4,,0,train", f"{path},,0,train"),
        f"{tmp_path / 'clips.csv'}: row 3: path '{path}' must be relative",
    )


@pytest.mark.parametrize("path", ["", " ", ".", "./", "a/ "])
def test_a_path_that_names_no_file_is_refused(listed, path):
    refused(
        lambda: listed("path,text,label,split", f"{path},x,0,train"),
        f"row 2: path '{path}' is not the name of a file",
    )


# ---- Faults.

FAULTS: dict[str, tuple[list[str | bytes], list[str]]] = {
    "no number": (["v,1,,good,train"], ["label 'good' is no number"]),
    "a decimal comma": (['v,1,,"1,5",train'], ["label '1,5' is no number", "-1.5"]),
    "an underscore in a number": (["v,1,,1_5,train"], ["label '1_5' is no number"]),
    "infinity": (["v,1,,inf,train"], ["label 'inf' must be finite"]),
    "minus infinity": (["v,1,,-Infinity,train"], ["label '-Infinity' must be finite"]),
    "NaN written out": (["v,1,,NaN,train"], ["label 'NaN' must be finite", "leave it empty"]),
    "nan written out": (["v,1,,nan,train"], ["label 'nan' must be finite"]),
    "too large for a float": (["v,1,,1e400,train"], ["label '1e400' must be finite"]),
    "too large for a float32": (["v,1,,1e39,train"], ["label '1e39' must be finite"]),
    "dev": (["v,1,,0,dev"], ["split 'dev' must be one of train, valid, test"]),
    "a capital": (["v,1,,0,Train"], ["split 'Train'"]),
    "no split": (["v,1,,0,"], ["split ''"]),
    "an id twice": (["u,1,,0,train"], ["'u$_$1' is already in row 3"]),
    "one id from two pairs": (["a$_$b,c,,0,train"], ["'a$_$b$_$c' is already in row 5"]),
    "two dots": (["..,1,,0,train"], ["video_id '..' is not the name"]),
    "two dots for a clip": (["v,..,,0,train"], ["clip_id '..' is not the name"]),
    "a dot": ([".,1,,0,train"], ["video_id '.'"]),
    "dots and spaces": ([".. ,1,,0,train"], ["video_id '.. '"]),
    "a separator": (["a/b,1,,0,train"], ["video_id 'a/b'"]),
    "a separator at the end": (["v,1/,,0,train"], ["clip_id '1/'"]),
    "a way up": (["v,../../x,,0,train"], ["clip_id '../../x'"]),
    "an absolute path": (["/etc,passwd,,0,train"], ["video_id '/etc'"]),
    "a backslash": ([r"v,..\x,,0,train"], [r"clip_id '..\x'"]),
    "a drive": (["C:,1,,0,train"], ["video_id 'C:'"]),
    "a path on a drive": (["v,C:x,,0,train"], ["clip_id 'C:x'"]),
    "no video id": ([",1,,0,train"], ["video_id ''"]),
    "a blank clip id": (["v, ,,0,train"], ["clip_id ' '"]),
    "an unquoted comma": (["v,1,yes, but,0,train"], ["6 cells", "5", "quote cells"]),
    "a cell too few": (["v,1,,0"], ["4 cells", "header of 5"]),
    "a quote never closed": (['v,1,"so,0,train', "w,1,,0,train"], ["not CSV", "its quotes"]),
    "letters after a quote": (['v,1,"so" it goes,0,train'], ["not CSV", "its quotes"]),
    "Latin-1": ([b"v,1,caf\xe9,0,train"], ["not UTF-8", "save it in UTF-8"]),
    "a huge cell": (["v,1," + "x" * 200_000 + ",0,train"], ["not CSV", "field"]),
}


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(("rows", "words"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_shown_with_the_row_that_an_editor_shows(mmsa, tmp_path, rows, words, end):
    text = f'"three{end}lines{end}of text"'
    above = ["", SHORT, "u,1,,0,train", "", "a,b$_$c,,0,train", f"w,1,{text},0,test", ""]  # 1 to 9
    table = tmp_path / "ds" / "label.csv"
    refused(lambda: mmsa(*above, *rows, end=end), f"{table}: row 10: ", *words)


def test_the_first_fault_is_shown_and_the_others_are_counted(mmsa):
    rows = ["v,1,,x,train", "v,2,,0,train", "v,3,,0,dev", "v,4,,0"]
    refused(lambda: mmsa(SHORT, *rows), "row 2: label 'x'", "(and 2 more faulty rows)")


@pytest.mark.parametrize("column", SHORT.split(","))
def test_a_missing_column_is_named_with_those_there_are(mmsa, column):
    header = MOSI.replace("mode", "fold") if column == "mode" else SHORT.replace(column, "other")
    refused(lambda: mmsa(header, "1,2,3,4,5"), f"label.csv: no column '{column}'", "there are")


def test_a_column_twice_is_refused(mmsa):
    refused(lambda: mmsa(f"{SHORT},label", "v,1,,0,train,1"), "two columns 'label'")


def test_a_table_with_colons_shows_its_header(mmsa):
    refused(lambda: mmsa(SHORT.replace(",", ":"), "v:1::0:train"), "there are video_id:clip_id")


def test_an_empty_table_is_refused(mmsa):
    refused(mmsa, "label.csv: no column 'video_id'; there are none")
    refused(lambda: mmsa("", " "), "no column 'video_id'; there are none")
    refused(lambda: mmsa(SHORT), "label.csv: no rows under the header")
    refused(lambda: mmsa(SHORT, "", ",,,,"), "label.csv: no rows under the header")


def test_a_spreadsheet_in_the_place_of_a_table_is_refused(mmsa, tmp_path):
    refused(lambda: mmsa(b"PK\x03\x04\x14\x00\xff\xfe"), "label.csv: is a damaged ZIP archive")


def test_a_table_that_may_not_be_read_is_refused(mmsa, monkeypatch):
    def forbidden(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    refused(lambda: mmsa(SHORT, "v,1,,0,train"), "label.csv: cannot be read (Permission denied)")


# ---- Whatever a table holds.


def csv_of(*rows: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
names = cells | st.text("./\\: aC~", max_size=6)


def only_clip(name: str) -> Clip | None:
    """The one clip of a table, or None where the table is refused."""
    try:
        (clip,) = read_dataset(name).clips
    except TableError:
        return None
    return clip


@settings(deadline=None, max_examples=200)
@given(video=names, clip=names)
def test_no_id_leads_out_of_raw(video, clip):
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "label.csv"
        content = csv_of(SHORT.split(","), [video, clip, "", "0", "train"])
        table.write_text(content, encoding="utf-8", newline="")
        read, raw = only_clip(folder), Path(folder) / "Raw"
    if read is None:
        return
    assert (read.utterance.video_id, read.utterance.clip_id) == (video, clip)
    assert os.path.normpath(read.path) == str(read.path)
    assert read.path.parent.parent == raw
    on_windows = PureWindowsPath("D:/Raw") / video / f"{clip}.mp4"
    assert on_windows.parent.parent == PureWindowsPath("D:/Raw")


@settings(deadline=None, max_examples=200)
@given(path=names)
def test_no_path_leads_out_of_the_manifest_s_folder(path):
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "clips.csv"
        content = csv_of(["path", "text", "label", "split"], [path, "", "", "test"])
        table.write_text(content, encoding="utf-8", newline="")
        read = only_clip(str(table))
    if read is not None:
        assert Path(os.path.normpath(read.path)).is_relative_to(folder)
        assert read.path != Path(folder)


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(
        st.tuples(
            cells,
            st.floats(-3, 3) | st.just(math.nan),
            st.sampled_from(["train", "valid", "test"]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_a_csv_writer_writes_is_what_is_read(rows):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "label.csv").write_text(
            csv_of(
                SHORT.split(","),
                *(
                    ["v", str(number), text, "" if math.isnan(label) else repr(label), split]
                    for number, (text, label, split) in enumerate(rows)
                ),
            ),
            encoding="utf-8",
            newline="",
        )
        clips = read_dataset(folder).clips
    assert [
        (clip.utterance.text, repr(clip.utterance.label), clip.utterance.split) for clip in clips
    ] == [(text, repr(label), split) for text, label, split in rows]
