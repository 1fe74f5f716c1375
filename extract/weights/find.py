"""Find pretrained checkpoints: in the hubs' caches, online, or in a folder. Never anything else.

A missing checkpoint is an error that names the file, where it comes from and the command that
gets it; nothing here falls back to random weights.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from clipmsa.cache.errors import ChecksumError, ProfileError, WeightsError
from clipmsa.cache.provenance import sha256_of_files

from .download import OnBytes, download

WeightsMode = Literal["pretrained", "random"] | Path

# What `predict --transcribe` hears with: wav2vec 2.0 base, fine-tuned on 960 h of English speech.
TRANSCRIBER: Mapping[str, Any] = {"hub": "facebook/wav2vec2-base-960h", "megabytes": 378}

# What a hub folder may hold that features depend on; anything else is not downloaded or hashed.
_HUB_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "*token*",
    "vocab*",
    "merges.txt",
    "spiece*",
)
_HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_NEVER = ("*.py",)  # tokenization_*.py among them: no code is run, and none is wanted here


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk (`path` a file or a folder), random weights from a seed, or none."""

    path: Path | None
    name: str  # as `source_of` reads it, "random (seed 0)" or "none": what the store records
    sha256: str  # of the file, or of a folder's files; "" for random weights

    @property
    def identity(self) -> dict[str, str]:
        """The part of the fingerprint that the weights are."""
        if self.path is not None:
            return {"sha256": self.sha256}
        if self.name == NO_WEIGHTS.name:
            return {}
        import torch

        return {"random": self.name, "torch": torch.__version__}


NO_WEIGHTS = Checkpoint(None, "none", "")  # of an encoder that needs no checkpoint


def weights_mode(text: str) -> WeightsMode:
    """What `--weights` says: "pretrained", "random", or a folder.

    Raises:
        WeightsError: neither of the words, and no such folder.
    """
    if text == "pretrained":
        return "pretrained"
    if text == "random":
        return "random"
    folder = Path(text)
    if not folder.is_dir():
        raise WeightsError(
            f"`weights={text!r}`: no such folder; give pretrained, random, or a folder of them"
        )
    return folder


def find_checkpoint(
    stream: str,
    source: Mapping[str, Any],
    mode: WeightsMode,
    *,
    fetch: bool | None = None,
    on_bytes: OnBytes = lambda done, total: None,
    fetched_with: str | None = "--profile paper",
) -> Checkpoint:
    """Find the checkpoint of a stream's encoder, or of what else is called `stream`.

    `source` is the profile's: `{hub, file?}` for a Hugging Face repository (all of it, or one
    file), `{url}` for a single file, `{path}` for a folder or file on this machine; each may give
    a `sha256`, or its first digits. `mode` is "pretrained" (the hub's cache), a folder that holds
    the repository's folder or the file under its own name, or "random". `fetch` says whether to
    download to there: what is missing, unless told otherwise, into a hub's cache alone.
    `fetched_with` are the options of `clipmsa weights fetch` that get it, for the message; None
    where there are none.

    Raises:
        WeightsError: not there, or (ChecksumError) not the one the profile asks for.
        ProfileError: the profile names no source for pretrained weights.
    """
    if mode == "random":
        return Checkpoint(None, "random (seed 0)", "")
    root = None if mode == "pretrained" else mode
    if "hub" in source:
        place = _repository(source, root, fetch)
    elif "url" in source:
        if "://" not in source["url"] or not file_name(source["url"]):
            raise ProfileError(
                f"stream '{stream}': source url '{source['url']}' is no address of a file"
            )
        place = _single_file(source, root, fetch, on_bytes)
    elif "path" in source:
        place = _local(Path(source["path"]))
    else:
        raise ProfileError(
            f"stream '{stream}': the profile names no source of pretrained weights; "
            f"it is made for `weights='random'`"
        )
    folder = shlex.quote(str(root or "weights"))
    command = fetched_with and f"`clipmsa weights fetch {fetched_with} --dir {folder}`"
    if not place.files:
        why = f" ({place.reason})" if place.reason else ""
        remedy = "put them there"
        if command and "path" not in source:
            remedy = f"get them with {command} and pass `weights={folder!r}`"
        elif not command:
            remedy += ", or name a folder that has them with `weights`"
        raise WeightsError(
            f"weights of '{stream}' not found at {place.missing}; source "
            f"{source_name(source)}{why}; {remedy}"
        )
    sha256 = sha256_of_files(place.files)
    if not sha256.startswith(source.get("sha256", "")):
        raise ChecksumError(
            f"{place.path}: SHA-256 is {sha256}, '{stream}' needs {source['sha256']}; the "
            f"file is damaged or another one: remove it and fetch it again from "
            f"{source_name(source)}{f', as with {command}' if command else ''}"
        )
    kind = next(key for key in ("hub", "url", "path") if key in source)
    single = f"#{source['file']}" if "file" in source else ""
    return Checkpoint(place.path, f"{kind}:{source[kind]}{single}", sha256)


def source_of(name: str) -> dict[str, str]:
    """The source that a checkpoint's name, as a store records it, says it came from.

    >>> source_of("hub:timm/resnet50_clip.openai#open_clip_model.safetensors")
    {'hub': 'timm/resnet50_clip.openai', 'file': 'open_clip_model.safetensors'}
    >>> source_of("random (seed 0)")
    {}
    """
    kind, colon, place = name.partition(":")
    if kind not in ("hub", "url", "path") or not colon:
        return {}
    if kind == "hub":
        place, _, single = place.partition("#")
        return {"hub": place, **({"file": single} if single else {})}
    return {kind: place}


def source_name(source: Mapping[str, Any]) -> str:
    """Where a checkpoint comes from, as an address to look at.

    >>> source_name({"hub": "facebook/wav2vec2-base"})
    'https://huggingface.co/facebook/wav2vec2-base'
    """
    if "hub" in source:
        return f"https://huggingface.co/{source['hub']}"
    return str(source.get("url", source.get("path", "")))


@dataclass(frozen=True)
class _Place:
    """Where a checkpoint is or should be."""

    path: Path
    files: list[Path]  # what its digest covers; none where it is missing
    missing: Path  # what to name then,
    reason: str = ""  # and why a download did not bring it


def _repository(source: Mapping[str, Any], root: Path | None, fetch: bool | None) -> _Place:
    """A Hugging Face repository, or one file of it, in the hub's cache or under `root`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    repository, single = str(source["hub"]), source.get("file")
    patterns = [single] if single else [*_HUB_FILES, _HUB_WEIGHTS[0]]
    local = None if root is None else root / repository.rpartition("/")[2]
    cache = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"

    def look() -> _Place:
        folder = local
        if folder is None:
            with suppress(Exception):  # not there; or no name of a repository, as a fetch will say
                cached = snapshot_download(
                    repository, allow_patterns=patterns, local_files_only=True
                )
                folder = Path(cached)
        if folder is None:
            return _Place(cache, [], cache)
        missing = cache if local is None else local / (single or _HUB_WEIGHTS[0])
        if not single:
            return _Place(folder, _files_of(folder), missing)
        file = folder / single
        return _Place(file, [file] if file.is_file() else [], missing)

    place, reason = look(), ""
    # A download that was killed may have left any of a repository's files out: a fetch that was
    # asked for completes it, where the hub is in reach.
    if fetch or (fetch is None and root is None and not place.files):
        try:
            get = partial(snapshot_download, repository, local_dir=local, ignore_patterns=_NEVER)
            get(allow_patterns=patterns)
            if not look().files and not single:
                # Old ones, facebook/wav2vec2-base among them, have the second format only.
                get(allow_patterns=[_HUB_WEIGHTS[1]])
        except Exception as error:  # the hub's own errors and those of its HTTP client
            reason = _reason(error)
        place = look()
    return replace(place, reason=reason)


def _single_file(
    source: Mapping[str, Any], root: Path | None, fetch: bool | None, on_bytes: OnBytes
) -> _Place:
    """A file of any server's, in torch hub's cache or under `root`."""
    if fetch is None:
        fetch = root is None
    if root is None:
        import torch

        root = Path(torch.hub.get_dir()) / "checkpoints"
    path, reason = root / file_name(source["url"]), ""
    if fetch and not path.is_file():
        try:
            download(source["url"], path, source.get("sha256", ""), on_bytes)
        except (WeightsError, OSError) as error:  # no network, another SHA-256, a full disk
            reason = str(error)
    return _Place(path, [path] if path.is_file() else [], path, reason)


def _local(path: Path) -> _Place:
    if path.is_dir():
        return _Place(path, _files_of(path), path / _HUB_WEIGHTS[0])
    return _Place(path, [path] if path.is_file() else [], path)


def _files_of(folder: Path) -> list[Path]:
    """The files of a repository's folder that features depend on; one format of the weights.

    None where the weights are missing.
    """
    found = {file for pattern in _HUB_FILES for file in folder.glob(pattern) if file.is_file()}
    files = {file for file in found if not any(file.match(pattern) for pattern in _NEVER)}
    weights = [folder / name for name in _HUB_WEIGHTS if (folder / name).is_file()]
    return [*sorted(files), weights[0]] if weights else []


def _reason(error: Exception) -> str:
    """Why a download failed, in a line; huggingface_hub wraps it in a paragraph of advice."""
    cause = error.__cause__ or error
    return (str(cause) or type(cause).__name__).splitlines()[0]


def file_name(url: str) -> str:
    """The name under which torch hub keeps a file.

    >>> file_name("https://zenodo.org/records/1/files/model.pt?download=1")
    'model.pt'
    """
    return urlsplit(url).path.rpartition("/")[2]
