"""The `clipmsa` command: runs a verb, and says in one line what went wrong."""

from __future__ import annotations

import errno
import io
import logging
import sys
import traceback
from pathlib import Path

from . import interrupts

_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# What Ctrl-C leaves of a verb's work.
_GOES_ON = "the same command goes on from there"
_KEPT = {
    "extract": f"what is encoded is kept, and {_GOES_ON}",
    "train": f"finished seeds are kept, the others as of half a minute ago, and {_GOES_ON}",
    "ablate": f"finished seeds are kept, the others as of half a minute ago, and {_GOES_ON}",
    "tune": f"finished trials are kept, and {_GOES_ON}",
    "weights": f"what has come is kept, and {_GOES_ON}",
}
_NOTHING_HALF = "files are written whole or not at all, and the same command begins anew"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give its exit status.

    0 done, 1 failed, 2 wrong usage, 70 a fault of this program, 130 interrupted. Without
    `arguments` the process is the command's own: those of the process are taken, and Ctrl-C ends
    it in good time.
    """
    if arguments is None:
        interrupts.end_at_once()
    given = sys.argv[1:] if arguments is None else arguments
    from .console import LogNotes
    from .verbs import command

    verb = next((word for word in given if not word.startswith("-")), "")
    kept = _KEPT.get(verb, _NOTHING_HALF)
    if arguments is None and verb != "inspect":  # which only reads, and HDF5 may not come back
        interrupts.unwind(kept)
    log, notes = logging.getLogger("clipmsa"), LogNotes(verb)
    log.addHandler(notes)
    level = log.level
    log.setLevel(logging.INFO)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        command(args=[word for word in given if word != "--debug"])
        status = 0
    except SystemExit as exit_:
        status = _status(exit_.code)
    except Exception as error:  # or the user would see a traceback
        status = 1 if interrupts.came() else _tell(error, verb, "--debug" in given)
    finally:
        log.removeHandler(notes)
        log.setLevel(level)
    if interrupts.came():
        interrupts.tell(kept)
        return interrupts.STATUS
    return status


def _status(code: object) -> int:
    """The exit status of a SystemExit, which some libraries raise with a sentence."""
    if code is None or isinstance(code, int):
        return code or 0
    from clipmsa.terminal import note

    note("[bold red]error:[/] {}", code)
    return 1


def _tell(error: Exception, verb: str, debug: bool) -> int:
    """Say what went wrong; gives the exit status."""
    from clipmsa.cache.errors import ClipmsaError
    from clipmsa.terminal import note

    from .flags import as_flags

    if debug:
        traceback.print_exception(error)
    if isinstance(error, ClipmsaError):
        note("[bold red]error:[/] {}", as_flags(str(error), verb))
    elif _no_memory(error):
        note(
            "[bold red]error:[/] out of memory ({}); ask for less at a time, as with a smaller "
            "--batch-size or fewer --workers",
            _one_line(error) or type(error).__name__,
        )
    elif isinstance(error, OSError):
        note("[bold red]error:[/] {}", _of_system(error))
    else:
        note(
            "[bold red]internal error:[/] {}: {} ({}); --debug shows more; please report it",
            type(error).__name__,
            _one_line(error),
            _place(error),
        )
        return _INTERNAL
    return 1


def _no_memory(error: Exception) -> bool:
    """Whether it is for want of memory; torch has errors of its own for that."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error))
    )


def _of_system(error: OSError) -> str:
    """What the system refused, with the file; its number says nothing to most."""
    words = error.strerror or _one_line(error) or type(error).__name__
    where = "" if error.filename is None else f"{error.filename}: "
    hint = "; make room and run the same command again" if error.errno in _FULL else ""
    return f"{where}{words}{hint}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _place(error: Exception) -> str:
    """Where in this package an error came out of; it went through this file at least."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if any(Path(f.filename).is_relative_to(top) for top in _PACKAGE)]
    return f"{Path(ours[-1].filename).relative_to(_ROOT)}:{ours[-1].lineno}"


_ROOT = Path(__file__).parent.parent
# Beside them, in a checkout, lie tests and the libraries of its environment.
_PACKAGE = [_ROOT / name for name in ("api", "cache", "cli", "extract", "fusion")]


if __name__ == "__main__":
    sys.exit(main())
