"""Downloads: they survive bad connections, and what is at the final path is the whole file."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import clipmsa.extract.weights.download as download_module
from clipmsa.cache.errors import WeightsError
from clipmsa.extract.weights.download import download

CONTENT = hashlib.shake_256(b"a checkpoint").digest(2_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
DROP = 40 << 14  # bytes of an answer after which a bad connection breaks


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, over connections as bad as a test asks for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True  # whether it knows them
        self.answers: list[int] = []  # to the next requests: a status, or bytes and then a break
        self.always: int | None = None  # after those
        self.seen: list[str] = []  # the Range of each request
        self.stall = threading.Event()
        self.stall.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.pt"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", server.url)
            self.end_headers()
            return
        asked = self.headers.get("Range", "")
        server.seen.append(asked)
        answer = server.answers.pop(0) if server.answers else server.always
        if answer == 0:
            self.connection.close()  # without a word
            return
        if answer is not None and 400 <= answer < 600:
            self.send_response(answer)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(re.sub(r"\D", "", asked) or 0) if server.ranges else 0
        total = len(server.content)
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        self.wfile.write(server.content[start:][:answer])
        self.wfile.flush()
        server.stall.wait(30)
        if answer is not None:
            self.connection.close()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download_module, "_PAUSE", 0.0)
    with Server() as one:
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        yield one
        one.stall.set()
        one.shutdown()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "model.pt"


def part(path: Path) -> Path:
    return path.with_name("model.pt.part")


def left(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if file.suffix != ".lock")


def test_connections_that_break_are_taken_up_where_they_broke(server: Server, path: Path) -> None:
    server.answers = [DROP, 0, DROP]
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.seen == ["", f"bytes={DROP}-", f"bytes={DROP}-", f"bytes={2 * DROP}-"]
    assert left(path) == ["model.pt"]


def test_a_server_that_knows_no_ranges_is_asked_for_the_whole_again(
    server: Server, path: Path
) -> None:
    server.ranges, server.answers = False, [DROP, DROP]
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_never_gets_through_is_given_up_after_a_bounded_number_of_tries(
    server: Server, path: Path, ranges: bool
) -> None:
    server.ranges, server.answers = ranges, [DROP]
    server.always = 0 if ranges else DROP
    with pytest.raises(WeightsError) as caught:
        download(server.url, path, SHA256)
    assert "\n" not in str(caught.value)
    assert len(server.seen) == 1 + download_module._TRIES
    assert left(path) == ["model.pt.part"]


def test_the_next_run_goes_on_where_the_last_one_gave_up(server: Server, path: Path) -> None:
    server.answers, server.always = [DROP], 0
    with pytest.raises(WeightsError):
        download(server.url, path, SHA256)
    server.always = None
    server.seen.clear()
    download(server.url, path, SHA256)
    assert server.seen == [f"bytes={DROP}-"]
    assert path.read_bytes() == CONTENT


def test_without_a_digest_a_run_begins_anew(server: Server, path: Path) -> None:
    path.parent.mkdir()
    part(path).write_bytes(b"x" * DROP)  # of who knows what
    server.answers = [DROP]
    download(server.url, path)
    assert server.seen == ["", f"bytes={DROP}-"]
    assert path.read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_asked_for(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"kept")
    download(server.url, path, SHA256)
    assert (path.read_bytes(), server.seen) == (b"kept", [])


def test_a_part_that_was_complete_only_gets_its_name(server: Server, path: Path) -> None:
    path.parent.mkdir()
    part(path).write_bytes(CONTENT)  # killed just before the rename
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert left(path) == ["model.pt"]


@pytest.mark.parametrize("size", [DROP, len(CONTENT), len(CONTENT) + 9])
def test_a_part_of_another_file_is_thrown_away(server: Server, path: Path, size: int) -> None:
    path.parent.mkdir()
    part(path).write_bytes(b"x" * size)
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


def test_a_file_with_another_digest_is_refused_and_not_kept(server: Server, path: Path) -> None:
    server.content = b"damaged" + CONTENT[7:]
    with pytest.raises(WeightsError, match=f"SHA-256 is [0-9a-f]{{64}}, must be {SHA256}"):
        download(server.url, path, SHA256)
    assert left(path) == []
    assert len(server.seen) == 1


def test_nothing_is_at_the_path_before_the_file_is_complete(server: Server, path: Path) -> None:
    server.answers = [DROP, DROP]
    seen: list[tuple[int, int]] = []

    def watch(done: int, total: int) -> None:
        assert not path.exists()
        seen.append((done, total))

    download(server.url, path, SHA256, watch)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in seen} == {len(CONTENT)}


@pytest.mark.parametrize(("status", "requests"), [(503, 2), (429, 2), (404, 1), (403, 1)])
def test_a_busy_server_is_asked_again_and_a_refusal_taken(
    server: Server, path: Path, status: int, requests: int
) -> None:
    server.answers = [status]
    if requests == 1:
        with pytest.raises(WeightsError, match=str(status)):
            download(server.url, path, SHA256)
        assert left(path) == []
    else:
        download(server.url, path, SHA256)
    assert len(server.seen) == requests


def test_a_file_that_has_moved_is_taken_up_where_it_broke_all_the_same(
    server: Server, path: Path
) -> None:
    server.answers = [DROP]
    download(server.url.replace("model.pt", "moved"), path, SHA256)  # as GitHub's releases
    assert server.seen == ["", f"bytes={DROP}-"]
    assert path.read_bytes() == CONTENT


def test_two_runs_that_want_the_same_file_download_it_once(server: Server, path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(download, server.url, path, SHA256) for _ in range(2)]
        for run in runs:
            run.result()
    assert len(server.seen) == 1
    assert path.read_bytes() == CONTENT


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_run_that_was_killed_leaves_a_part_to_go_on_from(server: Server, path: Path) -> None:
    server.stall.clear()
    server.answers = [DROP]
    code = f"""
import sys
from pathlib import Path
from clipmsa.extract.weights.download import download
download("{server.url}", Path("{path}"), "{SHA256}", lambda done, total: print(done, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert int(run.stdout.readline()) > 0
        os.kill(run.pid, signal.SIGKILL)
    assert not path.exists()
    server.stall.set()
    kept = part(path).stat().st_size
    download(server.url, path, SHA256)
    assert server.seen == ["", f"bytes={kept}-" if kept else ""]
    assert path.read_bytes() == CONTENT


def test_a_host_out_of_reach_is_given_up_at_once(path: Path) -> None:
    started = time.monotonic()
    for url in ("http://127.0.0.1:9/model.pt", "nonsense://host/model.pt"):
        with pytest.raises(WeightsError):
            download(url, path, SHA256)
    assert time.monotonic() - started < 2
