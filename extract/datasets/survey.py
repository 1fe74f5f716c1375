"""What a dataset's folder holds, next to the counts that are published for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clipmsa.cache.errors import MediaError
from clipmsa.cache.spec import SPLITS
from clipmsa.cache.verify import Verdict, label_fault, shared_videos

from .clips import Clip, Manifest
from .tables import is_file, is_media


@dataclass(frozen=True)
class Survey:
    """Counts by split: `found` by what is counted, `published` by that and whose count it is."""

    found: Mapping[str, Sequence[int]]
    published: Mapping[tuple[str, str], Sequence[int]]
    gaps: Mapping[str, Sequence[str]]  # what is missing or not used -> ids and files


def survey(manifest: Manifest) -> Survey:
    """Count what is there and list what is missing; files are looked for, none is opened."""
    by_split = [[c.utterance for c in manifest.clips if c.utterance.split == s] for s in SPLITS]
    found = {
        "clips": [len(utterances) for utterances in by_split],
        "videos": [len(manifest.videos(split)) for split in SPLITS],
        "no label": [sum(u.label != u.label for u in utterances) for utterances in by_split],
        "label 0": [sum(u.label == 0 for u in utterances) for utterances in by_split],
        "blank text": [sum(not u.text.strip() for u in utterances) for utterances in by_split],
    }
    published = {(what, whose): counts for what, whose, counts in manifest.published}
    used = {clip.path for clip in manifest.clips}
    gaps = dict(manifest.gaps)
    gaps["clip whose file is missing"] = [
        f"{clip.utterance.id} ({clip.path})" for clip in manifest.clips if not is_file(clip.path)
    ]
    gaps["media file that no clip uses"] = sorted(
        str(file)
        for folder in manifest.media
        for file in folder.rglob("*")
        if is_media(file) and file not in used
    )
    return Survey(found, published, {what: ids for what, ids in gaps.items() if ids})


def verify_dataset(
    manifest: Manifest,
    workers: int,
    on_files: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Verdict, dict[str, float]]:
    """Look into every media file, without decoding it; give the verdict and seconds by clip id."""
    from clipmsa.extract import media

    def look(path: Path) -> media.MediaInfo | str:
        try:
            return media.probe(path)
        except MediaError as error:
            return str(error)

    paths = list(dict.fromkeys(clip.path for clip in manifest.clips))
    looks: dict[Path, media.MediaInfo | str] = {}
    with ThreadPoolExecutor(workers) as pool:
        for path, found in zip(paths, pool.map(look, paths), strict=True):
            looks[path] = found
            on_files(len(looks), len(paths))
    verdict = Verdict([], [f"{len(ids)} times: {what}" for what, ids in manifest.gaps.items()])
    utterances = [clip.utterance for clip in manifest.clips]
    videos, splits = [u.video_id for u in utterances], [u.split for u in utterances]
    verdict.remarks.extend(shared_videos(videos, splits))
    seconds: dict[str, float] = {}
    for clip in manifest.clips:
        found = looks[clip.path]
        if isinstance(found, str):
            verdict.faults.append(f"'{clip.utterance.id}': {found}")
        else:
            seconds[clip.utterance.id] = _seconds(clip, found.duration, verdict)
            for what, there in (("pictures", found.has_video), ("sound", found.has_audio)):
                if not there:
                    verdict.remarks.append(f"'{clip.utterance.id}': {clip.path} has no {what}")
        fault = label_fault(clip.utterance.id, clip.utterance.label)
        verdict.faults.extend([fault] if fault else [])
    return verdict, seconds


def _seconds(clip: Clip, length: float, verdict: Verdict) -> float:
    """How long a clip is, where its file is `length` seconds long."""
    end = clip.utterance.end
    if clip.start >= length:
        verdict.faults.append(
            f"'{clip.utterance.id}': starts at {clip.start:g} s, and {clip.path} is "
            f"{length:.2f} s long"
        )
    elif not math.isinf(end) and end > length + 0.5:
        verdict.remarks.append(
            f"'{clip.utterance.id}': ends at {end:g} s, and {clip.path} is {length:.2f} s long"
        )
    return min(end, length) - clip.start
