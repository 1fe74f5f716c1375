"""A video to utterances: where it is cut, and what is said in each piece."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipmsa.cache import Utterance
from clipmsa.cache.errors import MediaError

from . import media
from .clips import Clip
from .pauses import spoken_spans
from .subtitles import Cue, read_subtitles, read_words
from .tables import MEDIA_SUFFIXES

if TYPE_CHECKING:
    from .transcribe import Transcriber

SIDECARS = (".srt", ".vtt", ".txt")  # beside a video and of its name: what is said in it


@dataclass(frozen=True)
class Script:
    """Where the words of videos come from; else from a sidecar, and without one there are none."""

    text: str | None = None  # all that is said in the video, which is one utterance then
    cues: Sequence[Cue] | None = None  # of the video's subtitles, an utterance each
    transcriber: Transcriber | None = None  # hears them; whoever uses the clips asks it to
    longest: float = 20.0  # seconds of an utterance, where a video without either is cut


def utterances(video: Path, script: Script) -> list[Clip]:
    """The utterances of a video, in their order.

    It is cut at its cues; or, if it has none and is longer than one utterance, at its pauses.

    Raises:
        MediaError: the video cannot be decoded.
        SubtitleError: its sidecar cannot be read.
    """
    text, cues = script.text, script.cues
    if text is None and cues is None and script.transcriber is None:
        beside = next(filter(Path.is_file, map(video.with_suffix, SIDECARS)), None)
        if beside is not None and beside.suffix == ".txt":
            text = read_words(beside)
        elif beside is not None:
            cues = read_subtitles(beside)
    if cues is None and text is None:
        duration = media.probe(video).duration
        if duration > script.longest:
            spans = spoken_spans(video, duration, script.longest)
            cues = [Cue(start, end, "") for start, end in spans]
    if cues is None:
        return [whole(video, text or "")]
    return [
        Clip(Utterance(video.stem, str(i), "test", math.nan, text, start=start, end=end), video)
        for i, (start, end, text) in enumerate(cues)
    ]


def whole(video: Path, text: str = "") -> Clip:
    """A video as one utterance."""
    return Clip(Utterance(video.stem, "0", "test", math.nan, " ".join(text.split())), video)


def find_videos(names: Iterable[str]) -> list[Path]:
    """Files, the media files of folders and of those below them, and what patterns match.

    Files of words among them, as when a shell puts in all that a folder holds, are left out.

    Raises:
        MediaError: there is no such file or folder, or no media file in it.
    """
    named = [name for name in names if Path(name).suffix.lower() not in SIDECARS]
    if not named:
        raise MediaError("only files of words are named; name the videos")
    return [video for name in named for video in _videos(name)]


def _videos(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(_media_files(path))
    else:
        if not glob.has_magic(name):
            raise MediaError(f"{name}: no such file or folder")
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207, Path's takes no absolute
        found = [Path(match) for match in matches if Path(match).suffix.lower() in MEDIA_SUFFIXES]
    if not found:
        raise MediaError(f"{name}: no video or sound there; looked for {', '.join(MEDIA_SUFFIXES)}")
    return found


def _media_files(folder: Path) -> Iterator[Path]:
    for parent, _, files in os.walk(folder):
        for file in files:
            if Path(file).suffix.lower() in MEDIA_SUFFIXES and not file.startswith("."):
                yield Path(parent) / file
