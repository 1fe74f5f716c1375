"""Reports in a real browser, headless Chromium: they load, sort, find, play, read in the dark.

Without Chromium on the machine these tests are skipped; where CLIPMSA_NEEDS_CHROMIUM is set, as in
CI, that is an error.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipmsa.cli.main import main
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.media.thumbnails import thumbnails
from clipmsa.fusion.report import build_report, find_evidence, read_run, render

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome")
# As root in a container there is no sandbox; the rest keeps it from calling home.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


HOSTILE = (
    "<script>window.broken = 1</script>",
    "</script><script>window.broken = 2</script>",
    "<img src=x onerror='window.broken = 3'>",
    "{{ 7 * 7 }} <!-- ",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        reason = f"no Chromium on this machine, looked for {', '.join(NAMES)}"
        if os.environ.get("CLIPMSA_NEEDS_CHROMIUM"):
            pytest.fail(reason)
        pytest.skip(f"{reason}; `apt-get install chromium` gets it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(hostile_run, tmp_path_factory) -> Path:
    """A report on two runs, with pictures, of texts that would break a page that lets them."""
    folder = tmp_path_factory.mktemp("page")
    grey = np.full((48, 64, 3), 128, np.uint8)
    write_clip(folder / "clip.mp4", [grey] * 8, 8, None, 16000)
    record = read_run(hostile_run / "run")
    report = build_report(
        [record, record],
        find_evidence(record),
        lambda id_, count: thumbnails(folder / "clip.mp4", count),
    )
    path = folder / "report.html"
    path.write_text(render(report), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A page on a video of 6 s in three utterances, and on one that is gone."""
    folder = tmp_path_factory.mktemp("videos")
    grey = np.full((48, 64, 3), 128, np.uint8)
    name = "a talk & <b>more</b>.mp4"
    write_clip(folder / name, [grey] * 60, 10, np.zeros(6 * 16000, np.float32), 16000)
    texts = [f"{text} number {n}" for n, text in enumerate(HOSTILE)]
    rows = [
        {"file": str(folder / name), "start": s, "end": s + 2.0, "text": texts[n], "score": score}
        | {"word": "positive", "spread": 0.2, "contributions": {"text": 0.5}, "missing": ["audio"]}
        for n, (s, score) in enumerate([(0.0, 1.5), (2.0, -2.5), (4.0, 0.1)])
    ]
    rows.append({"file": "gone.mp4", "start": 0, "end": 2.0, "text": texts[3], "score": 1.0})
    (folder / "scores.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = folder / "page" / "report.html"
    assert main(["report", str(folder / "scores.jsonl"), "--out", str(out)]) == 0
    return out


@pytest.fixture
def open_page(browser, file) -> Iterator[Callable[..., Any]]:
    """Open the report from disk, offline; what goes wrong in it fails the test at its end."""
    troubles: list[str] = []
    contexts = []

    def opened(scheme: str = "light", width: int = 1280, path: Path = file) -> Any:
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:", "blob:"))
                else troubles.append(f"asked for {request.url}")
            ),
        )
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


def scroll_through(page) -> None:
    """Bring every chart on the screen once; they are drawn when they come near."""
    for place in page.locator(".plot:visible").all():
        place.scroll_into_view_if_needed()
        place.locator(".main-svg").first.wait_for()


def column(page, number: int) -> list[float]:
    """The values of a column of the table, of the rows that are shown."""
    script = """number => [...document.querySelectorAll('#table tbody tr:not([hidden])')]
                .map(row => Number(row.cells[number].dataset.value))"""
    return page.evaluate(script, number)


def test_every_chart_is_drawn_and_nothing_is_complained_about(open_page):
    page = open_page()
    scroll_through(page)
    drawn = page.locator(".plot:visible .main-svg").count()
    assert drawn >= page.locator(".plot:visible").count() >= 18


def test_charts_of_a_folded_run_are_drawn_when_it_is_opened(open_page):
    page = open_page()
    folded = page.locator("details.run").nth(1)
    assert folded.locator(".main-svg").count() == 0
    folded.locator("summary").click()
    folded.locator(".main-svg").first.wait_for()


def test_no_text_of_the_data_becomes_an_element_or_runs(open_page):
    page = open_page()
    scroll_through(page)
    assert page.evaluate("window.broken") is None
    assert page.locator("img[onerror]").count() == 0
    assert page.locator(".text b").count() == 0
    text = page.locator(".text", has_text="window.broken = 2").first.inner_text()
    assert text.startswith("</script><script>window.broken = 2</script> number ")
    # In the label that a point of a chart shows, too.
    plot = page.locator(".plot[aria-label='Predicted against true']").first
    plot.scroll_into_view_if_needed()
    points = plot.locator(".points path.point")
    shown = []
    for n in range(points.count()):
        points.nth(n).hover(force=True)
        shown += plot.locator(".hovertext").all_text_contents()
    assert any("<script>" in text for text in shown)
    assert page.evaluate("window.broken") is None


def test_the_content_policy_stops_a_script_that_is_not_the_pages_own(browser, file, tmp_path):
    """The second line of defence: a page whose escaping had failed."""
    html = file.read_text(encoding="utf-8").replace(
        "<main>", "<main><script>window.broken = 4</script><img src='x' onerror='broken = 5'>"
    )
    (tmp_path / "broken.html").write_text(html, encoding="utf-8")
    page = browser.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto((tmp_path / "broken.html").as_uri())
    assert page.evaluate("typeof window.broken") == "undefined"
    assert any("Content Security Policy" in text for text in refused)
    page.close()


def test_the_table_sorts_by_the_header_that_is_pressed(open_page):
    page = open_page()
    heads = page.locator("#table thead th")
    label = heads.filter(has_text="Label")
    error = heads.filter(has_text="Error")
    assert error.get_attribute("aria-sort") == "descending"
    label.locator("button").click()
    assert label.get_attribute("aria-sort") == "descending"
    assert error.get_attribute("aria-sort") == "none"
    labels = column(page, 2)
    assert labels == sorted(labels, reverse=True)
    assert len(set(labels)) > 10
    label.locator("button").press("Enter")
    assert column(page, 2) == sorted(labels)
    error.locator("button").click()
    sizes = [abs(value) for value in column(page, 4)]
    assert sizes == sorted(sizes, reverse=True)


def test_the_search_keeps_rows_that_hold_every_word(open_page):
    page = open_page()
    found = page.locator("#found")
    assert found.inner_text() == "24 utterances"
    page.fill("#search", "BROKEN number")
    assert found.inner_text() == "18 of 24"
    page.fill("#search", "<b>bold 17")
    assert found.inner_text() == "0 of 24"
    page.fill("#search", "<b>bold 19")
    [text] = page.locator("#table .text:visible").all_inner_texts()
    assert text.endswith("number 19")
    page.fill("#search", "no such words")
    assert found.inner_text() == "0 of 24"
    page.fill("#search", "")
    assert len(column(page, 2)) == 24


def test_a_click_on_a_point_finds_its_utterance(open_page):
    page = open_page()
    plot = page.locator(".plot[aria-label='Predicted against true']").first
    plot.scroll_into_view_if_needed()
    plot.locator(".points path.point").first.click(force=True)
    page.wait_for_timeout(100)
    sought = page.locator("#search").input_value()
    shown = page.locator("#table tbody tr:visible").evaluate_all(
        "rows => rows.map(row => row.dataset.id)"
    )
    assert sought in shown


TEXTS = (
    ":is(h1, h2, h3, p, th, td, a, button, summary, .text, .label, .small, .note, code,"
    " figcaption span, .bar, .plot text):visible"
)
# WCAG's contrast of two colours, and the colour that lies behind an element.
CONTRAST = """
elements => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = parts(colour).map(c => c / 255)
      .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if ((parts(colour)[3] ?? 1) === 1) return colour;
    }
  };
  return elements.map(element => {
    const style = getComputedStyle(element);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(ink), light(behind(element))].sort((a, b) => b - a);
    return [(a + 0.05) / (b + 0.05), element.textContent.trim().slice(0, 40)];
  });
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_that_reading_needs(open_page, scheme):
    """4.5 to 1, as WCAG 2.2 (1.4.3) asks for; texts of charts included."""
    page = open_page(scheme)
    scroll_through(page)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(14, 17, 22)") == (scheme == "dark")
    found = page.locator(TEXTS).evaluate_all(CONTRAST)
    assert len(found) > 300
    assert [text for contrast, text in found if contrast < 4.5] == []


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_sticks_out_at_the_side(open_page, width):
    page = open_page(width=width)
    scroll_through(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    overflowing = page.evaluate(
        """() => [...document.querySelectorAll('.card, .chart, .plot svg, h1, p, blockquote')]
           .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
           .map(element => element.className.baseVal ?? element.className)"""
    )
    assert overflowing == []


def test_on_a_narrow_screen_a_row_shows_its_error(open_page):
    page = open_page(width=390)
    row = page.locator("#table tbody tr").first
    row.scroll_into_view_if_needed()
    box = row.locator(".error .bar").bounding_box()
    assert box is not None
    assert 0 <= box["x"] < box["x"] + box["width"] <= 390


def test_a_click_on_a_time_or_bar_goes_there_in_the_video(open_page, videos):
    page = open_page(path=videos)
    video = page.locator("video")
    assert video.count() == 1  # the other is gone
    now = "video => video.currentTime"
    page.get_by_role("button", name="0:02.0").click()
    assert 2 <= video.evaluate(now) < 3
    page.locator("tr[aria-current] .text", has_text="number 1").wait_for()
    plot = page.locator(".plot").first
    plot.locator(".points path").nth(2).click(force=True)
    page.locator("tr[aria-current] .text", has_text="number 2").wait_for()
    assert 4 <= video.evaluate(now) < 6
    assert page.locator("tr[aria-current]").count() == 1
    assert float(plot.evaluate("plot => plot.layout.shapes[0].x0")) >= 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_on_videos_is_safe_whole_and_legible(open_page, videos, scheme):
    page = open_page(scheme, 390, path=videos)
    scroll_through(page)
    assert page.evaluate("window.broken") is None
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    texts = page.locator("td.what .text").all_text_contents()
    assert texts == [f"{text} number {n}" for n, text in enumerate(HOSTILE)]
    found = page.locator(TEXTS).evaluate_all(CONTRAST)
    assert len(found) > 40
    assert [text for contrast, text in found if contrast < 4.5] == []
