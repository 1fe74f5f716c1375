"""Checkpoints: found where the messages say, refused when damaged, and never made up."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import pickle
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import safetensors.torch
import torch

import clipmsa.extract.weights.find as weights_module
from clipmsa.cache.errors import ProfileError, WeightsError
from clipmsa.cli.main import main
from clipmsa.extract.engine.plan import Settings, plan_streams
from clipmsa.extract.profiles.profile import load_profile
from clipmsa.extract.weights.find import find_checkpoint, source_of, weights_mode
from clipmsa.extract.weights.tensors import load_strictly, read_state

PAPER = {recipe.name: recipe.source for recipe in load_profile("paper").streams}
NOWHERE = "http://127.0.0.1:9"  # nothing answers there, at once


def unpinned(source: Mapping[str, Any]) -> dict[str, Any]:
    """The source without its SHA-256, so that a stand-in for the file will do."""
    return {key: value for key, value in source.items() if key != "sha256"}


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---- A folder of checkpoints, for machines without network.


@pytest.fixture
def hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hubs that have stand-ins for whatever is asked of them."""

    def snapshot_download(repository: str, **options: Any) -> str:
        folder = Path(options["local_dir"])
        # As facebook/wav2vec2-base, it has its weights in the old format only.
        has = ["config.json", "pytorch_model.bin", "open_clip_model.safetensors", "tokenizer.json"]
        for name in set(has) & set(options["allow_patterns"]):
            write(folder / name, name.encode())
        return str(folder)

    def download(url: str, path: Path, *_: Any) -> None:
        write(path, b"checkpoint")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(weights_module, "download", download)


@pytest.mark.parametrize("stream", PAPER)
def test_a_fetch_puts_files_where_they_are_looked_for(
    stream: str, tmp_path: Path, hubs: None
) -> None:
    source = unpinned(PAPER[stream])
    with pytest.raises(WeightsError):
        find_checkpoint(stream, source, tmp_path)
    found = find_checkpoint(stream, source, tmp_path, fetch=True)
    assert found == find_checkpoint(stream, source, tmp_path)
    assert source_of(found.name) == {
        key: source[key] for key in ("hub", "file", "url") if key in source
    }
    assert found.path is not None
    if found.path.is_file():
        assert found.sha256 == sha256(found.path.read_bytes())
    assert found.identity == {"sha256": found.sha256}


@pytest.mark.parametrize("stream", PAPER)
def test_a_missing_file_is_named_with_its_stream_its_source_and_a_command(
    stream: str, tmp_path: Path
) -> None:
    source = PAPER[stream]
    with pytest.raises(WeightsError) as caught:
        find_checkpoint(stream, source, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert f"'{stream}'" in message
    file = source.get("file") or source.get("url", "model.safetensors").rpartition("/")[2]
    name = source["hub"].partition("/")[2] if "hub" in source else ""
    assert str(tmp_path / name / file) in message
    assert (f"https://huggingface.co/{source['hub']}" if "hub" in source else source["url"]) in (
        message
    )
    assert f"`clipmsa weights fetch --profile paper --dir {tmp_path}`" in message
    assert f"`weights='{tmp_path}'`" in message


def test_a_folder_without_weights_is_a_missing_file(tmp_path: Path) -> None:
    write(tmp_path / "model" / "config.json", b"{}")
    with pytest.raises(WeightsError, match=r"model/model\.safetensors"):
        find_checkpoint("s", {"hub": "org/model"}, tmp_path)


def test_the_old_format_of_a_repository_s_weights_will_do(tmp_path: Path) -> None:
    write(tmp_path / "model" / "config.json", b"{}")
    write(tmp_path / "model" / "pytorch_model.bin", b"old")
    assert find_checkpoint("s", {"hub": "org/model"}, tmp_path).path == tmp_path / "model"


def test_a_repository_s_digest_is_of_the_files_that_features_depend_on(tmp_path: Path) -> None:
    def digest() -> str:
        return find_checkpoint("s", {"hub": "org/model"}, tmp_path).sha256

    folder = tmp_path / "model"
    for name in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        write(folder / name, b"1")
    before = digest()
    for name in ("README.md", "flax_model.msgpack", "pytorch_model.bin", "onnx/model.onnx"):
        write(folder / name, b"1")
    (folder / "tokens").mkdir()
    assert digest() == before
    for name in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        write(folder / name, b"2")
        assert digest() != before
        write(folder / name, b"1")
    write(folder / "spiece.model", b"1")
    assert digest() != before


@pytest.mark.parametrize("digits", [64, 8])
def test_the_right_sha256_is_accepted_and_a_wrong_one_refused(tmp_path: Path, digits: int) -> None:
    file = write(tmp_path / "model.pt", b"good")
    source = {"url": "https://host/model.pt", "sha256": sha256(b"good")[:digits]}
    assert find_checkpoint("s", source, tmp_path).sha256 == sha256(b"good")
    write(file, b"evil")
    with pytest.raises(WeightsError) as caught:
        find_checkpoint("s", source, tmp_path)
    for word in (str(file), sha256(b"evil"), source["sha256"], source["url"]):
        assert word in str(caught.value)


def test_audioclip_s_other_checkpoints_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "AudioCLIP-Full-Training.pt", b"AudioCLIP-Partial-Training.pt, renamed")
    with pytest.raises(WeightsError, match="SHA-256"):
        find_checkpoint("esresnext", PAPER["esresnext"], tmp_path)


def test_weights_are_pretrained_or_random_or_a_folder_that_exists(tmp_path: Path) -> None:
    assert weights_mode("pretrained") == "pretrained"
    assert weights_mode("random") == "random"
    assert weights_mode(str(tmp_path)) == tmp_path
    with pytest.raises(WeightsError, match="no such folder; give pretrained, random"):
        weights_mode(str(tmp_path / "absent"))


def test_random_weights_are_only_used_on_request_and_say_so() -> None:
    for stream, source in PAPER.items():
        checkpoint = find_checkpoint(stream, source, "random")
        assert (checkpoint.path, checkpoint.name) == (None, "random (seed 0)")
        assert checkpoint.identity == {"random": "random (seed 0)", "torch": torch.__version__}


def test_all_missing_streams_are_counted(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'albert'.*\(and 5 more streams lack theirs\)$"):
        plan_streams(Settings(load_profile("paper"), weights=tmp_path))


# ---- The hubs' caches, and no network.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and neither hub in reach."""

    def unreachable(*_: Any, **__: Any) -> Any:
        raise requests.ConnectTimeout("Temporary failure in name resolution")

    # Both constants are read from the environment when huggingface_hub is first imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("requests.get", unreachable)
    return tmp_path


def snapshot(cache: Path, repository: str, files: Mapping[str, bytes]) -> Path:
    """A repository in the Hugging Face cache, as a download leaves it."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder = cache / "hf" / f"models--{repository.replace('/', '--')}"
    write(folder / "refs" / "main", revision.encode())
    for name, content in files.items():
        blob = write(folder / "blobs" / sha256(content), content)
        link = folder / "snapshots" / revision / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return folder / "snapshots" / revision


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_repository_in_the_hub_s_cache_needs_no_network(cache: Path, weights: str) -> None:
    files = {"config.json": b"{}", weights: b"weights", "spiece.model": b"pieces"}
    folder = snapshot(cache, "albert/albert-base-v2", files)
    found = find_checkpoint("albert", PAPER["albert"], "pretrained")
    assert found.path == folder
    for name, content in files.items():
        write(cache / "dir" / "albert-base-v2" / name, content)
    assert found.sha256 == find_checkpoint("albert", PAPER["albert"], cache / "dir").sha256


def test_a_single_file_in_the_hub_s_cache_needs_no_network(cache: Path) -> None:
    name = PAPER["clip_text"]["file"]
    folder = snapshot(cache, PAPER["clip_text"]["hub"], {name: b"clip"})
    found = find_checkpoint("clip_text", PAPER["clip_text"], "pretrained")
    assert (found.path, found.sha256) == (folder / name, sha256(b"clip"))


def test_a_file_in_torch_hub_s_cache_needs_no_network(cache: Path) -> None:
    name = PAPER["face_vgg"]["url"].rpartition("/")[2]
    file = write(cache / "torch" / "hub" / "checkpoints" / name, b"vgg")
    found = find_checkpoint("face_vgg", unpinned(PAPER["face_vgg"]), "pretrained")
    assert (found.path, found.sha256) == (file, sha256(b"vgg"))


@pytest.mark.parametrize("stream", PAPER)
def test_an_empty_cache_without_network_is_a_missing_file(cache: Path, stream: str) -> None:
    with pytest.raises(WeightsError) as caught:
        find_checkpoint(stream, PAPER[stream], "pretrained")
    message = str(caught.value)
    assert "\n" not in message
    assert f"'{stream}' not found at {cache}" in message
    assert "`clipmsa weights fetch --profile paper --dir weights` and pass `weights='weights'`" in (
        message
    )


def test_a_snapshot_without_weights_is_a_missing_file(cache: Path) -> None:
    snapshot(cache, "albert/albert-base-v2", {"config.json": b"{}", "tokenizer.json": b"{}"})
    with pytest.raises(WeightsError, match=r"not found at .*models--albert--albert-base-v2"):
        find_checkpoint("albert", PAPER["albert"], "pretrained")


def test_a_name_that_no_repository_can_have_is_a_missing_file(cache: Path) -> None:
    with pytest.raises(WeightsError, match="Repo id"):
        find_checkpoint("s", {"hub": "a/b/c"}, "pretrained")


def test_what_the_hub_s_http_client_raises_is_a_missing_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behind_a_broken_proxy(*_: Any, **__: Any) -> str:
        raise type("ProxyError", (Exception,), {})("407 Proxy Authentication Required")

    monkeypatch.setattr("huggingface_hub.snapshot_download", behind_a_broken_proxy)
    with pytest.raises(WeightsError, match=r"not found at .*407 Proxy Authentication Required"):
        find_checkpoint("albert", PAPER["albert"], "pretrained")


def test_the_command_line_says_what_is_missing_in_one_line(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = write(cache / "clips.csv", b"path,text,label,split\na.mp4,a film,0.5,train\n")
    out = cache / "store.h5"
    assert main(["extract", "--dataset", str(table), "--out", str(out)]) == 1
    printed = capfd.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: weights of 'albert' not found")
    assert "`clipmsa weights fetch --profile paper --dir weights`" in line
    assert "(and 5 more streams lack theirs)" in line
    assert not printed.out
    assert not out.exists()


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "no_proxy": "*", "NO_PROXY": "*", "HF_HUB_OFFLINE": "0", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
def test_hubs_out_of_reach_are_noticed_at_once(tmp_path: Path) -> None:
    code = f"""
import time
from clipmsa.extract.weights.find import find_checkpoint
for source in ({{"hub": "a/b"}}, {{"hub": "a/b", "file": "c"}}, {{"url": "{NOWHERE}/c.pt"}}):
    started = time.monotonic()
    try:
        find_checkpoint("s", source, "pretrained")
    except Exception as error:
        print(type(error).__name__, time.monotonic() - started < 5)
"""
    done = run(code, HF_ENDPOINT=NOWHERE, HF_HOME=str(tmp_path), TORCH_HOME=str(tmp_path))
    assert done.stdout.splitlines() == ["WeightsError True"] * 3, done.stderr


# ---- Downloads, from servers on this machine.


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Mapping[str, bytes]], str]]:
    """Start a web server that has some files, by path; gives its address."""
    monkeypatch.setenv("no_proxy", "*")
    running: list[http.server.ThreadingHTTPServer] = []

    def start(files: Mapping[str, bytes]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = files.get(self.path.partition("?")[0])
                self.send_response(404 if content is None else 200)
                content = content or b"absent"
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{sha256(content)}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None: ...

        one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(one)
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{one.server_port}"

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_a_file_is_downloaded_once_and_kept(
    server: Callable[[Mapping[str, bytes]], str], torch_home: Path
) -> None:
    files = {"/model.pt": b"weights"}
    source = {"url": f"{server(files)}/model.pt?download=1", "sha256": sha256(b"weights")}
    found = find_checkpoint("s", source, "pretrained")
    assert (found.path, found.sha256) == (torch_home / "model.pt", sha256(b"weights"))
    files.clear()
    assert find_checkpoint("s", source, "pretrained") == found


def test_a_damaged_download_is_refused_and_not_kept(
    server: Callable[[Mapping[str, bytes]], str], torch_home: Path
) -> None:
    files = {"/model.pt": b"damaged"}
    source = {"url": f"{server(files)}/model.pt", "sha256": sha256(b"weights")}
    with pytest.raises(WeightsError, match="SHA-256"):
        find_checkpoint("s", source, "pretrained")
    assert not [file for file in torch_home.iterdir() if file.suffix != ".lock"]
    files["/model.pt"] = b"weights"
    assert find_checkpoint("s", source, "pretrained").sha256 == sha256(b"weights")


def test_a_file_that_a_server_does_not_have_is_missing(
    server: Callable[[Mapping[str, bytes]], str], torch_home: Path
) -> None:
    with pytest.raises(WeightsError, match="404"):
        find_checkpoint("s", {"url": f"{server({})}/model.pt"}, "pretrained")


def test_a_silent_server_is_given_up(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipmsa.extract.weights.download._TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/model.pt"
        hang_up = threading.Timer(5, silent.shutdown, (socket.SHUT_RDWR,))
        hang_up.start()
        with pytest.raises(WeightsError, match="timed out"):
            find_checkpoint("s", {"url": url}, "pretrained")
        hang_up.cancel()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("url", ["model.pt", "https://host/models/"])
def test_an_address_that_is_no_file_s_is_refused(torch_home: Path, url: str) -> None:
    with pytest.raises(ProfileError, match=f"'s'.*{url}"):
        find_checkpoint("s", {"url": url}, "pretrained")
    assert not torch_home.exists()


def repository(name: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What the Hugging Face hub answers for a repository, by path."""
    revision = "0" * 40
    siblings = [{"rfilename": file} for file in files]
    tree = [
        {"type": "file", "path": file, "size": len(content), "oid": sha256(content)[:40]}
        for file, content in files.items()
    ]
    info = {"id": name, "modelId": name, "sha": revision, "siblings": siblings, "tags": []}
    return {
        f"/api/models/{name}": json.dumps(info).encode(),
        f"/api/models/{name}/revision/main": json.dumps(info).encode(),
        f"/api/models/{name}/tree/{revision}": json.dumps(tree).encode(),
        **{f"/{name}/resolve/{revision}/{file}": content for file, content in files.items()},
    }


@pytest.mark.slow
def test_a_repository_is_downloaded_in_the_one_format_that_is_needed(
    server: Callable[[Mapping[str, bytes]], str], tmp_path: Path
) -> None:
    common = {"config.json": b"{}", "tokenizer.json": b"{}", "README.md": b"x", "tf_model.h5": b"x"}
    both = {**common, "model.safetensors": b"new", "pytorch_model.bin": b"old"}
    # Like facebook/wav2vec2-base.
    old = {**common, "preprocessor_config.json": b"{}", "pytorch_model.bin": b"old"}
    single = {**common, "open_clip_model.safetensors": b"clip", "open_clip_pytorch_model.bin": b"x"}
    address = server(
        {**repository("a/both", both), **repository("a/old", old), **repository("a/one", single)}
    )
    code = """
from clipmsa.extract.weights.find import find_checkpoint
one = {"hub": "a/one", "file": "open_clip_model.safetensors"}
for source in ({"hub": "a/both"}, {"hub": "a/old"}, one):
    path = find_checkpoint("s", source, "pretrained").path
    print(*sorted(file.name for file in (path.parent if path.is_file() else path).iterdir()))
"""
    # One is begun already, as by a program that asked for the configuration only.
    begun = tmp_path / "hf" / "hub" / "models--a--both"
    write(begun / "refs" / "main", b"0" * 40)
    write(begun / "snapshots" / ("0" * 40) / "config.json", common["config.json"])
    # Once from the server, once from the cache.
    for endpoint in (address, NOWHERE):
        done = run(code, HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "hf"))
        assert done.stdout.splitlines() == [
            "config.json model.safetensors tokenizer.json",
            "config.json preprocessor_config.json pytorch_model.bin tokenizer.json",
            "open_clip_model.safetensors",
        ], done.stderr


def profile(file: Path, **sources: str) -> Path:
    """A profile of text encoders with these sources."""
    write(
        file,
        "\n".join(
            f"[streams.{name}]\nencoder = 'transformers-text'\nbranch = 'own'\nsource = {source}"
            for name, source in sources.items()
        ).encode(),
    )
    return file


@pytest.mark.slow
def test_the_command_in_a_message_gets_what_is_missing(
    server: Callable[[Mapping[str, bytes]], str], tmp_path: Path
) -> None:
    text = {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"old"}
    single = {"open_clip_model.safetensors": b"clip", "config.json": b"{}"}
    files = {**repository("a/text", text), **repository("a/one", single), "/model.pt": b"weights"}
    address = server(files)
    mine = profile(
        tmp_path / "my profile.toml",
        text="{ hub = 'a/text' }",
        clip="{ hub = 'a/one', file = 'open_clip_model.safetensors' }",
        sound=f"{{ url = '{address}/model.pt', sha256 = '{sha256(b'weights')}' }}",
        again=f"{{ url = '{address}/model.pt', sha256 = '{sha256(b'weights')}' }}",
    )
    folder = tmp_path / "a folder"
    folder.mkdir()
    settings = Settings(load_profile(str(mine)), weights=folder)
    with pytest.raises(WeightsError) as caught:
        plan_streams(settings)
    quoted = re.search("get them with `(.+?)`", str(caught.value))
    assert quoted is not None
    command = shlex.split(quoted[1])
    code = f"from clipmsa.cli.main import main; print(main({command[1:]}))"
    done = run(code, HF_ENDPOINT=address, HF_HOME=str(tmp_path / "hf"))
    assert done.stdout == "0\n", done.stderr
    assert "sound, again: " in done.stderr
    assert {name: plan.checkpoint.path for name, plan in plan_streams(settings).items()} == {
        "text": folder / "text",
        "clip": folder / "one" / "open_clip_model.safetensors",
        "sound": folder / "model.pt",
        "again": folder / "model.pt",
    }
    # A fetch that was killed had left this out; and the table shows what there is.
    (folder / "text" / "tokenizer.json").unlink()
    again = run(code, HF_ENDPOINT=address, HF_HOME=str(tmp_path / "hf"))
    assert again.stdout == "0\n", again.stderr
    assert (folder / "text" / "tokenizer.json").read_bytes() == b"{}"


def test_the_table_shows_what_is_there_and_what_is_missing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "w" / "right.pt", b"right")
    write(tmp_path / "w" / "wrong.pt", b"wrong")
    mine = profile(
        tmp_path / "p.toml",
        a=f"{{ url = 'http://h/right.pt', sha256 = '{sha256(b'right')}' }}",
        b=f"{{ url = 'http://h/wrong.pt', sha256 = '{sha256(b'other')}' }}",
        c="{ url = 'http://h/none.pt', sha256 = 'beef', megabytes = 77 }",
        d="{ hub = 'org/model' }",
    )
    line = ["weights", "list", "--profile", str(mine), "--dir", str(tmp_path / "w")]
    assert main(line) == 0
    printed = capfd.readouterr()
    rows = [row for row in printed.out.splitlines() if "http" in row]
    for row, words in zip(
        rows,
        (
            [" a ", "http://h/right.pt", sha256(b"right")[:16]],
            [" b ", sha256(b"other")[:16], "another file, or damaged"],
            [" c ", "77", "beef", "missing"],
            [" d ", "https://huggingface.co/org/model", "not given", "missing"],
        ),
        strict=True,
    ):
        assert all(word in row for word in words), row
    assert "3 missing" in printed.err
    assert f"clipmsa weights fetch --profile {mine}" in printed.err


def test_the_table_is_what_weights_does_and_asks_no_hub(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights"]) == 0
    printed = capfd.readouterr()
    assert printed.out.count("missing") == 5  # two streams share one file
    assert "2441d35b353352c8" in printed.out
    assert "5 missing; `clipmsa weights fetch --profile paper` gets them" in printed.err
    assert main(["weights", "list", "--profile", "audioclip"]) == 0
    assert capfd.readouterr().out.count("missing") == 4  # three share one


def test_a_profile_of_random_weights_needs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for action in ("list", "fetch"):
        assert main(["weights", action, "--profile", "tiny"]) == 0
        assert "needs no checkpoints" in capfd.readouterr().err


def test_what_cannot_be_fetched_does_not_keep_the_rest_away(
    server: Callable[[Mapping[str, bytes]], str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address = server({"/there.pt": b"weights"})
    mine = profile(
        tmp_path / "p.toml",
        a=f"{{ url = '{address}/absent.pt' }}",
        b=f"{{ url = '{address}/there.pt' }}",
    )
    assert main(["weights", "fetch", "--profile", str(mine), "--dir", str(tmp_path / "w")]) == 1
    assert (tmp_path / "w" / "there.pt").read_bytes() == b"weights"
    *_, last = capfd.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert "404" in last


# ---- Checkpoints of the user's own.


def test_a_path_is_taken_from_where_the_profile_is_and_needs_no_hub(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        write(tmp_path / "models" / "own" / name, b"1")
    write(tmp_path / "elsewhere" / "vgg.pth", b"vgg")
    mine = profile(
        tmp_path / "p.toml",
        a="{ path = 'models/own' }",
        b=f"{{ path = '{tmp_path}/elsewhere/vgg.pth', sha256 = '{sha256(b'vgg')}' }}",
    )
    for mode in ("pretrained", tmp_path / "elsewhere"):
        plans = plan_streams(Settings(load_profile(str(mine)), weights=mode))
        a, b = (plans[name].checkpoint for name in "ab")
        assert (a.path, a.name) == (tmp_path / "models" / "own", f"path:{a.path}")
        assert (b.path, b.sha256) == (tmp_path / "elsewhere" / "vgg.pth", sha256(b"vgg"))


@pytest.mark.parametrize("there", [[], ["config.json"]])
def test_a_path_with_nothing_in_it_is_a_missing_file(tmp_path: Path, there: list[str]) -> None:
    for name in there:
        write(tmp_path / "own" / name, b"1")
    with pytest.raises(WeightsError, match=f"'s' not found at {tmp_path}/own.*put them there"):
        find_checkpoint("s", {"path": str(tmp_path / "own")}, "pretrained")


def test_a_file_that_several_streams_share_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "AudioCLIP-Full-Training.pt", b"all three towers")
    hashed: list[Path] = []

    def digest(files: list[Path]) -> str:
        hashed.extend(files)
        return sha256(b"any")

    monkeypatch.setattr(weights_module, "sha256_of_files", digest)
    audioclip = load_profile("audioclip").only(("clip_text", "clip_image", "esresnext"))
    streams = tuple(replace(r, source=unpinned(r.source)) for r in audioclip.streams)
    plans = plan_streams(Settings(replace(audioclip, streams=streams), weights=tmp_path))
    assert len({plan.checkpoint for plan in plans.values()}) == 1
    assert len(hashed) == 1


# ---- What is read from a checkpoint.


class Trap:
    """A pickle of it runs a command in whoever loads it."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.sign}",)


def trap(form: str, sign: Path) -> bytes:
    if form == "bare pickle":
        return pickle.dumps(Trap(sign), protocol=2)
    written = io.BytesIO()
    torch.save({"a": Trap(sign)}, written, _use_new_zipfile_serialization=form == "zip")
    return written.getvalue()


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
@pytest.mark.parametrize("name", ["vgg.pth", "AudioCLIP.pt", "pytorch_model.bin"])
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(
    tmp_path: Path, form: str, name: str
) -> None:
    sign = tmp_path / "sign"
    file = write(tmp_path / name, trap(form, sign))
    with pytest.raises(WeightsError, match=f"{name}: not a checkpoint of plain tensors"):
        read_state(file)
    assert not sign.exists()
    # The trap is a real one.
    with suppress(RuntimeError):
        torch.load(file, weights_only=False)
    assert sign.exists()


def test_openai_s_own_file_is_refused_with_the_one_to_take_instead(tmp_path: Path) -> None:
    file = tmp_path / "RN50.pt"
    # What makes a zip file TorchScript to torch. The real one is not made here: torch warns.
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"RN50/{name}", b"")
    with pytest.raises(WeightsError, match=r"RN50\.pt: a TorchScript .*resnet50_clip\.openai"):
        read_state(file)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
@pytest.mark.parametrize("content", [b"<html>404 Not Found</html>" * 9, b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(WeightsError, match=name):
        read_state(write(tmp_path / name, content))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_checkpoint_that_was_cut_off_is_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"model.{suffix}"
    save(torch.nn.Linear(99, 99).state_dict(), file)
    file.write_bytes(file.read_bytes()[:20000])
    with pytest.raises(WeightsError, match=file.name):
        read_state(file)


def test_a_checkpoint_of_something_else_than_tensors_by_name_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth: holds a list"):
        read_state(tmp_path / "list.pth")


def save(state: Mapping[str, torch.Tensor], file: Path) -> None:
    if file.suffix == ".safetensors":
        safetensors.torch.save_file(dict(state), file)
    else:
        torch.save(dict(state), file)


@pytest.mark.parametrize("legacy", [False, True])
def test_both_of_torch_s_formats_are_read(tmp_path: Path, legacy: bool) -> None:
    state = torch.nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "m.pth", _use_new_zipfile_serialization=not legacy)
    module = torch.nn.Linear(3, 2)
    load_strictly(module, read_state(tmp_path / "m.pth"), tmp_path / "m.pth")
    assert torch.equal(module.weight, state["weight"])


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("bias"), ["Missing key", "bias"]),
        (lambda state: state.update(extra=torch.ones(1)), ["Unexpected key", "extra"]),
        (lambda state: state.update(bias=torch.ones(5)), ["size mismatch for bias"]),
    ],
)
def test_a_checkpoint_that_does_not_fit_key_for_key_is_refused(
    tmp_path: Path, name: str, change: Callable[[Any], None], words: list[str]
) -> None:
    state = dict(torch.nn.Linear(3, 2).state_dict())
    change(state)
    save(state, tmp_path / name)
    with pytest.raises(WeightsError) as caught:
        load_strictly(torch.nn.Linear(3, 2), read_state(tmp_path / name), tmp_path / name)
    for word in (str(tmp_path / name), *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
