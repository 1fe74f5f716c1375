"""Predictions read back from JSON lines: rows by video, the timeline's bars, and its clock."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from urllib.parse import unquote

import html5lib
import pytest
from plotly.offline import get_plotlyjs

from clipmsa.cache.errors import TableError
from clipmsa.cli.main import main
from clipmsa.fusion.analysis.scored import ScoredUtterance
from clipmsa.fusion.report import scored_videos
from clipmsa.fusion.report.chart import GREY, RED, TEAL
from clipmsa.fusion.report.charts_timeline import clock_ticks, timeline


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def row(start: float, score: float | None = 1.0, file: str = "a.mp4", **more) -> dict[str, object]:
    return {"file": file, "start": start, "end": start + 2, "text": "well", "score": score, **more}


def test_rows_come_by_video_in_order_of_time(tmp_path):
    path = write(tmp_path / "s.jsonl", row(4), row(0, file="b.mp4"), row(2, untrained=["albert"]))
    scored = scored_videos(path, {"a.mp4": "../a.mp4"}.get)
    assert [(video.file, video.source) for video in scored.videos] == [
        ("a.mp4", "../a.mp4"),
        ("b.mp4", None),
    ]
    assert [utterance.start for utterance in scored.videos[0].utterances] == [2, 4]
    assert scored.untrained == ["albert"]


def test_every_field_that_predict_writes_is_known(tmp_path):
    """The two ends of the JSON are in different folders; this holds them together."""
    predicted = ScoredUtterance(
        "a.mp4", 1.5, 3.0, "well", 0.7, "weakly positive", 0.2, {"text": 0.1}, ("audio",)
    )
    path = write(tmp_path / "s.jsonl", asdict(predicted))
    [utterance] = scored_videos(path, lambda file: None).videos[0].utterances
    assert (utterance.start, utterance.end, utterance.score) == (1.5, 3.0, 0.7)
    assert (utterance.word, utterance.spread) == ("weakly positive", 0.2)
    assert (utterance.contributions, utterance.missing) == ({"text": 0.1}, ("audio",))


def test_a_bar_is_where_and_as_long_as_what_was_said(tmp_path):
    path = write(tmp_path / "s.jsonl", row(0, 2.0, spread=0.3), row(6, -1.0), row(8, 0.2))
    [video] = scored_videos(path, lambda file: None).videos
    bars = video.charts[0].figure.data[0]
    assert bars.x == (1, 7, 9)
    assert bars.width == pytest.approx((1.94, 1.94, 1.94))
    assert bars.y == (2.0, -1.0, 0.2)
    assert bars.error_y.array == (0.3, 0, 0)
    assert bars.marker.color == (TEAL, RED, GREY)
    assert bars.customdata == (0, 6, 8)
    assert video.summary == "3 utterances, +0.40 on average, from −1.00 to +2.00"


def test_a_failure_is_told_and_has_no_bar(tmp_path):
    failed = {"file": "a.mp4", "start": 0.0, "end": None, "text": "", "error": "is empty"}
    path = write(tmp_path / "s.jsonl", failed)
    [video] = scored_videos(path, lambda file: None).videos
    assert video.charts == []
    assert video.summary == "1 utterance, 1 failed"
    assert main(["report", str(path), "--out", str(tmp_path / "r.html")]) == 0
    assert "is empty" in (tmp_path / "r.html").read_text()


def test_markup_in_a_text_is_no_markup_in_its_bars_label(tmp_path):
    path = write(tmp_path / "s.jsonl", row(0) | {"text": "<b>bold</b> & more"})
    [utterance] = scored_videos(path, lambda file: None).videos[0].utterances
    [text] = timeline([utterance]).figure.data[0].hovertext
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no row"),
        ('{"file": "a"}\n', "line 1: not a row"),
        ('{"file": "a", "start": 0}\nnot JSON\n', "line 2: not a row"),
        ("[1]\n", "line 1: not a row"),
        ('{"file": "a", "start": "soon"}\n', "line 1: not a row"),
    ],
)
def test_a_fault_names_its_line(tmp_path, content, message):
    (tmp_path / "s.jsonl").write_text(content)
    with pytest.raises(TableError, match=message):
        scored_videos(tmp_path / "s.jsonl", lambda file: None)


@pytest.mark.parametrize("length", [0.5, 3, 59, 61, 599, 3599, 3601, 20_000, 100_000])
def test_a_clock_has_a_few_round_ticks(length):
    ticks = clock_ticks(length)
    assert ticks[0] == 0
    assert len(ticks) <= 8
    assert ticks[-1] <= length
    assert len(ticks) >= 3 or length < 3


def test_the_page_finds_the_video_from_where_it_is(tmp_path, monkeypatch):
    """By a relative address, so that a folder of both can be moved; whatever its name holds."""
    monkeypatch.chdir(tmp_path)
    name = 'a #1 100% "talk" & <more>.mp4'
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / name).write_bytes(b"")
    write(tmp_path / "s.jsonl", row(0, file=f"clips/{name}"))
    assert main(["report", "s.jsonl", "--out", "pages/r.html"]) == 0
    page = (tmp_path / "pages" / "r.html").read_text().replace(get_plotlyjs(), "")
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    [video] = document.iter("video")
    address = video.get("src")
    assert not set('#?"<> ') & set(address)
    assert (tmp_path / "pages" / unquote(address)).resolve() == tmp_path / "clips" / name


def test_predictions_and_runs_do_not_go_together(tmp_path, capsys):
    path = write(tmp_path / "s.jsonl", row(0))
    assert main(["report", str(path), str(path)]) == 2
    assert "give it alone" in " ".join(capsys.readouterr().err.split())
