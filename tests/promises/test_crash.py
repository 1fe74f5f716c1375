"""Kills, full disks and second runs: what is at the output is whole, and a rerun completes it.

Processes and signals are real, encoders are stand-ins that are quick and log what they encode.
This file is also the program that the tests run (`serve`): it loads torch once and forks a process
for each command line, so that dozens of them take seconds.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torchaudio.functional  # noqa: F401  (loaded before forking, not in every process)
from torch import nn

from clipmsa.cache import FeatureStore, files, writer
from clipmsa.cache.plugins import Registry
from clipmsa.cli.main import main
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.encoders import registry
from clipmsa.extract.encoders.encoder import Encoder
from clipmsa.extract.engine import feature_index, pipeline
from clipmsa.workflows import _MOST_LANES

pytestmark = pytest.mark.slow

CLIPS = 40
BROKEN = (7, 22, 38, 39)  # the last ones too: a rerun may find nothing else left to do
PART, BATCH = 3, 2  # clips
LANES = min(_MOST_LANES, os.cpu_count() or 1)
# Most clips encoded and not yet published: in a part, and in lanes with the one that waits.
IN_FLIGHT = PART - 1 + BATCH * (LANES + 1 if LANES > 1 else 1)
RATE = 8000


# --- the program ----------------------------------------------------------------------------------


class Stub(Encoder):
    log: ClassVar[Path]
    seconds: ClassVar[float]

    def __init__(self, setup, *, scale=1.0):
        torch.manual_seed(0)
        super().__init__(setup, nn.Linear(1, 1))
        self.scale = scale

    def features(self, item: Any) -> Any:
        raise NotImplementedError

    def _encode(self, items):
        time.sleep(Stub.seconds)
        return [torch.from_numpy(self.features(item)) * self.scale for item in items]


class StubText(Stub):
    modality, consumes, level, dim = "text", "text", "utterance", 3
    lock = threading.Lock()

    def _encode(self, items):
        with StubText.lock:  # of the lanes
            while held(Stub.log):
                time.sleep(0.01)
            with Stub.log.open("a", encoding="utf-8") as file:
                file.write("".join(f"{text}\n" for text in items))
        return super()._encode(items)

    def features(self, text):
        return np.full((1, 3), len(text), np.float32)


class StubSound(Stub):
    modality, consumes, level, dim, sample_rate = "audio", "waveform", "utterance", 2, RATE

    def features(self, waveform):
        return np.array([[len(waveform) / RATE, np.abs(waveform).mean()]], np.float32)


class StubFrames(Stub):
    modality, consumes, level, dim = "vision", "frames", "sequence", 768

    def prepare(self, frame):
        return frame.mean((0, 1))

    def features(self, frames):
        return np.repeat(np.array(frames, np.float32), 256, axis=1)


def held(log: Path) -> bool:
    """Whether as many clips as `hold` allows are encoded, and nothing has let go."""
    try:
        most = int(log.with_suffix(".hold").read_text())
    except FileNotFoundError:
        return False
    return log.exists() and len(log.read_text().splitlines()) >= most


STUBS = {
    "words": f"{__name__}:StubText",
    "sound": f"{__name__}:StubSound",
    "frames": f"{__name__}:StubFrames",
}


def serve() -> None:
    """Fork a process for each {"start": order} on stdin, answer its pid; {"wait": pid}: status."""
    registry.ENCODERS = Registry("encoder", STUBS)
    pipeline._PART_CLIPS = PART
    main(["extract", "--dataset", "nothing"])  # loads what is loaded late
    gc.freeze()  # or the first collection would copy the server's memory into each process
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                status = run(**request["start"])
                sys.stderr.flush()
                os._exit(status)
        print(answer, flush=True)


def run(
    arguments: list[str],
    output: str,
    log: str,
    seconds: float,
    die_at: int | None,
    largest_file: int | None,
    open_files: int | None,
) -> int:
    """Run a command line in this process, under the limits of an order."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells' background jobs ignore it
    Stub.log, Stub.seconds = Path(log), seconds
    if largest_file is not None:  # Python ignores SIGXFSZ, so that writes fail as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if open_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    if die_at is not None:
        sys.settrace(Killer(die_at))
    sys.argv = ["clipmsa", *arguments]
    return main()


class Killer:
    """A tracer that kills this process at the nth line (each counts once) from assembly on."""

    WHERE: ClassVar = {
        inspect.unwrap(function).__code__
        for function in (
            pipeline.extract,
            pipeline._only_writer,
            feature_index.Filed.assemble,
            writer.write_store,
            writer._write_stream,
            files.publish,
        )
    }

    def __init__(self, lines: int) -> None:
        self.left = lines
        self.assembling = False
        self.seen: set[tuple[CodeType, int]] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Killer | None:
        code = frame.f_code
        if code not in self.WHERE:
            return None
        self.assembling = self.assembling or code is feature_index.Filed.assemble.__code__
        if self.assembling and event == "line" and (code, frame.f_lineno) not in self.seen:
            self.seen.add((code, frame.f_lineno))
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
        return self


# --- its control ----------------------------------------------------------------------------------


class Process:
    """One forked process that runs `clipmsa extract`."""

    def __init__(self, server: Server, pid: int, output: Path) -> None:
        self.server, self.pid, self.output = server, pid, output

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)  # until `wait`, an ended one stays as a zombie under its pid

    def wait(self) -> int:
        """Its exit status; minus the signal that ended it."""
        return self.server.ask({"wait": self.pid})

    @property
    def lines(self) -> list[str]:
        lines = self.output.read_text().splitlines()
        return [line for line in lines if not line.startswith("check: ")]  # on the one video


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = 0
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def ask(self, request: object) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(
        self,
        out: Path,
        *more: str,
        profile: str = "one",
        seconds: float = 0.0,
        die_at: int | None = None,
        largest_file: int | None = None,
        open_files: int | None = None,
    ) -> Process:
        self.started += 1
        output = self.folder / f"{self.started}.txt"
        arguments = ["extract", "--dataset", str(self.folder / "d"), "--out", str(out)]
        arguments += ["--profile", str(self.folder / f"{profile}.toml")]
        arguments += ["--batch-size", str(BATCH), "--device", "cpu", *more]
        order = {
            "arguments": arguments,
            "output": str(output),
            "log": str(log_of(out)),
            "seconds": seconds,
            "die_at": die_at,
            "largest_file": largest_file,
            "open_files": open_files,
        }
        return Process(self, self.ask({"start": order}), output)

    def stop(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """The program, over forty clips of which four are broken."""
    folder = tmp_path_factory.mktemp("crash")
    rows = ["video_id,clip_id,text,label,mode"]
    for i in range(CLIPS):
        path = folder / "d" / "Raw" / "v" / f"{i}.mp4"
        picture = np.full((32, 48, 3), 10 + 5 * i, np.uint8)
        sound = (i + 1) / 50 * np.sin(np.arange(RATE // 5) / 5).astype(np.float32)
        write_clip(path, [picture] * 2, 10, sound, RATE)
        if i in BROKEN:
            path.write_bytes(b"not a clip")
        rows.append(f"v,{i},text of v$_${i},{i / 20 - 1},{('train', 'valid', 'test')[i % 3]}")
    (folder / "d" / "label.csv").write_text("\n".join(rows))
    for name, scale in (("one", 1.0), ("two", 2.0)):
        (folder / f"{name}.toml").write_text(
            'weights = "random"\n[media]\nfps = 10\n[streams]\n'
            'frames = { encoder = "frames", branch = "own" }\n'
            'sound = { encoder = "sound", branch = "own" }\n'
            f'words = {{ encoder = "words", branch = "own", scale = {scale} }}\n'
        )
    server = Server(folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def one(server) -> Path:
    """The store of an uninterrupted run with profile one."""
    return uninterrupted(server, "one")


@pytest.fixture(scope="module")
def two(server) -> Path:
    return uninterrupted(server, "two")


def uninterrupted(server: Server, profile: str) -> Path:
    out = server.folder / profile / "s.h5"
    out.parent.mkdir()
    assert server.start(out, profile=profile).wait() == 0
    assert len(encoded(out)) == CLIPS - len(BROKEN)
    assert [i for i, _, _ in FeatureStore(out).failed] == [f"v$_${i}" for i in BROKEN]
    log_of(out).unlink()
    return out


def log_of(out: Path) -> Path:
    return out.with_suffix(".log")


def encoded(out: Path) -> list[str]:
    """The ids of the clips encoded for an output so far, in order, over all its runs."""
    log = log_of(out)
    return log.read_text().replace("text of ", "").splitlines() if log.exists() else []


@contextmanager
def hold(out: Path, most: int) -> Iterator[None]:
    """No run encodes more clips for an output than this: it waits, however slow this process is."""
    place = log_of(out).with_suffix(".hold")
    place.write_text(str(most))
    yield
    place.unlink()


def contents(path: Path) -> dict[str, Any] | None:
    """All that the store at `path` says, without the time it was written; None without one."""
    if not path.exists():
        return None
    store = FeatureStore(path)
    return {
        "table": store.utterances.to_dict("list"),
        "failed": store.failed,
        **{
            name: (s.spec, s.values.tobytes(), s.offsets.tolist())
            for name, s in store.streams.items()
        },
    }


def parts(out: Path) -> list[Path]:
    return list(out.parent.glob(f".{out.name}.parts/*.h5"))


def published(out: Path) -> set[str]:
    """The ids in all parts; raises where one of them cannot be read."""
    stores = [FeatureStore(part) for part in parts(out)]
    assert all(np.isfinite(s.values).all() for store in stores for s in store.streams.values())
    return {id_ for store in stores for id_ in store.ids}


def assert_nothing_else(out: Path) -> None:
    """Neither parts nor locks nor temporary files are left beside the output."""
    assert {path.name for path in out.parent.iterdir()} - {log_of(out).name} == {out.name}


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def copy(store: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(store, out)


def assert_told_in_one_line(process: Process, *words: str) -> None:
    expected = (
        "warning: encoders with random weights are untrained",
        "extract ",
    )  # what is said of any run
    lines = [line for line in process.lines if not line.startswith(expected)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines


# --- kills ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_killed_at_any_instant_goes_on_where_it_was(server, one, two, tmp_path, overwrite):
    """`overwrite`: another store was there before, and stays whole until it is replaced."""
    chance = random.Random(int(overwrite))
    kills, wanted = 0, 13
    new = contents(two)
    for number in range(100):
        if kills >= wanted:
            break
        out = tmp_path / str(number) / "s.h5"
        out.parent.mkdir()
        if overwrite:
            copy(one, out)
        before = contents(out)
        status, killed_here, safe = -1, 0, set[str]()
        while status != 0:
            started = len(encoded(out))
            more = ["--overwrite"] if overwrite else []
            process = server.start(out, *more, profile="two", seconds=0.004)
            time.sleep(chance.uniform(0.02, 0.4))
            process.signal(signal.SIGKILL)
            status = process.wait()
            assert status in (0, -signal.SIGKILL), process.lines
            killed_here += status != 0
            assert contents(out) in (before, new)
            assert not safe & set(encoded(out)[started:]), "what was published was encoded again"
            if contents(out) == new:
                break  # with --overwrite, once more would mean from the start
            safe = published(out)
        assert contents(out) == new
        if not overwrite:
            assert server.start(out, profile="two").wait() == 0
            assert_nothing_else(out)
        assert len(encoded(out)) <= CLIPS - len(BROKEN) + killed_here * IN_FLIGHT
        kills += killed_here
    assert kills >= wanted


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_at_any_line_of_the_assembly_leaves_the_old_store_or_the_new(
    server, one, two, tmp_path, overwrite
):
    """From where the parts are all there to the end; every other line here, the rest there."""
    complete = tmp_path / "complete" / "s.h5"
    complete.parent.mkdir()
    more = ["--limit", "12"]
    if overwrite:
        assert server.start(complete, *more).wait() == 0
        more.append("--overwrite")
    assert server.start(complete, *more, profile="two", die_at=0).wait() == -signal.SIGKILL
    assert len(published(complete)) == 11
    found = [contents(complete)]
    for line in range(int(overwrite), 1000, 2):
        out = tmp_path / str(line) / "s.h5"
        shutil.copytree(complete.parent, out.parent)
        status = server.start(out, *more, profile="two", die_at=line).wait()
        found.append(contents(out))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert server.start(out, *more, profile="two").wait() == 0
        assert contents(out) == found[-1] or found[-1] == found[0]
        assert_nothing_else(out)
    assert line > 40, "there are more lines than that"
    assert [now for now, before in zip(found[1:], found, strict=False) if now != before] == [
        contents(out)
    ], "something between the old store and the new"


# --- full disks -----------------------------------------------------------------------------------


def test_a_disk_that_is_full_while_a_part_is_published_is_an_error_of_one_line(
    server, two, tmp_path
):
    out = tmp_path / "s.h5"
    process = server.start(out, profile="two", largest_file=9000)
    assert process.wait() == 1
    assert_told_in_one_line(process)
    assert not out.exists()
    assert server.start(out, profile="two").wait() == 0
    assert contents(out) == contents(two)
    assert_nothing_else(out)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_disk_that_is_full_at_the_end_costs_nothing_that_was_encoded(
    server, one, two, tmp_path, share
):
    out = tmp_path / "s.h5"
    copy(one, out)
    limit = round(two.stat().st_size * share)
    process = server.start(out, "--overwrite", profile="two", largest_file=limit)
    assert process.wait() == 1
    assert_told_in_one_line(process)
    assert contents(out) == contents(one)
    assert max(part.stat().st_size for part in parts(out)) < limit
    assert len(published(out)) == CLIPS - len(BROKEN)
    assert server.start(out, "--overwrite", profile="two").wait() == 0
    assert contents(out) == contents(two)
    assert len(encoded(out)) == CLIPS - len(BROKEN)
    assert_nothing_else(out)


def test_many_parts_do_not_run_out_of_open_files(server, two, tmp_path):
    """A part may hold its file open; a thousand of them may not, at the usual limit of 1024."""
    out = tmp_path / "s.h5"
    assert server.start(out, profile="two", open_files=24).wait() == 0
    assert contents(out) == contents(two)


# --- two runs at once, and interruptions ----------------------------------------------------------

KEPT = "interrupted; what is encoded is kept, and the same command goes on from there"


def test_of_two_runs_at_once_one_is_refused(server, two, tmp_path):
    out = tmp_path / "s.h5"
    with hold(out, 6):
        first = server.start(out, profile="two")
        wait_for(lambda: encoded(out))
        second = server.start(out, profile="two")
        assert second.wait() == 1
        assert_told_in_one_line(second, "another run is writing to it", str(out))
    assert first.wait() == 0
    assert contents(out) == contents(two)
    assert len(encoded(out)) == CLIPS - len(BROKEN)
    assert_nothing_else(out)


def test_the_lock_of_a_killed_run_is_no_obstacle(server, two, tmp_path):
    out = tmp_path / "s.h5"
    with hold(out, 12):
        first = server.start(out, profile="two")
        wait_for(lambda: parts(out))
        assert server.start(out, profile="two").wait() == 1
        first.signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    assert (tmp_path / ".s.h5.parts" / ".lock").exists()
    assert server.start(out, profile="two").wait() == 0
    assert contents(out) == contents(two)
    assert len(encoded(out)) <= CLIPS - len(BROKEN) + IN_FLIGHT
    assert_nothing_else(out)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_an_interrupted_run_says_what_is_kept_and_goes_on_when_run_again(
    server, one, two, tmp_path, number, status
):
    out = tmp_path / "s.h5"
    copy(one, out)
    chance = random.Random(0)
    safe: set[str] = set()
    for _ in range(4):
        started = len(encoded(out))
        with hold(out, started + 7):
            process = server.start(out, "--overwrite", profile="two", seconds=0.04)
            wait_for(lambda so_far=started: len(encoded(out)) > so_far)
            time.sleep(chance.uniform(0, 0.2))
            process.signal(number)
            assert process.wait() == status, process.lines
        told = process.lines[1:]  # the first is of untrained encoders
        assert told == ([KEPT] if number == signal.SIGINT else []), told
        assert contents(out) == contents(one)
        assert not safe & set(encoded(out)[started:])
        safe = published(out)
    assert server.start(out, "--overwrite", profile="two").wait() == 0
    assert contents(out) == contents(two)
    assert len(encoded(out)) <= CLIPS - len(BROKEN) + 4 * IN_FLIGHT
    assert_nothing_else(out)


if __name__ == "__main__":
    serve()
