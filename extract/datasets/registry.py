"""Dataset layouts by name; how others are found is said in `cache/plugins.py`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from clipmsa.cache import plugins
from clipmsa.cache.errors import ClipmsaError, PluginError, TableError
from clipmsa.cache.spec import SPLITS

from .clips import Clip, Manifest, Published
from .layout import Layout

_log = logging.getLogger(__name__)
_HERE = "clipmsa.extract.datasets"

LAYOUTS = plugins.Registry(
    "dataset",
    {
        "mmsa": f"{_HERE}.mmsa_layout:MmsaLayout",
        "cmu-mosi": f"{_HERE}.cmu:CmuMosi",
        "cmu-mosei": f"{_HERE}.cmu:CmuMosei",
    },
)


def layout(name: str) -> Layout:
    """A layout by the name that the user gave it.

    Raises:
        PluginError: there is none, or what has the name is no layout.
    """
    found = LAYOUTS.find(name, written=True)
    try:
        made = found() if isinstance(found, type) else found
    except Exception as error:
        raise PluginError(f"dataset layout '{name}' fails: {plugins.told(error)}") from error
    for attribute in ("name", "looks_like", "recognises", "read"):
        if not hasattr(made, attribute):
            raise PluginError(f"dataset layout '{name}': its class has no {attribute}")
    return cast(Layout, made)


def known_layouts() -> Iterator[Layout]:
    """Those that ship, then those that are installed; one that fails is told of and left out."""
    for name in LAYOUTS.names():
        try:
            yield layout(name)
        except PluginError as error:
            if name in LAYOUTS.shipped:
                raise
            _log.warning("%s", error)


def recognised(root: Path) -> Layout | None:
    """The first layout that a folder is in."""
    for known in known_layouts():
        try:
            if known.recognises(root):
                return known
        except Exception as error:
            if known.name in LAYOUTS.shipped:
                raise
            _log.warning("dataset layout '%s' fails: %s", known.name, plugins.told(error))
    return None


def published(known: Layout) -> Mapping[str, Sequence[Published]]:
    """What is published of the datasets that a layout is of; one from outside may say nothing."""
    return getattr(known, "published", {})


def read(chosen: Layout, root: Path) -> Manifest:
    """What a layout reads, checked like a table of the user's: it may be anybody's code.

    Raises:
        TableError: rows are faulty, or there are none.
        PluginError: a layout from outside fails, or gives what is no manifest.
    """
    try:
        manifest = chosen.read(root)
    except (ClipmsaError, MemoryError):
        raise
    except Exception as error:
        if chosen.name in LAYOUTS.shipped:
            raise
        raise PluginError(
            f"{root}: dataset layout '{chosen.name}' fails: {plugins.told(error)}"
        ) from error
    if not isinstance(manifest, Manifest):
        raise PluginError(
            f"{root}: dataset layout '{chosen.name}' gives a {type(manifest).__name__}, must give "
            f"a clipmsa.extract.datasets.Manifest"
        )
    if not manifest.clips:
        raise TableError(f"{root}: no clips in it, read as '{chosen.name}': {chosen.looks_like}")
    _refuse_faults(root, manifest.clips)
    return replace(manifest, layout=manifest.layout or f"layout '{chosen.name}'")


def _refuse_faults(root: Path, clips: list[Clip]) -> None:
    splits = {clip.utterance.split for clip in clips}
    seen: set[str] = set()
    for clip in clips:
        id_, split = clip.utterance.id, clip.utterance.split
        if id_ in seen:
            raise TableError(f"{root}: '{id_}' is there twice")
        seen.add(id_)
        if splits != {""} and split not in SPLITS:
            raise TableError(
                f"{root}: split of '{id_}' is '{split}', must be one of {', '.join(SPLITS)}; or "
                f"'' of all clips, for fold lists or a draw"
            )
