"""A video to utterances: what is said in it, and where it is cut."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clipmsa.cache import Utterance
from clipmsa.cache.errors import MediaError

from .clips import Clip
from .tables import MEDIA_SUFFIXES

WORDS = (".txt",)  # files beside a video that say what is said in it


@dataclass(frozen=True)
class Script:
    """Where the words of a video come from; else from a file of its name that ends in .txt."""

    text: str | None = None  # all that is said in the video


def utterances(video: Path, script: Script) -> list[Clip]:
    """The utterances of a video, in their order."""
    text = script.text
    beside = video.with_suffix(".txt")
    if text is None and beside.is_file():
        text = beside.read_text(encoding="utf-8-sig")
    return [whole(video, text or "")]


def whole(video: Path, text: str = "") -> Clip:
    """A video as one utterance."""
    return Clip(Utterance(video.stem, "0", "test", math.nan, " ".join(text.split())), video)


def find_videos(names: Iterable[str]) -> list[Path]:
    """Files, the media files of folders and of those below them, and what patterns match.

    Files of words among them, as when a shell puts in all that a folder holds, are left out.

    Raises:
        MediaError: there is no such file or folder, or no media file in it.
    """
    named = [name for name in names if Path(name).suffix.lower() not in WORDS]
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
