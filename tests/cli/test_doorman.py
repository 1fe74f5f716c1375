"""Who `clipmsa app` answers, and what its page tells of the machine that serves it."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette")  # comes with Gradio, which takes seconds to load

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from clipmsa.cache.errors import MediaError, WeightsError
from clipmsa.cli.app_rows import cells, in_markdown, notes, told
from clipmsa.cli.doorman import Doorman
from clipmsa.fusion.analysis.scored import ScoredUtterance


def status(host: str, origin: str | None = None, names: tuple[str, ...] = ()) -> int:
    """What a request gets that is addressed to `host`, sent by a page of `origin`."""
    routes = [Route("/", lambda request: PlainTextResponse("in"), methods=["GET", "POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(Doorman, names=names)])
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    return TestClient(app).post("/", headers=headers).status_code


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "192.168.0.7"])
def test_its_own_names_are_answered(host: str) -> None:
    assert status(host) == status(host, f"http://{host}") == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.nip.io", "localhost.evil", "", "[", "@"],
)
def test_a_name_that_only_resolves_to_this_machine_is_not(host: str) -> None:
    assert status(host) == status(host, f"http://{host}") == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:9999",
        "http://127.0.0.1:7861",
        "http://127.0.0.1",
        "http://127.0.0.1:7860.evil.example",
        "http://evil.example/127.0.0.1:7860",
    ],
)
def test_pages_of_other_sites_send_nothing(origin: str) -> None:
    assert status("127.0.0.1:7860", origin) == 403


def test_a_name_that_the_user_gives_is_one_of_its_own_behind_a_proxy_too() -> None:
    names = ("Scores.Example", "other.example:8443")
    assert status("scores.example", "https://scores.example", names) == 200
    assert status("127.0.0.1:7860", "https://scores.example", names) == 200
    assert status("other.example:8443", "https://other.example:8443", names) == 200
    assert status("127.0.0.1:7860", "https://scores.example:9999", names) == 403


def test_the_page_tells_names_of_files_and_no_folders(capsys: pytest.CaptureFixture[str]) -> None:
    video = "/home/me/tmp/<b>.mp4"
    assert told(MediaError(f"{video}: no video"), video, None) == "&lt;b&gt;.mp4: no video"
    row = ScoredUtterance(video, 0.0, None, "", error=f"{video}: cannot be decoded")
    assert cells(row)[2] == "<b>.mp4: cannot be decoded"
    missing = WeightsError("weights not found at /home/me/.cache/hub")
    assert "/home" not in told(missing, video, None)
    assert "/home/me/.cache/hub" in capsys.readouterr().err


def test_names_of_streams_are_no_markdown() -> None:
    assert in_markdown("a 1 é") == "a 1 é"
    assert in_markdown("![x](http://h/) <img>") == r"\!\[x\]\(http\:\/\/h\/\) &lt;img&gt;"
    row = ScoredUtterance("a.mp4", 0.0, 1.0, "", score=0.0, untrained=("![x](http://h/)",))
    assert "![x]" not in notes([row])
