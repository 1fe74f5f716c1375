"""Download one file: resumed where it broke off, verified, and in place whole or not at all."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import requests
from filelock import FileLock
from urllib3.exceptions import NewConnectionError

from clipmsa.cache.errors import WeightsError

OnBytes = Callable[[int, int], None]  # bytes there are, bytes in all (0 where the server is silent)

_TIMEOUT = 15.0  # seconds without an answer after which a host counts as out of reach
_TRIES = 6  # in a row that bring nothing new
_PAUSE = 0.3  # seconds after the first of them, doubled after each
_CHUNK = 1 << 14  # of the last of a broken connection, nothing is kept
_BUSY = (408, 429, 500, 502, 503, 504)  # what a server says that may do better in a moment


def download(
    url: str, path: Path, sha256: str = "", on_bytes: OnBytes = lambda done, total: None
) -> None:
    """Get a file, unless it is there.

    What has come is kept as `<path>.part`, from which the next attempt, or the next run, goes on.
    That needs a digest to check the whole against (its first digits will do): without one, a run
    begins anew. The file gets its name when it is complete, verified and on the disk.

    Raises:
        WeightsError: not all of it came, or its SHA-256 is another; says why in a line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with FileLock(f"{part}.lock"):  # two runs that want the same file
        if path.is_file():
            return
        if not sha256:
            part.unlink(missing_ok=True)
        resumed = part.is_file()
        _fill(url, part, on_bytes)
        found = _sha256(part)
        if resumed and not found.startswith(sha256):  # it may have been begun on another version
            part.unlink()
            _fill(url, part, on_bytes)
            found = _sha256(part)
        if not found.startswith(sha256):
            part.unlink()
            raise WeightsError(f"SHA-256 is {found}, must be {sha256}")
        part.replace(path)


def _fill(url: str, part: Path, on_bytes: OnBytes) -> None:
    """Complete the partial file, over as many connections as it takes."""
    begun = furthest = _size(part)
    tries = 0
    while True:
        try:
            return _continue(url, part, on_bytes)
        except requests.RequestException as error:
            size = _size(part)
            tries = 0 if size > furthest else tries + 1
            furthest = max(furthest, size)
            vain = _refused(error) or (furthest == begun and _out_of_reach(error))
            if vain or tries == _TRIES:
                raise WeightsError((str(error) or type(error).__name__).splitlines()[0]) from None
            time.sleep(_PAUSE * 2 ** max(tries - 1, 0))


def _continue(url: str, part: Path, on_bytes: OnBytes) -> None:
    """One connection: append to the partial file, or begin it where the server knows no ranges."""
    there = _size(part)
    # Compressed on the way, its bytes could not be counted.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={there}-"} if there else {})}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable and there:
            if response.headers.get("Content-Range", "").endswith(f"/{there}"):
                return  # it was complete already
            part.unlink()
            raise requests.ConnectionError("the partial file was longer than the file")
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            there = 0
        length = int(response.headers.get("Content-Length", 0))
        total = there + length if length else 0
        with part.open("ab" if there else "wb") as file:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                there += len(chunk)
                on_bytes(there, total)
            file.flush()
            os.fsync(file.fileno())
    if there < total:
        raise requests.ConnectionError(f"the connection broke after {there} of {total} bytes")


def _out_of_reach(error: requests.RequestException) -> bool:
    """Nobody there, as opposed to a connection that broke: a machine offline should not wait."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    silent = (requests.Timeout, requests.exceptions.ProxyError, requests.exceptions.SSLError)
    return isinstance(error, silent) or isinstance(reason, NewConnectionError)


def _refused(error: requests.RequestException) -> bool:
    """The server has answered, and will not answer otherwise."""
    if error.response is not None:
        return error.response.status_code not in _BUSY
    return isinstance(error, ValueError)  # requests' kinds of malformed addresses


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
