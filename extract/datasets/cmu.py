"""CMU-MOSI and CMU-MOSEI as CMU gives them away: videos, transcripts and labels in three places.

Clips are cut out of the full videos by time where those are there, and are the segmented files
else: of MOSEI's, many are frozen or black at the start, because they were cut without encoding.

MOSI (`Raw` may be the root itself):

    Raw/Transcript/Segmented/<video>.annotprocessed    lines of <clip>_DELIM_<text>, clips from 1
    Raw/Video/Full/<video>.mp4, Raw/Video/Segmented/<video>_<clip>.mp4
    Labels/OpinionLevelSentiment.csv                   start,end,video,clip,label without a header
    CMU_MOSI_Opinion_Labels.csd                        instead of it; row i is clip i + 1

MOSEI:

    Raw/Transcript/Segmented/Combined/<video>.txt      lines of VIDEO___CLIP___START___END___TEXT
    Raw/Videos/Full/Combined/<video>.mp4, Raw/Videos/Segmented/Combined/<video>_<clip>.mp4
    CMU_MOSEI_Labels.csd                               joined on video and interval
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache import Utterance
from clipmsa.cache.errors import TableError
from clipmsa.cache.exchange.csd import ComputationalSequence, sentiment_column
from clipmsa.cache.store import LABEL_LIMIT
from clipmsa.cache.texts import read_text

from .clips import Clip, Manifest, Published
from .layout import Layout
from .tables import MediaFinder, file_name, is_file, label_of, parsed, records, seconds_of

_MOSI_TABLE = "OpinionLevelSentiment.csv"
_MOSI_CSD = "CMU_MOSI_Opinion_Labels.csd"
_MOSEI_CSD = "CMU_MOSEI_Labels.csd"
_SAME_SECONDS = 1e-3  # the transcripts' times have decimals enough, and a csd is of float32

# Why a clip is not in the manifest.
_NO_LABEL = "transcript without a label"
_NO_TRANSCRIPT = "label without a transcript"
_EMPTY = "label of an empty interval (a clip that CMU removed)"
_TWICE = "transcript listed twice"
_NO_LINE = "line of a transcript that is none"


class _Segment(NamedTuple):
    """A labelled part of a video, in seconds."""

    start: float
    end: float
    label: float

    @property
    def empty(self) -> bool:
        return self.end <= max(0.0, self.start)


class CmuMosi(Layout):
    """CMU-MOSI as it is downloaded."""

    name = "cmu-mosi"
    looks_like = "Raw/Transcript/Segmented/*.annotprocessed, and labels"
    # By MMSA's feature files, the labels that words are aligned with, the CMU SDK's fold lists.
    published: ClassVar[Mapping[str, Sequence[Published]]] = {
        "mosi": (
            Published("clips", "MMSA", (1284, 229, 686)),
            Published("clips", "word-aligned", (1281, 229, 685)),
            Published("videos", "CMU folds", (52, 10, 31)),
        )
    }

    def recognises(self, root: Path) -> bool:
        return any((_raw(root) / "Transcript" / "Segmented").glob("*.annotprocessed"))

    def read(self, root: Path) -> Manifest:
        return read_mosi(root)


class CmuMosei(Layout):
    """CMU-MOSEI as it is downloaded."""

    name = "cmu-mosei"
    looks_like = f"Raw/Transcript/Segmented/Combined/*.txt, and {_MOSEI_CSD}"
    published: ClassVar[Mapping[str, Sequence[Published]]] = {
        "mosei": (
            Published("clips", "MMSA", (16326, 1871, 4659)),
            Published("clips", "labels csd", (16327, 1871, 4662)),
            Published("videos", "CMU folds", (2249, 300, 678)),
        )
    }

    def recognises(self, root: Path) -> bool:
        return any((_raw(root) / "Transcript" / "Segmented" / "Combined").glob("*.txt"))

    def read(self, root: Path) -> Manifest:
        return read_mosei(root)


def read_mosi(root: Path) -> Manifest:
    """All labelled clips of a raw CMU-MOSI folder; splits are still to be given.

    Raises:
        TableError: no labels, or faulty ones; names file and row.
    """
    labels = _mosi_labels(root)
    media = _Media(_raw(root) / "Video")
    clips: list[Clip] = []
    gaps: defaultdict[str, list[str]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for file, number, line in _lines(_raw(root) / "Transcript" / "Segmented", "*.annotprocessed"):
        try:
            clip_id, text = line.split("_DELIM_", 1)
            key = file.stem, file_name("clip", clip_id.strip())
        except ValueError:
            gaps[_NO_LINE].append(f"{file.name}:{number}")
            continue
        segment = labels.get(key)
        utterance = _utterance(key, text, segment)
        if key in seen or segment is None or segment.empty:
            reason = _TWICE if key in seen else _NO_LABEL if segment is None else _EMPTY
            gaps[reason].append(utterance.id)
        else:
            clips.append(media.clip(utterance))
        seen.add(key)
    for key in labels.keys() - seen:
        gaps[_NO_TRANSCRIPT].append(Utterance(*key, "", math.nan, "").id)
    return _manifest(root, "mosi", clips, media, gaps)


def read_mosei(root: Path) -> Manifest:
    """All labelled clips of a raw CMU-MOSEI folder; splits are still to be given.

    The join is by video and interval: a csd numbers its rows otherwise than transcripts their
    clips. Intervals that start a bit before 0 are cut there.

    Raises:
        TableError: the labels are missing or damaged; names file and video.
    """
    labels = _mosei_labels(root)
    media = _Media(_raw(root) / "Videos")
    clips: list[Clip] = []
    gaps: defaultdict[str, list[str]] = defaultdict(list)
    used: defaultdict[str, set[int]] = defaultdict(set)
    seen: set[tuple[str, str]] = set()
    folder = _raw(root) / "Transcript" / "Segmented" / "Combined"
    for file, number, line in _lines(folder, "*.txt"):
        video = file.stem  # which may itself hold the separator
        cells = line.removeprefix(f"{video}___").split("___", 3)
        try:
            clip_id, start, end, text = cells
            key = video, file_name("clip", clip_id)
            interval = seconds_of("start", start), seconds_of("end", end)
        except ValueError:
            gaps[_NO_LINE].append(f"{file.name}:{number}")
            continue
        segments = labels.get(video, [])
        row = _row_of(segments, *interval)
        utterance = _utterance(key, text, None if row is None else segments[row])
        if key in seen or row is None or segments[row].empty:
            reason = _TWICE if key in seen else _NO_LABEL if row is None else _EMPTY
            gaps[reason].append(utterance.id)
        else:
            clips.append(media.clip(utterance))
        seen.add(key)
        if row is not None:
            used[video].add(row)
    for video, segments in labels.items():
        for row in set(range(len(segments))) - used[video]:
            reason = _EMPTY if segments[row].empty else _NO_TRANSCRIPT
            gaps[reason].append(f"{video}[{row}]")
    return _manifest(root, "mosei", clips, media, gaps)


def read_csd(labels: Path) -> Manifest:
    """The labelled intervals of CMU's label csd, of which no clip is at hand; without splits.

    Clips are numbered as CMU's are: MOSI's from 1, MOSEI's from 0, in the csd's order.

    Raises:
        ExchangeError: not a computational sequence, or not one of sentiment.
    """
    with ComputationalSequence(labels) as sequence:
        told = f"{labels.name} {sequence.about}".lower()
        numbers = {video: sequence.numbers(video) for video in sequence.videos}
    dataset = "mosei" if "mosei" in told or "all labels" in told else "mosi"
    first = 0 if dataset == "mosei" else 1
    clips, removed = [], []
    for video, segments in _segments(labels).items():
        for number, segment in zip(numbers[video], segments, strict=True):
            clip = Clip(_utterance((video, str(first + number)), "", segment), labels)
            if segment.empty:
                removed.append(clip.utterance.id)
            else:
                clips.append(clip)
    return Manifest(dataset, clips, f"computational sequence {labels}", gaps={_EMPTY: removed})


class _Media:
    """Where the clips of a raw folder are: parts of full videos, or else files of their own."""

    def __init__(self, root: Path) -> None:
        def folder(name: str) -> Path:
            combined = root / name / "Combined"
            return combined if combined.is_dir() else root / name

        self.full, self.segmented = folder("Full"), folder("Segmented")
        self.cut = self.pieces = self.missing = 0
        self._finder = MediaFinder()

    def clip(self, utterance: Utterance) -> Clip:
        """The clip of an utterance whose times are those in the full video."""
        video = utterance.video_id
        full = self._finder.find(self.full, video)
        piece = self._finder.find(self.segmented, f"{video}_{utterance.clip_id}")
        cut, there = is_file(full), is_file(piece)
        self.cut += cut
        self.pieces += there and not cut
        self.missing += not (cut or there)
        if cut or (self.full.is_dir() and not there):
            return Clip(utterance, full)
        return Clip(replace(utterance, start=0.0, end=math.inf), piece)


def _manifest(
    root: Path,
    dataset: str,
    clips: list[Clip],
    media: _Media,
    gaps: dict[str, list[str]],
) -> Manifest:
    if not clips:
        reasons = ", ".join(f"{len(ids)} times: {reason}" for reason, ids in gaps.items())
        raise TableError(f"{root}: no labelled clip in it ({reasons})")
    kinds = (
        (media.cut, "cut out of full videos"),
        (media.pieces, "segmented files"),
        (media.missing, "without a file"),
    )
    told = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
    layout = f"raw CMU-{dataset.upper()} ({told})"
    folders = tuple(f for f, n in ((media.full, media.cut), (media.segmented, media.pieces)) if n)
    ordered = {reason: sorted(ids) for reason, ids in gaps.items()}
    return Manifest(dataset, clips, layout, gaps=ordered, media=folders, joined=True)


def _utterance(key: tuple[str, str], text: str, segment: _Segment | None) -> Utterance:
    start, end, label = segment or (0.0, math.inf, math.nan)
    return Utterance(*key, "", label, text.strip(), start=max(0.0, start), end=end)


def _mosi_labels(root: Path) -> dict[tuple[str, str], _Segment]:
    """Segments by video and clip id."""
    table = _find(root, _MOSI_TABLE)
    if table is not None:

        def segment_of(line: int, cells: list[str]) -> tuple[tuple[str, str], _Segment]:
            if len(cells) != 5:
                raise ValueError(f"{len(cells)} cells, must be start,end,video,clip,label")
            start, end, video, clip, label = (cell.strip() for cell in cells)
            times = seconds_of("start", start), seconds_of("end", end)
            return (video, clip), _Segment(*times, label_of(label))

        return dict(parsed(table, records(table, lambda cells: len(cells) == 5), segment_of))
    csd = _find(root, _MOSI_CSD)
    if csd is None:
        raise TableError(
            f"{root}: no labels; put {_MOSI_TABLE} (in CMU_MOSI.zip, folder Labels) or {_MOSI_CSD} "
            f"there"
        )
    return {
        (video, str(row + 1)): segment
        for video, segments in _segments(csd).items()
        for row, segment in enumerate(segments)
    }


def _mosei_labels(root: Path) -> dict[str, list[_Segment]]:
    """Segments by video, in the csd's order."""
    csd = _find(root, _MOSEI_CSD)
    if csd is None:
        raise TableError(
            f"{root}: no labels; MOSEI's are in {_MOSEI_CSD} alone (the CSV files in Raw/Labels "
            f"are single annotators' answers): put it there"
        )
    return _segments(csd)


def _segments(csd: Path) -> dict[str, list[_Segment]]:
    """Of every video, the intervals with their sentiment."""
    with ComputationalSequence(csd) as sequence:
        column = sentiment_column(sequence)
        found = {}
        for video in sequence.videos:
            intervals, features = sequence[video]
            if features.shape[1:] != sequence.shape or features.dtype.kind not in "fiu":
                raise TableError(f"{csd}: video '{video}' has labels of another kind or width")
            width = math.prod(sequence.shape)
            labels = features.reshape(len(features), width)[:, column].astype(np.float64)
            if np.isinf(labels).any():
                raise TableError(f"{csd}: video '{video}' has an infinite label")
            if not sequence.dimensions and (np.abs(labels) > LABEL_LIMIT).any():
                raise TableError(
                    f"{csd}: not labels of sentiment: it has no names of columns, and video "
                    f"'{video}' a value beyond {LABEL_LIMIT:g}"
                )
            rows = zip(intervals.tolist(), labels.tolist(), strict=True)
            found[video] = [_Segment(start, end, label) for (start, end), label in rows]
        return found


def _row_of(segments: list[_Segment], start: float, end: float) -> int | None:
    """The segment with these times."""
    if not segments:
        return None
    times: NDArray[np.float64] = np.array([segment[:2] for segment in segments])
    apart = np.abs(np.maximum(times, 0) - np.maximum((start, end), 0)).max(axis=1)
    row = int(apart.argmin())
    return row if apart[row] <= _SAME_SECONDS else None


def _lines(folder: Path, pattern: str) -> Iterator[tuple[Path, int, str]]:
    """The lines of every transcript, by file name, that hold anything."""
    for file in sorted(folder.glob(pattern)):
        text = read_text(file, TableError, "a transcript of CMU's")
        for number, line in enumerate(text.replace("\0", "").split("\n"), 1):
            if line.strip():
                yield file, number, line.rstrip("\r")


def _raw(root: Path) -> Path:
    return root / "Raw" if (root / "Raw" / "Transcript").is_dir() else root


def _find(root: Path, name: str) -> Path | None:
    """A file of labels, wherever the archive's folders were put."""
    raw = _raw(root)
    above = root if raw != root else root.parent
    places = (above / "Labels", above, raw, raw / "Labels")
    return next((place / name for place in places if (place / name).is_file()), None)
