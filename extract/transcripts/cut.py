"""Videos to utterances: where they are cut, what is said in each piece, and a table of them all."""

from __future__ import annotations

import glob
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipmsa.cache import Utterance
from clipmsa.cache.errors import MediaError, SubtitleError, TableError
from clipmsa.cache.spec import SPLITS
from clipmsa.cache.texts import read_text
from clipmsa.extract import media
from clipmsa.extract.datasets.clips import Clip
from clipmsa.extract.datasets.folds import drawn_folds
from clipmsa.extract.datasets.mmsa_layout import video_id
from clipmsa.extract.datasets.tables import MEDIA_SUFFIXES, is_media

from . import subtitles
from .pauses import spoken_spans
from .subtitles import Cue, Subtitles, read_subtitles
from .tracks import read_track

if TYPE_CHECKING:
    from .transcriber import Transcriber

# Beside a video and of its name: what is said in it.
SIDECARS = (*subtitles.SUFFIXES, ".txt")
# What may stand between that name and the suffix, as in talk.en.srt or talk.pt-BR.sdh.vtt.
_LANGUAGE = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{2,8})*(?:\.(?:sdh|cc|hi))?", re.IGNORECASE)
_ENGLISH = ("en", "eng")  # what the shipped encoders of text know


@dataclass(frozen=True)
class Script:
    """Where the words of videos come from; else from a sidecar, and without one there are none."""

    text: str | None = None  # all that is said in the video, which is one utterance then
    subtitles: Subtitles | None = None  # of the video, an utterance a cue
    transcriber: Transcriber | None = None  # hears them; whoever uses the clips asks it to
    longest: float = 20.0  # seconds of an utterance, where a video without either is cut


class Pieces(NamedTuple):
    """A video's utterances in their order, and what its subtitles hold that is not among them."""

    clips: list[Clip]
    faults: list[str]


def utterances(video: Path, script: Script) -> Pieces:
    """Cut a video at its cues; or, if it has none and is longer than one utterance, at its pauses.

    Without a script, the words are those of the file beside it (`sidecar`), or of a track of
    subtitles inside it.

    Raises:
        MediaError: the video cannot be decoded.
        SubtitleError: its sidecar cannot be read.
    """
    text, found = script.text, script.subtitles
    if text is None and found is None and script.transcriber is None:
        beside = sidecar(video)
        if beside is None:
            found = read_track(video)
        elif beside.suffix.lower() == ".txt":
            text = read_text(beside, SubtitleError, "a text")
        else:
            found = read_subtitles(beside)
    cues = found.cues or None if found is not None else None
    if cues is None and text is None:
        duration = media.probe(video).duration
        if duration > script.longest:
            spans = spoken_spans(video, duration, script.longest)
            cues = [Cue(start, end, "") for start, end in spans]
    faults = [] if found is None else found.faults
    if cues is None:
        return Pieces([whole(video, text or "")], faults)
    clips = [
        Clip(Utterance(video.stem, str(i), "test", math.nan, text, start=start, end=end), video)
        for i, (start, end, text) in enumerate(cues)
    ]
    return Pieces(clips, faults)


def sidecar(video: Path) -> Path | None:
    """The file beside a video that says what is said in it, such as talk.srt or talk.en.srt.

    Subtitles go before a plain text, a name without a language before those with one, and English
    before others.

    Raises:
        SubtitleError: which one is not to be told.
    """
    try:
        names = sorted(file.name for file in video.parent.iterdir())
    except OSError:
        return None
    stems = {Path(name).stem for name in names if is_media(name)}
    exact: list[str] = []
    by_language: dict[str, list[str]] = {}
    for name in names:
        stem, suffix = Path(name).stem, Path(name).suffix
        if suffix.lower() not in SIDECARS:
            continue
        if stem == video.stem:
            exact.append(name)
        elif stem.startswith(f"{video.stem}.") and stem not in stems:
            language = _LANGUAGE.fullmatch(stem.removeprefix(f"{video.stem}."))
            if language:
                by_language.setdefault(language[1].lower(), []).append(name)
    english = [name for known in _ENGLISH for name in by_language.get(known, ())]
    if not exact and not english and len(by_language) > 1:
        several = ", ".join(min(named) for named in by_language.values())
        raise SubtitleError(f"{video}: beside it are {several}; give one with `subtitles`")
    others = [name for named in by_language.values() for name in named]
    for named in (exact, english, others):
        if named:
            first = min(named, key=lambda name: SIDECARS.index(Path(name).suffix.lower()))
            return video.parent / first
    return None


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
        found = [Path(match) for match in matches if is_media(match)]
    if not found:
        few = ", ".join(MEDIA_SUFFIXES[:3])
        raise MediaError(
            f"{name}: no video or sound there ({few} and {len(MEDIA_SUFFIXES) - 3} more)"
        )
    return found


def _media_files(folder: Path) -> Iterator[Path]:
    for parent, _, files in os.walk(folder):
        for file in files:
            if is_media(file) and not file.startswith("."):
                yield Path(parent) / file


class TableRow(NamedTuple):
    """A row of a table as `read_dataset` reads it; a whole video has no times."""

    path: str  # from the table's folder
    clip_id: int
    start: float | str
    end: float | str
    text: str
    label: str  # to be filled in
    split: str


def cut_to_table(
    videos: Iterable[Path],
    home: Path,
    script: Script,
    on_video: Callable[[int, int, int], None] = lambda done, total, rows: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> list[TableRow]:
    """The utterances of videos, for a table in the folder `home`; labels are left empty.

    Videos are drawn for train, valid and test whole, where there are three: one speaker's
    utterances in two splits would flatter a model. What cannot be cut is told to `on_note`.

    Raises:
        TableError: a video is not below `home`, or a table could not name it.
    """
    paths: dict[str, Path] = {}  # as the table has them
    for video in videos:
        paths.setdefault(_from(home, video), video)
    splits = dict.fromkeys(map(video_id, paths), "train")
    if len(splits) >= len(SPLITS):
        splits = dict(drawn_folds(splits).of)
    rows: list[TableRow] = []
    clips_of: Counter[str] = Counter()
    for number, (path, video) in enumerate(paths.items(), 1):
        try:
            clips, faults = utterances(video, script)
            heard = [script.transcriber.heard(c) for c in clips] if script.transcriber else clips
        except (MediaError, SubtitleError) as error:
            on_note(f"left out {error}")
        else:
            for fault in faults:
                on_note(fault)
            id_ = video_id(path)
            if id_ in clips_of:
                on_note(f"{path}: of the same name as another file, so both are one video")
            for clip in heard:
                rows.append(_row(clip, path, clips_of[id_], splits[id_]))
                clips_of[id_] += 1
        on_video(number, len(paths), len(rows))
    return rows


def _from(home: Path, video: Path) -> str:
    if not video.resolve().is_relative_to(home):
        raise TableError(f"{video}: is not below {home}, the folder of the table")
    path = video.resolve().relative_to(home).as_posix()
    try:
        path.encode()
    except UnicodeEncodeError:
        raise TableError(f"{video}: a name that is not UTF-8; rename it") from None
    return path


def _row(clip: Clip, path: str, clip_id: int, split: str) -> TableRow:
    start, end = ("", "") if clip.end is None else (round(clip.start, 3), round(clip.end, 3))
    return TableRow(path, clip_id, start, end, clip.utterance.text, "", split)
