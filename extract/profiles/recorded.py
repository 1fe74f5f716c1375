"""Weights that a file names: a model's checkpoint says which weights its features came from.

Anybody may have written it, so that it is led nowhere by it. What it records is a digest; files of
that digest are looked for where weights lie on this machine anyway, in the folder that the user
names and in the hubs' caches, and no other file is opened. A path is not followed. Only where a
shipped profile has the same source, and nothing lies there, is it downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from clipmsa.cache import StreamSpec
from clipmsa.cache.errors import FingerprintError, WeightsError
from clipmsa.extract.weights.find import (
    TRANSCRIBER,
    Checkpoint,
    WeightsMode,
    file_name,
    find_checkpoint,
    source_name,
    source_of,
)


def find_recorded(spec: StreamSpec, mode: WeightsMode) -> Checkpoint:
    """The checkpoint that a stream was made with, by the digest that is recorded of it.

    `mode` is "pretrained" (the hubs' caches) or a folder, which is looked through before these.

    Raises:
        WeightsError: no file of that digest is there; the message says where it came from.
        FingerprintError: there is one in its place, of another digest; or nothing was recorded.
    """
    recorded = spec.config.get("weights")
    digest = recorded.get("sha256") if isinstance(recorded, Mapping) else None
    source = source_of(spec.weights)
    names = _names(source)
    if not isinstance(digest, str) or not names:
        raise FingerprintError(
            f"stream '{spec.name}': its weights are recorded as '{spec.weights}', SHA-256 "
            f"{digest}, which is no file's; extract and train again"
        )
    others = []
    for place, there in _places(source, names[-1], mode):
        with suppress(WeightsError):  # not there
            found = find_checkpoint(spec.name, there, place, fetch=False)
            if found.sha256 == digest:
                return found
            others.append(found)
    if not others and mode == "pretrained" and (known := _shipped(source, digest)):
        found = find_checkpoint(spec.name, known, mode, fetched_with=None)
        if found.sha256 == digest:
            return found
        others.append(found)
    if others:
        raise FingerprintError(
            f"stream '{spec.name}' cannot be made as the model's training features were "
            f"(weights.sha256: {digest} -> {others[0].sha256}, {others[0].path}); use the same "
            f"weights, or extract and train again"
        )
    looked = "the hubs' caches" if mode == "pretrained" else f"{mode} and the hubs' caches"
    raise WeightsError(
        f"weights of '{spec.name}' (SHA-256 {digest[:16]}) not found in {looked}; they came from "
        f"{source_name(source)}, where nothing is opened only because a model's file names it; "
        f"name a folder that has '{names[-1]}' with `weights`"
    )


def _names(source: Mapping[str, str]) -> list[str]:
    """The parts of a source that become names of files and folders here; none if one leads away."""
    if "path" in source:
        parts = [PureWindowsPath(source["path"]).name]  # of any system's paths
    elif "hub" in source:
        file = source.get("file")
        parts = [*(file.split("/") if file else ()), *source["hub"].split("/")]
    else:
        parts = []
        with suppress(ValueError):  # no address, or none at all
            parts = [file_name(source.get("url", ""))]
    # A name alone, as both systems of names see it.
    plain = all(PureWindowsPath(part).name == part and part.strip(" .") for part in parts)
    return parts if plain else []


def _places(
    source: Mapping[str, str], name: str, mode: WeightsMode
) -> Iterator[tuple[WeightsMode, Mapping[str, Any]]]:
    """Where to look, as `find_checkpoint` takes it: the user's folder, then the hubs' caches."""
    if isinstance(mode, Path):
        yield mode, {"path": str(mode / name)} if "path" in source else source
    if "path" not in source:
        yield "pretrained", source


def _shipped(source: Mapping[str, str], digest: str) -> Mapping[str, Any] | None:
    """The source of a shipped profile that is the same and may be of that digest."""
    from .profile import load_profile, shipped_profiles

    recipes = [recipe for name in shipped_profiles() for recipe in load_profile(name).streams]
    for known in (TRANSCRIBER, *(recipe.source for recipe in recipes)):
        same = {key: known[key] for key in ("hub", "file", "url") if key in known} == source
        if same and digest.startswith(known.get("sha256", "")):
            # Of a single file, the download itself is checked: another is not kept.
            return {**known, "sha256": digest} if "url" in known else known
    return None
