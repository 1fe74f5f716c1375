"""Files that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows: what a killed writer left is not told from one at work, and stays
    fcntl = None  # type: ignore[assignment]

from filelock import FileLock, Timeout

from .errors import ClipmsaError


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Give a temporary file to write to, and move it to `path` when the block ends well.

    The file is flushed to disk before it is renamed, and the folder after, so that a crash or a
    kill at any instant leaves either what was at `path` before or the whole new file. When the
    block raises, the temporary file is removed and `path` is untouched.

    The temporary file lies beside `path`, under a name that nobody can have foreseen, and is made
    here: a link that somebody put there is not followed. Those that killed writers of `path` left
    are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    try:
        with _new_temporary(path) as temporary:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename is None:  # a disk that is full does not say what it had no room for
            error.filename = str(path)
        raise


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
def sole_writer(folder: Path, output: Path | None = None) -> Iterator[None]:
    """Hold a folder for this process; one that is killed lets go of it by dying.

    An error names `output`, where the folder is only where that is worked on.

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
            f"{output or folder}: another run is writing to it; wait for it, or use another `out`"
        ) from None
    try:
        yield
    finally:
        lock.release()


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `path` whose writers were killed; none that is being written.

    A writer holds a lock on its file, which ends with the process.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        # Another's, gone meanwhile, or not a file: not ours to remove.
        with suppress(OSError), _open(leftover) as file:
            if _lock(file):
                leftover.unlink()


@contextmanager
def _new_temporary(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, locked within the block; what is left under its name goes."""
    while True:
        temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
        try:
            with _open(temporary, os.O_CREAT | os.O_EXCL) as file:
                if not _lock(file) or temporary.exists():
                    yield temporary
                    return
                # Another writer took it for a leftover before it was locked.
        finally:
            temporary.unlink(missing_ok=True)


def _open(path: Path, how: int = 0) -> BinaryIO:
    """A file, neither through a link nor waiting for what is at the other end of a pipe."""
    safe = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    return os.fdopen(os.open(path, sum(safe, os.O_RDWR | how), 0o666), "rb+")


def _lock(file: BinaryIO) -> bool:
    """Whether this process now holds the file's lock; not where files cannot be locked."""
    if fcntl is None:
        file.close()  # Windows does not rename what is open
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; only POSIX lets a folder be opened for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
