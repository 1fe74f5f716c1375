"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import ClipmsaError


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to `path` when the block ends well.

    The file is flushed to disk before it is renamed, and the folder after, so that a crash or a
    kill at any instant leaves either what was at `path` before or the whole new file. When the
    block raises, the temporary file is removed and `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp"
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename is None:  # a disk that is full does not say what it had no room for
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def not_over(out: Path, *inputs: Path | None) -> None:
    """Refuse to write where something is read from, under whatever name.

    Raises:
        ClipmsaError: `out` is one of `inputs`.
    """
    for file in inputs:
        if file is not None and out.exists() and file.exists() and out.samefile(file):
            raise ClipmsaError(f"{out}: is what is read ({file}); give another name to write to")


def publish_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with publish(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; one that is killed lets go of it by dying.

    The empty file `.lock` stays there: were it removed, a third process could hold a new file of
    that name while a second one holds the old.

    Raises:
        ClipmsaError: another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ClipmsaError(
            f"{folder}: another run is writing to it; wait for it, or use another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; only POSIX lets a folder be opened for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
