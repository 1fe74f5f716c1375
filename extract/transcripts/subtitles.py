"""Subtitles to cues: what is said from when to when. SubRip, WebVTT, and SubStation (ASS, SSA).

The first two are read here, line by line, because no library keeps every word of what people have:
webvtt-py loses those after a blank line, pysubs2 a number in the last line, what stands between
signs < and >, and lines that hold two times, and it takes notes and names of cues for speech.
Here a line either is one of those the formats know (times, numbers, notes), or it is words.
"""

from __future__ import annotations

import html
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pysubs2

from clipmsa.cache.errors import SubtitleError
from clipmsa.cache.texts import read_text

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")  # each may hold any of the formats
_EXPECTED = "subtitles (SubRip, WebVTT or SubStation)"

_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
# Meant as times, and not readable as such: a letter among the digits, an arrow of one dash.
_CLOCK = r"(?:\d+:)?\d+:\d+[.,]\d+"
_NO_TIMES = re.compile(rf"\d+:\d.*-->|{_CLOCK}\W{{1,9}}{_CLOCK}$")
_NOT_SAID = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")  # of WebVTT: a block up to a blank line

# Every pattern stops at the next sign that opens, so that none looks twice at what it passed over.
_TAGS = re.compile(
    r"</?(?:[bciusv]|rt|ruby|lang|font|span)(?:\.[^<>\s]*)?/?>"  # <i>, </c>, <c.loud>
    r"|<(?:[cv]|lang|font|span)(?:\.[^<>\s]*)?\s[^<>]*>"  # <v Ann>, <font color="red">
    r"|<(?:\d{1,4}:)?\d\d?:\d\d?[.,]\d{1,3}>"  # when a word is said
    r"|(?<!\\)\{(?:\\[^{}]*)?\}",  # {\an8}: SubRip borrows such marks from SubStation
    re.IGNORECASE,
)
_BREAKS = re.compile(r"<br ?/?>", re.IGNORECASE)
_OVERRIDES = re.compile(r"(?<!\\)\{([^{}]*)\}")  # and comments, in SubStation
_DRAWING = re.compile(r"\\p(\d)")
_FIELDS = 10  # of a dialogue
_QUOTED = 60  # letters of a cue, in a message

_FLASH_SECONDS = 0.05  # a cue this short is not for reading
_GAP_SECONDS = 0.1  # nothing rolls on after a longer pause
_FEWEST_ROLLS = 3
_MOST_ROWS = 4  # of captions that roll


class Cue(NamedTuple):
    """A piece of a transcript; times are seconds on the file's clock."""

    start: float
    end: float
    text: str


class Subtitles(NamedTuple):
    """Cues in the order of their times, those without words left out."""

    cues: list[Cue]
    faults: list[str]  # cues that cannot be read and are not among them; each names file and line


@dataclass
class Shown:
    """A cue as it stands in a file; `fault` says why it cannot be read."""

    place: str = ""  # where, in words
    start: float = 0.0
    end: float = 0.0
    fault: str = ""
    lines: list[str] = field(default_factory=list)


def read_subtitles(path: Path) -> Subtitles:
    """The cues of a subtitle file. The format is told from what is in it, not from its name.

    Marks of layout and speakers go, and so do line breaks: what is left is what is said. Of
    captions that roll, where a cue repeats the lines above, each line is kept once.

    Raises:
        SubtitleError: not such a file, in an unknown encoding, or without a cue that can be read.
    """
    lines = read_lines(path, _EXPECTED)
    substation = any(line.startswith("[Script Info]") for line in lines)
    shown = [*(_substation(lines) if substation else _timed(lines))]
    found = subtitles(shown, str(path))
    if not found.cues:
        times = any(not cue.fault for cue in shown)
        why = "no cue with words in it" if times else f"not {_EXPECTED}, holds no times of a cue"
        first = f" ({found.faults[0].removeprefix(f'{path}: ')})" if found.faults else ""
        raise SubtitleError(f"{path}: {why}{first}")
    return found


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a text file, whatever their ends.

    Raises:
        SubtitleError: it cannot be read, or is no text.
    """
    text = read_text(path, SubtitleError, expected)
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def subtitles(shown: Iterable[Shown], source: str) -> Subtitles:
    """What is said in cues that hold plain lines, in the order of their times.

    `source` is named in the faults.
    """
    spoken, faults = [], []
    for cue in shown:
        cue.lines = [" ".join(line.split()) for line in cue.lines if line.strip()]
        if not cue.lines:
            continue
        if not cue.fault and cue.end <= cue.start:
            cue.fault = f"ends at {cue.end:g} s and starts at {cue.start:g} s"
        if cue.fault:
            said = " ".join(cue.lines)
            said = said if len(said) <= _QUOTED else f"{said[:_QUOTED]}..."
            faults.append(f"{source}: left out '{said}', whose cue at {cue.place} {cue.fault}")
        else:
            spoken.append(cue)
    spoken.sort(key=lambda cue: (cue.start, cue.end))
    _unroll(spoken)
    cues = [Cue(cue.start, cue.end, " ".join(cue.lines)) for cue in spoken if cue.lines]
    return Subtitles(cues, faults)


def plain(text: str) -> str:
    """What is said in a line of SubRip or WebVTT."""
    return html.unescape(_TAGS.sub("", _BREAKS.sub(" ", text)))


def plain_substation(text: str) -> str:
    """What is said in a dialogue of SubStation, line by line; its drawings are no words."""
    said, drawing = [], False
    for place, part in enumerate(_OVERRIDES.split(text)):
        if place % 2:
            scales = _DRAWING.findall(part)
            drawing = scales[-1] != "0" if scales else drawing
        elif not drawing:
            said.append(part)
    text = "".join(said).replace("\\N", "\n").replace("\\n", "\n")
    return text.replace("\\h", " ").replace("\\{", "{")


def _timed(lines: list[str]) -> Iterator[Shown]:
    """The cues of SubRip or WebVTT; those without times hold words that would else be lost."""
    first = next((line for line in lines if line.strip()), "")
    webvtt = first.startswith("WEBVTT")
    cue = Shown(fault="has no times above it")
    skipping = webvtt  # its header
    above = twice_above = ""
    for number, line in enumerate(map(str.strip, lines), 1):
        times = _TIMES.fullmatch(line) if "-->" in line else None
        if times or _NO_TIMES.match(line):
            named = above.isdecimal() or (webvtt and above and not twice_above)
            if named and cue.lines and not skipping:
                cue.lines.pop()  # the number or name of the cue that begins here
            yield cue
            cue, skipping = _cue(number, times), False
        elif not line:
            skipping = False
        elif webvtt and not above and _NOT_SAID.match(line):
            skipping = True
        elif not skipping:
            cue.place = cue.place or f"line {number}"
            cue.lines.append(plain(line))
        above, twice_above = line, above
    yield cue


def _cue(number: int, times: re.Match[str] | None) -> Shown:
    if times is None:
        return Shown(f"line {number}", fault="has times that cannot be read")
    groups = times.groups()
    return Shown(f"line {number}", _seconds(*groups[:4]), _seconds(*groups[4:]))


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return whole + int((fraction or "0").ljust(3, "0")) / 1000


def _substation(lines: list[str]) -> Iterator[Shown]:
    """The dialogues of ASS or SSA; comments and styles are not said."""
    for number, line in enumerate(lines, 1):
        if not line.startswith("Dialogue:"):
            continue
        cue = Shown(f"line {number}")
        try:
            with warnings.catch_warnings(action="ignore"):  # of margins and layers
                (event,) = pysubs2.SSAFile.from_string(line, "ass")
        except ValueError:
            cue.fault, event = "has times that cannot be read", None
        if event is None or line.count(",") < _FIELDS - 1:
            cue.fault = cue.fault or f"has less than {_FIELDS} fields"
            cue.lines = [line]
        else:
            cue.start, cue.end = event.start / 1000, event.end / 1000
            cue.lines = plain_substation(event.text).split("\n")
        yield cue


def _unroll(cues: list[Shown]) -> None:
    """Take out what a cue repeats of the one above, where captions roll up line by line.

    As YouTube's do, with a flash of each line between two cues, and those of live television.
    People who say a thing twice are left alone: their repetitions bring nothing new below them.
    """
    pairs = list(itertools.pairwise(cues))
    repeats = [_repeated(above, cue) for above, cue in pairs]
    flashes = [
        count == len(cue.lines) and cue.end - cue.start <= _FLASH_SECONDS
        for count, (_, cue) in zip(repeats, pairs, strict=True)
    ]
    rolls = [0 < n < len(cue.lines) for n, (_, cue) in zip(repeats, pairs, strict=True)]
    if not any(flashes) and not (sum(rolls) >= _FEWEST_ROLLS and 2 * sum(rolls) >= len(pairs)):
        return
    for count, flash, roll, (_, cue) in zip(repeats, flashes, rolls, pairs, strict=True):
        if flash or roll:
            cue.lines = cue.lines[count:]


def _repeated(above: Shown, cue: Shown) -> int:
    """How many of the cue's first lines are the last ones of the cue above."""
    if cue.start - above.end > _GAP_SECONDS:
        return 0
    most = min(len(above.lines), len(cue.lines), _MOST_ROWS)
    return next((n for n in range(most, 0, -1) if above.lines[-n:] == cue.lines[:n]), 0)
