"""Find pretrained checkpoints: in the hubs' caches, online, or in a folder. Never anything else.

A missing checkpoint is an error that names the file, where it comes from and the command that
gets it; nothing here falls back to random weights.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from clipmsa.cache.errors import ProfileError, WeightsError
from clipmsa.cache.provenance import sha256_of_files

WeightsMode = Literal["pretrained", "random"] | Path

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
_TIMEOUT = 15.0  # seconds without an answer after which a host counts as out of reach


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk (`path` a file or a folder), or random weights from a seed."""

    path: Path | None
    name: str  # "hub:...", "url:..." or "random (seed 0)": what the store records as weights
    sha256: str  # of the file, or of a folder's files; "" for random weights

    @property
    def identity(self) -> dict[str, str]:
        """The part of the fingerprint that the weights are."""
        if self.path is not None:
            return {"sha256": self.sha256}
        import torch

        return {"random": self.name, "torch": torch.__version__}


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
            f"--weights {text}: no such folder; give pretrained, random, or a folder of checkpoints"
        )
    return folder


def find_checkpoint(stream: str, source: Mapping[str, Any], mode: WeightsMode) -> Checkpoint:
    """Find the checkpoint of a stream's encoder.

    `source` is the profile's: `{hub, file?}` for a Hugging Face repository (all of it, or one
    file), `{url, sha256?}` for a single file; the first digits of a SHA-256 will do. `mode` is
    "pretrained" (the hub's cache, else a download), a folder that holds the repository's folder
    or the file under its own name, or "random".

    Raises:
        WeightsError: not there, or its SHA-256 is not the one the profile gives.
        ProfileError: the profile names no source for pretrained weights.
    """
    if mode == "random":
        return Checkpoint(None, "random (seed 0)", "")
    if "hub" in source:
        repository = str(source["hub"])
        single = source.get("file")
        folder = (
            _hub_snapshot(stream, repository, single)
            if mode == "pretrained"
            else mode / repository.rpartition("/")[2]
        )
        files = [folder / single] if single else _hub_files(folder)
        weights = [file for file in files if file.name == single or file.name in _HUB_WEIGHTS]
        if not weights or not all(file.is_file() for file in files):
            wanted = folder / (single or _HUB_WEIGHTS[0])
            raise _missing(stream, wanted, f"https://huggingface.co/{repository}", source)
        return Checkpoint(
            folder / single if single else folder, f"hub:{repository}", sha256_of_files(files)
        )
    if "url" in source:
        url = str(source["url"])
        if "://" not in url or not _file_name(url):
            raise ProfileError(f"stream '{stream}': source url '{url}' is no address of a file")
        path = _url_file(stream, url, source) if mode == "pretrained" else mode / _file_name(url)
        if not path.is_file():
            raise _missing(stream, path, url, source)
        sha256 = sha256_of_files([path])
        if not sha256.startswith(source.get("sha256", "")):
            raise WeightsError(
                f"{path}: SHA-256 is {sha256}, stream '{stream}' needs {source['sha256']}; "
                f"the file is damaged or another one: fetch it again from {url}"
            )
        return Checkpoint(path, f"url:{url}", sha256)
    raise ProfileError(
        f"stream '{stream}': the profile names no source of pretrained weights; "
        f"it is made for --weights random"
    )


def _hub_files(folder: Path) -> list[Path]:
    """The files of a repository's folder that features depend on; one format of the weights."""
    files = {file for pattern in _HUB_FILES for file in folder.glob(pattern) if file.is_file()}
    weights = [folder / name for name in _HUB_WEIGHTS if (folder / name).is_file()]
    return sorted(files) + weights[:1]


def _hub_snapshot(stream: str, repository: str, single: str | None) -> Path:
    """A repository's folder in the Hugging Face cache, downloaded where it is not there yet."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import LocalEntryNotFoundError

    weights = [single] if single else _HUB_WEIGHTS
    patterns = [single] if single else [*_HUB_FILES, _HUB_WEIGHTS[0]]
    try:
        with suppress(LocalEntryNotFoundError):
            folder = Path(
                snapshot_download(repository, allow_patterns=patterns, local_files_only=True)
            )
            if any((folder / name).is_file() for name in weights):
                return folder
        folder = Path(snapshot_download(repository, allow_patterns=patterns))
        if not any((folder / name).is_file() for name in weights):
            # Old repositories, facebook/wav2vec2-base among them, have the second format only.
            snapshot_download(repository, allow_patterns=list(weights))
        return folder
    except Exception as error:  # the hub's own errors and those of its HTTP client
        cache = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
        source = {"hub": repository, **({"file": single} if single else {})}
        where = f"https://huggingface.co/{repository} ({_reason(error)})"
        raise _missing(stream, cache, where, source) from None


def _url_file(stream: str, url: str, source: Mapping[str, Any]) -> Path:
    """A file in torch hub's cache, downloaded where it is not there yet."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(url)
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _impatient():
                torch.hub.download_url_to_file(
                    url, str(path), hash_prefix=source.get("sha256"), progress=False
                )
        except Exception as error:  # OSError, HTTPException, RuntimeError on a wrong hash
            raise _missing(stream, path, f"{url} ({_reason(error)})", source) from None
    return path


@contextmanager
def _impatient() -> Iterator[None]:
    """A time limit for torch hub's downloads, which have none: a dead network would hang them."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str:
    """Why a download failed, in a line; huggingface_hub wraps it in a paragraph of advice."""
    cause = error.__cause__ or error
    return (str(cause) or type(cause).__name__).splitlines()[0]


def _file_name(url: str) -> str:
    """The name under which torch hub keeps a file.

    >>> _file_name("https://zenodo.org/records/1/files/model.pt?download=1")
    'model.pt'
    """
    return urlsplit(url).path.rpartition("/")[2]


def _missing(stream: str, path: Path, where: str, source: Mapping[str, Any]) -> WeightsError:
    """Names the file, its source, and the command that gets it into a folder for --weights."""
    if "hub" in source:
        repository = str(source["hub"])
        name = repository.rpartition("/")[2]
        file = f" {shlex.quote(str(source['file']))}" if "file" in source else ""
        command = f"hf download {repository}{file} --local-dir weights/{name}"
    else:
        url = str(source["url"])
        command = (
            f"curl -L --create-dirs -o {shlex.quote(f'weights/{_file_name(url)}')} "
            f"{shlex.quote(url)}"
        )
    return WeightsError(
        f"weights of stream '{stream}' not found at {path}; source {where}; get them with "
        f"`{command}` and pass --weights weights (or --weights random to try without)"
    )
