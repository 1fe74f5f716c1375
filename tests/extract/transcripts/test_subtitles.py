"""Subtitle files: every word is kept, said once, and what cannot be read is told."""

from __future__ import annotations

import contextlib
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmsa.cache.errors import SubtitleError
from clipmsa.extract.transcripts.subtitles import Cue, Subtitles, read_subtitles

SRT = """1
00:00:01,000 --> 00:00:02,500
It was <i>not</i> what I
hoped for.

2
00:00:03,250 --> 00:00:04,000
{\\an8}The ending though!
"""
VTT = """WEBVTT - a talk
Kind: captions

STYLE
::cue { color: red }

NOTE made by hand

intro
00:01.000 --> 00:02.500 align:start position:0%
<v Ann>It was <i>not</i> what I
<00:00:02.000><c.loud>hoped for.</c>

NOTE
not said

outro
00:00:03.250 --> 00:00:04.000
The ending though!
"""
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,not said
Dialogue: 0,0:00:01.00,0:00:02.50,Default,Ann,0,0,0,,It was {\\i1}not{\\i0} what I\\Nhoped for.
Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}
Dialogue: 0,0:00:03.25,0:00:04.00,Default,,0,0,0,,{\\an8}The ending though!
"""
CUES = [Cue(1.0, 2.5, "It was not what I hoped for."), Cue(3.25, 4.0, "The ending though!")]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def said(path: Path, text: str) -> list[str]:
    """What is said in each cue of a file all of which can be read."""
    cues, faults = read_subtitles(write(path, text))
    assert faults == []
    return [cue.text for cue in cues]


@pytest.mark.parametrize("text", [SRT, VTT, ASS], ids=["SubRip", "WebVTT", "SubStation"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_cues_hold_what_is_said_and_when(tmp_path, text, encoding, end):
    """Whatever saved the file, and whatever its name says of the format."""
    file = write(tmp_path / "a.srt", text.replace("\n", end), encoding)
    assert read_subtitles(file) == Subtitles(CUES, [])


IN_A_CUE = {
    "a blank line before": ("\nabsolutely terrible", "absolutely terrible"),
    "a blank line within": ("not bad\n\nbut boring", "not bad but boring"),
    "an arrow": ("from good --> bad", "from good --> bad"),
    "an arrow on the second line": ("from good\nto --> bad", "from good to --> bad"),
    "signs": ("I <3 it -> go & see", "I <3 it -> go & see"),
    "less and greater": ("a < b and c > d", "a < b and c > d"),
    "a number at the end": ("born in\n1984", "born in 1984"),
    "a number alone": ("1984", "1984"),
    "two times": ("from 00:01:02.000 to 00:01:03.000", "from 00:01:02.000 to 00:01:03.000"),
    "a score": ("3:10 - 4:20", "3:10 - 4:20"),
    "braces": ("{laughs} well", "{laughs} well"),
    "a path": (r"C:\new\Notes", r"C:\new\Notes"),
    "names of signs": ("Fish &amp; chips &lt;3", "Fish & chips <3"),
    "a break": ("one<br>two<br/>three", "one two three"),
    "a colour": ('<font color="red">red</font> <u>line</u>', "red line"),
    "an unknown tag": ("I <heart> it", "I <heart> it"),
    "a time in a word": ("quick<00:00:00.300>ly <00:00.700>done", "quickly done"),
}


@pytest.mark.parametrize("last", [False, True], ids=["between", "last"])
@pytest.mark.parametrize("format_", ["srt", "vtt"])
@pytest.mark.parametrize(("lines", "words"), IN_A_CUE.values(), ids=IN_A_CUE)
def test_every_word_of_a_cue_is_kept(tmp_path, format_, lines, words, last):
    head, number = ("", "{}\n") if format_ == "srt" else ("WEBVTT\n\n", "")
    texts = ["the first cue", lines] + ["the last cue"] * (not last)
    cues = (
        f"{number.format(i)}00:00:0{i}.000 --> 00:00:0{i + 1}.000\n{text}\n"
        for i, text in enumerate(texts, 1)
    )
    expected = ["the first cue", words] + ["the last cue"] * (not last)
    assert said(tmp_path / f"a.{format_}", head + "\n".join(cues)) == expected


ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.000 --> 00:00:00.900 align:start position:0%
{blank}
the<00:00:00.300><c> quick</c><00:00:00.600><c> red</c>

00:00:00.900 --> 00:00:00.910 align:start position:0%
the quick red
{blank}

00:00:00.910 --> 00:00:02.000 align:start position:0%
the quick red
brown<00:00:01.300><c> fox</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
brown fox
{blank}

00:00:02.010 --> 00:00:03.000 align:start position:0%
brown fox
brown<00:00:02.500><c> fox</c>
""".replace("{blank}", " ")


def test_of_captions_that_roll_each_line_is_said_once(tmp_path):
    cues = read_subtitles(write(tmp_path / "a.vtt", ROLLING)).cues
    assert [cue.text for cue in cues] == ["the quick red", "brown fox", "brown fox"]  # said twice
    assert [cue.start for cue in cues] == [0.0, 0.91, 2.01]


def test_captions_of_television_roll_without_flashes(tmp_path):
    rows = ["one", "two", "three", "four", "five"]
    cues = [
        f"{i}\n00:00:0{i},000 --> 00:00:0{i + 1},000\n" + "\n".join(rows[max(0, i - 2) : i + 1])
        for i in range(5)
    ]
    assert said(tmp_path / "a.srt", "\n\n".join(cues)) == rows


def test_people_who_repeat_themselves_are_left_alone(tmp_path):
    cues = [f"00:0{i}.000 --> 00:0{i + 1}.000\nNo.\n" for i in range(5)]
    assert said(tmp_path / "a.vtt", "WEBVTT\n\n" + "\n".join(cues)) == ["No."] * 5


@pytest.mark.parametrize("note", ["NOTE not said\n\n", "NOTE\nnot said\n", "name\n", "NOTE\n7\n"])
def test_notes_and_names_between_cues_are_not_said_and_take_no_words_along(tmp_path, note):
    first, last = (f"00:0{i}.000 --> 00:0{i + 1}.000\n{word}\n\n" for i, word in enumerate("ab"))
    assert said(tmp_path / "a.vtt", f"WEBVTT\n\n{first}{note}{last}") == ["a", "b"]


def test_cues_come_in_order_and_those_without_words_do_not(tmp_path):
    first, second = SRT.split("\n\n")
    wordless = "3\n00:00:05,000 --> 00:00:06,000\n \n"
    text = f"{second}\n\n{wordless}\n{first}\n"
    assert read_subtitles(write(tmp_path / "a.srt", text)) == Subtitles(CUES, [])


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("00:00:03,250 -->", "00:00:0x,250 -->", "line 7 has times that cannot be read"),
        ("03,250 --> 00", "03,250 -> 00", "line 7 has times that cannot be read"),
        ("00:00:04,000", "00:00:00,500", "line 7 ends at 0.5 s and starts at 3.25 s"),
        ("00:00:04,000", "00:00:03,250", "line 7 ends at 3.25 s and starts at 3.25 s"),
    ],
)
def test_a_cue_that_cannot_be_read_is_told_and_the_others_are_kept(tmp_path, old, new, fault):
    path = write(tmp_path / "a.srt", SRT.replace(old, new))
    cues, (told,) = read_subtitles(path)
    assert cues == CUES[:1]
    assert told == f"{path}: left out 'The ending though!', whose cue at {fault}"


def test_words_above_the_first_times_are_told(tmp_path):
    cues, (told,) = read_subtitles(write(tmp_path / "a.srt", f"A fine film.\n\n{SRT}"))
    assert cues == CUES
    assert "left out 'A fine film.', whose cue at line 1 has no times above it" in told


@pytest.mark.parametrize(
    "line", ["0:00:xx.25,0:00:04.00,Default,,0,0,0,,words", "0:00:03.25,words"]
)
def test_a_dialogue_that_cannot_be_read_is_told(tmp_path, line):
    cues, (told,) = read_subtitles(write(tmp_path / "a.ass", f"{ASS}Dialogue: 0,{line}\n"))
    assert cues == CUES
    assert "words" in told
    assert f"line {len(ASS.splitlines()) + 1}" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not subtitles", "not subtitles .* holds no times of a cue .*'not subtitles'"),
        ("", "not subtitles .* holds no times"),
        ("WEBVTT\n\nNOTE nothing\n", "not subtitles .* holds no times"),
        ("1\n00:00:01,000 --> 00:00:02,000\n \n", "no cue with words"),
        (SRT.replace("00:00", "00:0x"), "holds no times of a cue .*cannot be read"),
        ("[Script Info]\n", "holds no times"),
    ],
)
def test_a_file_without_any_cue_is_refused(tmp_path, text, message):
    path = write(tmp_path / "a.srt", text)
    with pytest.raises(SubtitleError, match=message) as caught:
        read_subtitles(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_subtitles_in_another_encoding_name_the_line(tmp_path):
    file = write(tmp_path / "a.srt", SRT.replace("not", "été"), "latin-1")
    with pytest.raises(SubtitleError, match=r"line 3: not UTF-8"):
        read_subtitles(file)


# ---- Whatever a file holds.

TIMES = "00:00:01,000 --> 00:00:02,000"
DIALOGUE = "[Script Info]\nDialogue: 0,0:00:01.00,0:00:02.00,,,,,,,"
LONG = {
    "arrows": f"1\n{TIMES}\nhello\n\n" + "-->" * 100_000,
    "arrows on lines": f"1\n{TIMES}\nhello\n\n" + ("-->\n" + " " * 99) * 3000,
    "marks": f"1\n{TIMES}\n" + "{\\" * 100_000,
    "closed marks": DIALOGUE + "{\\p1}" * 50_000 + "x",
    "marks of SubStation": DIALOGUE + "{\\p1" * 50_000,
    "signs": f"1\n{TIMES}\n" + "<" * 100_000,
    "voices": f"1\n{TIMES}\n" + "<v a" * 50_000,
    "fonts": f"1\n{TIMES}\n" + "<font " * 50_000 + " " * 100_000,
    "numbers": "1\n" + "9" * 100_000 + f":{TIMES}\nx\n",
    "spaces": "1\n00:00:01,000" + " " * 100_000 + "--> x\nx\n",
    "spaces between times": "1:1.1" + " " * 100_000 + "1:1.x",
    "blank lines": "\n" * 300_000 + f"1\n{TIMES}\nhello\n",
    "blank lines in a cue": f"1\n{TIMES}\na" + "\n" * 300_000 + "b",
    "names of signs": f"1\n{TIMES}\n" + "&" * 100_000,
    "rolling": "\n".join(f"{TIMES}\n" + "a\n" * 500 for _ in range(200)),
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_long_file_takes_time_in_proportion(tmp_path, text):
    """In quadratic time each of these would take minutes to hours."""
    with contextlib.suppress(SubtitleError):
        read_subtitles(write(tmp_path / "a.vtt", text))


word = st.text(
    st.characters(categories=["L", "N", "P", "S"], exclude_characters="<>{}&\\"), min_size=1
)
line = st.lists(word, min_size=1, max_size=4).map(" ".join)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(line, min_size=1, max_size=3), min_size=1, max_size=5), st.booleans())
def test_no_word_of_any_cue_is_lost(texts, webvtt):
    head, blank = ("WEBVTT\n\n", "\n") if webvtt else ("", "")
    written = head + "\n".join(
        f"{i}\n00:00:{2 * i:02}.000 --> 00:00:{2 * i + 1:02}.000\n"
        + "\n".join(lines)
        + "\n"
        + blank
        for i, lines in enumerate(texts)
    )
    with tempfile.TemporaryDirectory() as folder:
        cues, faults = read_subtitles(write(Path(folder) / "a.vtt", written))
    read = " ".join([cue.text for cue in cues] + faults).split()
    assert [w for lines in texts for w in " ".join(lines).split() if w not in read] == []
    if not faults:
        assert [cue.text for cue in cues] == [" ".join(" ".join(lines).split()) for lines in texts]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([SRT, VTT, ASS, ROLLING]), st.integers(0, 2**32), st.binary(max_size=8))
def test_a_damaged_file_gives_cues_or_an_error_that_names_it(text, seed, junk):
    draw = random.Random(seed)
    content = bytearray(text.encode(draw.choice(["utf-8", "utf-16", "utf-8-sig"])))
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(content))
        content[place : place + draw.choice([0, 1, 40])] = junk
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.srt"
        path.write_bytes(content)
        try:
            cues, faults = read_subtitles(path)
        except SubtitleError as error:
            cues, faults = [], [str(error)]
    assert all(cue.start < cue.end and cue.text.strip() for cue in cues)
    assert all(fault.startswith(str(path)) for fault in faults)
