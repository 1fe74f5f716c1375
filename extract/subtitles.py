"""Subtitle files, SubRip and WebVTT, to cues: what is said from when to when."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path
from typing import NamedTuple

import webvtt
from webvtt.errors import MalformedCaptionError, MalformedFileError

from clipmsa.cache.errors import SubtitleError

FORMATS = {".srt": "srt", ".vtt": "vtt"}  # by suffix, as the parser calls them
_NAMES = {"srt": "SubRip", "vtt": "WebVTT"}
# Where on the screen, which colour: SubRip borrows such marks from other formats.
_MARKS = re.compile(r"\{\\[^}]*\}")
_TIMES_AND_WORDS = re.compile(r"-->.*\n *\S")  # the start of a cue that is not empty


class Cue(NamedTuple):
    """A piece of a transcript; times are seconds on the file's clock."""

    start: float
    end: float
    text: str


def read_subtitles(path: Path) -> list[Cue]:
    """The cues of a subtitle file, in the order of their times; those without words left out.

    Marks of layout and speakers go, and so do line breaks: what is left is what is said.

    Raises:
        SubtitleError: not such a file, not UTF-8, a cue that is malformed, or none at all.
    """
    format_ = FORMATS.get(path.suffix.lower())
    if format_ is None:
        raise SubtitleError(f"{path}: not a kind of subtitles known here; give .srt or .vtt")
    text = read_words(path)
    try:
        captions = webvtt.from_buffer(io.StringIO(text.strip("\n")), format_).captions
    except (MalformedFileError, MalformedCaptionError) as error:
        raise SubtitleError(f"{path}: not {_NAMES[format_]} as it should be ({error})") from None
    # The parser passes over what it cannot read. Words that vanish would change scores in silence.
    written = len(_TIMES_AND_WORDS.findall(text))
    if len(captions) < written:
        raise SubtitleError(
            f"{path}: {written} cues, and the times of {written - len(captions)} cannot be read; "
            f"correct them"
        )
    cues = []
    for caption in captions:
        start, end = (t.in_milliseconds() / 1000 for t in (caption.start_time, caption.end_time))
        if end <= start:
            raise SubtitleError(
                f"{path}: the cue at {caption.start} ends at {caption.end}, before it starts"
            )
        words = html.unescape(_MARKS.sub("", caption.text)).split()
        if words:
            cues.append(Cue(start, end, " ".join(words)))
    if not cues:
        raise SubtitleError(f"{path}: no cue with words in it")
    return sorted(cues)


def read_words(path: Path) -> str:
    """A text file as it is, with the line ends of Unix.

    Raises:
        SubtitleError: it cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SubtitleError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SubtitleError(f"{path}: line {line} is not UTF-8; save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
