"""What no verb expects: faults of our own, no memory, a full disk, Ctrl-C, a reader that leaves.

Those that send signals start real processes, in a group of their own, as a terminal does.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipmsa import progress
from clipmsa.cache.cluster import connect
from clipmsa.cache.errors import ClipmsaError
from clipmsa.cli.main import main
from clipmsa.cli.verbs import command

VERBS = [verb.name for verb in command.registered_commands]


def broken(monkeypatch: pytest.MonkeyPatch, verb: str, error: BaseException) -> None:
    """Have a verb end with an exception."""

    def run() -> None:
        raise error

    (one,) = [one for one in command.registered_commands if one.name == verb]
    monkeypatch.setattr(one, "callback", run)


@pytest.mark.parametrize("verb", VERBS)
def test_a_fault_of_our_own_is_one_line_and_status_70_in_every_verb(verb, monkeypatch, capsys):
    broken(monkeypatch, verb, KeyError("of\nours [red]"))
    assert main([verb]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("internal error: KeyError: 'of\\nours [red]' (cli/main.py:")
    assert line.endswith("); --debug shows more; please report it")


def test_debug_shows_where_a_fault_of_our_own_came_from(monkeypatch, capsys):
    broken(monkeypatch, "inspect", ZeroDivisionError("of ours"))
    assert main(["--debug", "inspect"]) == 70
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "in run\n" in err
    assert err.splitlines()[-1].startswith("internal error: ZeroDivisionError: of ours")


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory (MemoryError); ask for less at a time"),
        (OutOfMemoryError("CUDA out of memory.\n20 GB"), "out of memory (CUDA out of memory. 20"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory (DefaultCPU"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/m.pt"),
            "runs/m.pt: No space left on device; make room and run the same command again",
        ),
        (OSError(errno.EFBIG, "File too large"), "File too large; make room"),
        (PermissionError(errno.EACCES, "Permission denied", "x.h5"), "x.h5: Permission denied"),
        (OSError("of a library\nthat has no number"), "of a library that has no number"),
        (SystemExit("a sentence of a library"), "a sentence of a library"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_the_machine_refuses_is_no_fault_of_ours(monkeypatch, capsys, error, words):
    broken(monkeypatch, "train", error)
    assert main(["train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {words}")


def test_an_address_where_nobody_answers_is_refused_before_ray_tries_for_minutes(monkeypatch):
    def init(**options: object) -> None:
        raise AssertionError("Ray was let loose")

    monkeypatch.setitem(
        sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init)
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(ClipmsaError, match=f"^Ray cannot be reached at {address}: .*refused"):
            connect(address)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClipmsaError, match=f"at {address}: .*refused"):
            connect()


def test_the_rate_of_a_run_that_goes_on_is_of_what_is_done_now(monkeypatch, capsys):
    clock = iter([0.0, 1.0, 20.0])
    monkeypatch.setattr("clipmsa.progress.time.monotonic", lambda: next(clock))
    advance = progress._plain("extract", "clips")
    advance(900, 1000, "", 900)
    advance(940, 1000, "", 900)
    assert capsys.readouterr().err == "extract 940/1000 clips, 2.0 clips/s, 30 s left\n"


# --- Ctrl-C ---------------------------------------------------------------------------------------

STUCK = """
import hashlib, sys, threading
import clipmsa.cli.verbs.merge, clipmsa.extract.engine.merge
from clipmsa.cli.main import main

def for_minutes():
    print("stuck", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)

def in_a_call(*arguments, **more):
    for_minutes()

def in_a_thread(*arguments, **more):
    threading.Thread(target=for_minutes).start()
    threading.Event().wait()

clipmsa.extract.engine.merge.merge_stores = {where}
sys.argv = ["clipmsa", "merge", "a.h5", "--out", "b.h5"]
sys.exit(main())
"""

DEAF = """
import re, sys
import clipmsa.cache
from clipmsa.cli.main import main

def never(path):
    print("stuck", flush=True)
    re.match("(a+)+$", "a" * 64 + "b")  # keeps Python's lock, as HDF5 does

clipmsa.cache.FeatureStore = never
sys.argv = ["clipmsa", "inspect", "x.h5"]
sys.exit(main())
"""

NOTHING_HALF = (
    "interrupted; files are written whole or not at all, and the same command begins anew"
)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Those that a test starts, ended with all that they started."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def start(started: list[subprocess.Popen[str]], code: str) -> subprocess.Popen[str]:
    # Where these tests are a background job of a shell, Ctrl-C is ignored from the start.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", heard + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def members(group: int) -> list[int]:
    """The processes of a group, without those that have ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, its_group = (folder / "stat").read_text().rpartition(") ")[2].split()[:3]
        except OSError:  # ended meanwhile
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(folder.name))
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("where", ["in_a_call", "in_a_thread"])
def test_ctrl_c_ends_a_verb_that_is_stuck_and_says_what_is_kept(processes, where):
    process = start(processes, STUCK.format(where=where))
    assert process.stdout is not None
    assert process.stdout.readline() == "stuck\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)  # of minutes
    assert process.returncode == 130
    assert err.splitlines() == [NOTHING_HALF]


@pytest.mark.slow
@needs_proc
def test_ctrl_c_ends_inspect_even_where_a_library_does_not_come_back(processes):
    process = start(processes, DEAF)
    assert process.stdout is not None
    assert process.stdout.readline() == "stuck\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)  # of ages
    assert (process.returncode, err) == (-signal.SIGINT, "")


@pytest.mark.slow
@needs_proc
def test_ctrl_c_while_workers_start_is_one_line_and_leaves_no_process(processes, plant, tmp_path):
    plant(tmp_path / "s.h5", counts=(40, 12, 16))
    words = ["clipmsa", "train", "--features", str(tmp_path / "s.h5"), "--workers", "2"]
    words += ["--seeds", "1,2", "--device", "cpu", "--out", str(tmp_path / "run")]
    process = start(
        processes,
        f"import sys; from clipmsa.cli.main import main; sys.argv = {words}; sys.exit(main())",
    )
    end = time.monotonic() + 120
    while len(members(process.pid)) < 4:  # itself, two workers, and what counts their locks
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    told = err.splitlines()
    assert len(told) == 2, told  # the first is of the store
    assert told[1].startswith("interrupted; finished seeds are kept")
    while members(process.pid):
        assert time.monotonic() < end
        time.sleep(0.01)


# --- a reader that leaves -------------------------------------------------------------------------


@pytest.mark.slow
def test_when_the_reader_leaves_nothing_is_said(plant, tmp_path):
    """As in `clipmsa inspect s.h5 | head -1`."""
    plant(tmp_path / "s.h5", counts=(8, 4, 4))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken_pipe:
        command = [sys.executable, "-m", "clipmsa.cli.main", "inspect", str(tmp_path / "s.h5")]
        ended = subprocess.run(
            command, stdout=broken_pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert "Traceback" not in ended.stderr
    assert "BrokenPipe" not in ended.stderr
    assert "error" not in ended.stderr
