"""Splits of datasets that come without: fold lists by video, or a seeded draw that says so."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from clipmsa.cache.errors import TableError
from clipmsa.cache.spec import DRAWN, SPLITS
from clipmsa.cache.texts import read_text

from .clips import Clip, Manifest

SEED = 1111
_SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}  # of the videos; CMU's MOSEI is 70, 9, 21 %
_SDK_FILES = "mmdatasdk/dataset/standard_datasets/CMU_{0}/cmu_{1}_std_folds.py"


@dataclass(frozen=True)
class Folds:
    """The split of each video, and where that was learnt, in words."""

    of: Mapping[str, str]
    source: str


def split(manifest: Manifest, file: Path | None) -> Manifest:
    """Give every clip the split of its video, and leave out those of videos in no fold.

    The folds are those of `file`; without one, those of the CMU SDK if it is installed, and else
    drawn by video.

    Raises:
        TableError: the file is no fold list, or no clip is left.
    """
    if file is not None:
        folds = read_folds(file)
    else:
        folds = sdk_folds(manifest.dataset) or drawn_folds(manifest.videos())
    clips, unlisted = [], []
    for clip in manifest.clips:
        fold = folds.of.get(clip.utterance.video_id)
        if fold is None:
            unlisted.append(clip.utterance.id)
        else:
            clips.append(Clip(replace(clip.utterance, split=fold), clip.path))
    if not clips:
        count = len(manifest.videos())
        raise TableError(f"{file or folds.source}: holds none of the {count} videos")
    gaps = {
        **manifest.gaps,
        "clip of a video in no fold": unlisted,
        "video of a fold without a clip": sorted(folds.of.keys() - manifest.videos()),
    }
    filled = {what: ids for what, ids in gaps.items() if ids}
    return replace(manifest, clips=clips, splits=folds.source, gaps=filled)


def read_folds(file: Path) -> Folds:
    """Fold lists in JSON: an object of three lists of video ids, `train`, `valid` and `test`.

    The SDK's own names, such as `standard_train_fold`, will do too.

    Raises:
        TableError: not such a file, or a video is in two folds.
    """
    text = read_text(file, TableError, "fold lists in JSON")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{file}: not JSON ({error})") from None
    named: dict[str, list[object]] = content if isinstance(content, dict) else {}
    lists = {_SDK_NAMES.get(key, key): ids for key, ids in named.items()}
    fitting = lists.keys() == set(SPLITS) and len(lists) == len(named)
    if not fitting or not all(isinstance(ids, list) for ids in lists.values()):
        raise TableError(
            f"{file}: must be an object of three lists of video ids, {', '.join(SPLITS)}"
        )
    for name, ids in lists.items():
        for id_ in ids:
            if not isinstance(id_, str | int) or isinstance(id_, bool):
                raise TableError(f"{file}: {name} holds {repr(id_)[:60]}, which is no video id")
    return Folds(_by_video(file, lists), f"fold lists of {file.name}")


def sdk_folds(dataset: str) -> Folds | None:
    """CMU's own folds, where the package `mmsdk` is installed; its file is read, not run."""
    package = find_spec("mmsdk")
    for place in (package.submodule_search_locations or []) if package else []:
        file = Path(place, _SDK_FILES.format(dataset.upper(), dataset))
        if file.is_file():
            tree = ast.parse(file.read_text(encoding="utf-8"))
            lists: dict[str, list[object]] = {
                _SDK_NAMES[target.id]: ast.literal_eval(node.value)
                for node in tree.body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name) and target.id in _SDK_NAMES
            }
            return Folds(_by_video(file, lists), "the CMU SDK's fold lists")
    return None


def drawn_folds(videos: Iterable[str], seed: int = SEED) -> Folds:
    """A draw of 70, 10 and 20 % of the videos, which depends on their ids and the seed alone.

    >>> folds = drawn_folds(map(str, range(10)))
    >>> [list(folds.of.values()).count(name) for name in ("train", "valid", "test")]
    [7, 1, 2]
    """
    drawn = sorted(videos, key=lambda id_: hashlib.sha256(f"{seed} {id_}".encode()).digest())
    valid, test = (max(1, round(_SHARES[name] * len(drawn))) for name in ("valid", "test"))
    names = ["test"] * test + ["valid"] * valid
    names += ["train"] * (len(drawn) - len(names))
    return Folds(
        dict(zip(drawn, names, strict=False)),
        f"{DRAWN} by video with seed {seed}",
    )


_SDK_NAMES = {f"standard_{split}_fold": split for split in SPLITS}


def _by_video(file: Path, lists: Mapping[str, list[object]]) -> dict[str, str]:
    of: dict[str, str] = {}
    for name in SPLITS:
        for video in map(str, lists[name]):
            if of.setdefault(video, name) != name:
                raise TableError(f"{file}: video '{video}' is in {of[video]} and in {name}")
    return of
