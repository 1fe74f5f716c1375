"""`clipmsa app`: the page's own function over HTTP, and what is told where Gradio is missing."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import clipmsa
from clipmsa.cache import FeatureStore
from clipmsa.cli.main import main
from clipmsa.cli.verbs import app as webapp
from clipmsa.extract.datasets.demo import write_demo_dataset
from clipmsa.extract.datasets.read import read_dataset
from clipmsa.extract.engine.pipeline import extract
from clipmsa.extract.engine.plan import Settings
from clipmsa.extract.profiles.profile import load_profile
from clipmsa.fusion.experiments.runs import run
from clipmsa.fusion.training.config import RunConfig, configured

SMALL = configured(RunConfig(), settings=["d=16", "heads=2", "d_ff=16", "epochs=1"])


def test_without_gradio_one_line_says_what_brings_it(monkeypatch, capsys):
    monkeypatch.setattr(webapp, "find_spec", lambda name: None)
    assert main(["app", "runs/mosi"]) == 1
    told = "error: `clipmsa app` needs Gradio: pip install 'clipmsa[app]'\n"
    assert capsys.readouterr() == ("", told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Clips, and a run over two of their streams."""
    tmp_path = tmp_path_factory.mktemp("app")
    write_demo_dataset(tmp_path / "clips", clips=12)
    profile = load_profile("tiny").only(("albert", "esresnext"))
    extract(read_dataset("d", tmp_path / "clips"), tmp_path / "d.h5", Settings(profile, "random"))
    run(FeatureStore(tmp_path / "d.h5"), SMALL, tmp_path / "run", [1])
    return tmp_path


@pytest.fixture(scope="module")
def address(folder) -> Iterator[str]:
    """Where the app serves the run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "clipmsa.cli.main", "app", str(folder / "run")]
    options = ["--port", str(port), "--no-browser", "--device", "cpu", "--max-upload", "1"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*command, *options], stdout=log, stderr=log) as server,
    ):
        try:
            for _ in range(600):
                with socket.socket() as knock:
                    if knock.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gradio") is None, reason="the extra `app` is not installed")
def test_the_page_scores_as_the_command_does(folder, address):
    import gradio_client  # comes with Gradio

    client = gradio_client.Client(address, verbose=False)
    video = folder / "clips" / "Raw" / "demo00" / "0.mp4"
    (folder / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nit was great\n")
    files = [gradio_client.handle_file(str(file)) for file in (video, folder / "words.srt")]
    given = [(files[0], "it was great", None, False), (files[0], "", files[1], False)]
    (whole,) = clipmsa.load(folder / "run", device="cpu").score(video, text="it was great")
    (row,) = client.predict(*given[0], api_name="/score")[1]["data"]
    assert row[:4] == [0, round(whole.end or 0, 3), "it was great", round(whole.score or 0, 2)]
    _, table, remarks = client.predict(*given[1], api_name="/score")
    assert [row[:3] for row in table["data"]] == [[0, 1, "it was great"]]
    assert "Untrained encoders" in remarks
    with pytest.raises(Exception, match="Choose a video first"):
        client.predict(None, "", None, False, api_name="/score")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gradio") is None, reason="the extra `app` is not installed")
def test_it_answers_its_own_names_and_pages_takes_what_fits_and_shows_no_folders(folder, address):
    import requests

    def upload(size: int = 2, **headers: str) -> int:
        files = {"files": ("a.srt", b"x" * size)}
        sent = requests.post(f"{address}/gradio_api/upload", files=files, headers=headers)
        return sent.status_code

    config = requests.get(f"{address}/config")
    assert config.status_code == 200
    assert "Model: run" in config.text
    assert str(folder) not in config.text
    for path in ("/", "/config", "/gradio_api/info"):
        strange = requests.get(f"{address}{path}", headers={"Host": "evil.example"})
        assert strange.status_code == 403
    assert upload() == upload(Origin=address) == 200
    assert upload(Origin="http://evil.example") == upload(Origin="null") == 403
    assert upload(Origin="http://localhost:9999") == 403
    assert upload(size=10**6 + 10_000) == 413
