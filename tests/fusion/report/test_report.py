"""The report: its figures say what the numbers are, and its page is one safe, valid HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import html5lib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from plotly.offline import get_plotlyjs

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import RunError
from clipmsa.cli.main import main
from clipmsa.fusion.experiments.run_folder import RunRecord
from clipmsa.fusion.experiments.runs import run
from clipmsa.fusion.metrics.bootstrap import Difference
from clipmsa.fusion.metrics.regression import METRICS
from clipmsa.fusion.networks.coattention import CoAttentionMap
from clipmsa.fusion.report import (
    Report,
    build_report,
    charts_explain,
    charts_results,
    find_evidence,
    read_run,
    render,
)
from clipmsa.fusion.report.chart import GREY, RED, TEAL
from clipmsa.fusion.report.numerals import fixed
from clipmsa.fusion.training.config import RunConfig, configured
from clipmsa.fusion.training.trainer import predict

PLOTLY = "// Plotly"
JPEG = b"\xff\xd8 not looked into \xff\xd9"


@pytest.fixture(scope="module")
def record(hostile_run) -> RunRecord:
    return read_run(hostile_run / "run")


@pytest.fixture(scope="module")
def report(record) -> Report:
    return build_report([record], find_evidence(record), lambda id_, count: [JPEG] * count)


@pytest.fixture(scope="module")
def page(report) -> str:
    return render(report)


@pytest.fixture(scope="module")
def document(page):
    """The page as browsers parse it; the parser raises at the first fault."""
    return parsed(page)


def parsed(page: str):
    assert f"<script>{get_plotlyjs()}</script>" in page  # 5 MB that no test looks into
    page = page.replace(get_plotlyjs(), PLOTLY)
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(page)


def text_of(element) -> str:
    return " ".join("".join(element.itertext()).split())


def rows_of(document) -> list[dict[str, str]]:
    """The cells' values of the table of utterances, a dict a row."""
    table = document.find(".//table[@id='table']")
    heads = [text_of(cell) for cell in table.find("thead").iter("th")]
    return [
        {
            head: cell.get("data-value", "")
            for head, cell in zip(heads, row.findall("td"), strict=True)
        }
        for row in table.find("tbody")
    ]


# -- the page -------------------------------------------------------------------------------------


def test_the_page_is_valid_and_whole(document):
    assert document.tag == "html"
    sections = [section.get("id") for section in document.iter("section")]
    assert sections == ["results", "modalities", "utterances", "explained", "provenance"]


def test_the_page_asks_for_nothing_outside_itself(document):
    for element in document.iter():
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = element.get(name, "#")
            assert value.startswith(("#", "data:")), (element.tag, value)
    assert not list(document.iter("iframe"))
    style = "".join(text_of(element) for element in document.iter("style"))
    assert "url(" not in style
    assert "@import" not in style


def test_hostile_texts_and_ids_stay_text(document, report):
    """Every text of the data is found again, letter by letter, and made no element."""
    shown = [cell for cell in document.iter("span") if cell.get("class") == "text"]
    texts = ["".join(cell.itertext()) for cell in shown]
    assert texts == [row.text for row in report.utterances]
    ids = {row.get("data-id") for row in document.iter("tr") if row.get("data-id")}
    assert "<script>window.broken = 1</script>$_$4" in ids
    assert len(ids) == 24
    scripts = [script for script in document.iter("script") if script.get("type") is None]
    assert len(scripts) == 3  # Plotly's, and the page's own two
    assert all(image.get("onerror") is None for image in document.iter("img"))


def test_no_figure_can_end_the_script_block_or_bring_markup_of_its_own(document, page):
    [block] = [script for script in document.iter("script") if script.get("id") == "figures"]
    assert "<" not in block.text
    figures = json.loads(block.text)
    hovers = [text for figure in figures for text in figure["data"][-1].get("text", [])]
    hostile = [text for text in hovers if isinstance(text, str) and "window.broken = 2" in text]
    assert hostile
    assert all(re.sub("</?b>|<br>", "", text).count("<") == 0 for text in hostile)
    assert len(figures) == len(re.findall("data-figure=", page))


def test_only_the_pages_own_scripts_may_run(document):
    [policy] = [
        meta.get("content")
        for meta in document.iter("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    plotly, *own = (s.text for s in document.iter("script") if s.get("type") is None)
    assert plotly == PLOTLY
    digests = [hashlib.sha256(text.encode()).digest() for text in (get_plotlyjs(), *own)]
    hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    allowed = re.search(r"script-src ([^;]*)", policy)
    assert allowed is not None
    assert allowed[1].split() == hashes
    assert "default-src 'none'" in policy


def test_utterances_come_worst_first_with_what_is_known_of_them(document, record):
    rows = rows_of(document)
    errors = [abs(float(row["Error"])) for row in rows]
    assert errors == sorted(errors, reverse=True)
    place = {id_: n for n, id_ in enumerate(record.ids)}
    for row in rows:
        n = place[row["Utterance"]]
        assert float(row["Label"]) == record.labels[n]
        assert float(row["Predicted"]) == pytest.approx(record.predictions[n])
        assert float(row["± seeds"]) == pytest.approx(record.scores[:, n].std())
    assert all(row.keys() >= {"Text", "Audio", "Vision"} for row in rows)


def test_the_metrics_table_has_every_metric_as_it_was_written(document, record):
    table = document.find(".//section[@id='results']//table")
    shown = {text_of(row[0]): [text_of(cell) for cell in row[1:]] for row in table.find("tbody")}
    assert list(shown) == list(METRICS.values())
    for key, words in METRICS.items():
        score = record.score(key)
        assert shown[words][0] == f"{score.mean:.3f} ± {score.std:.3f}"
        assert shown[words][1] == f"{score.ci95[0]:.3f} .. {score.ci95[1]:.3f}"
        references = [fixed(value) for value in score.references.values()]
        assert shown[words][2:] == [*references, *(f"{value:.3f}" for value in score.per_seed)]


def test_pictures_are_in_the_page(document):
    sources = [image.get("src") for image in document.iter("img")]
    expected = f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"
    assert sources == [expected] * (24 + 2 * 8)


def test_untrained_encoders_are_told_at_the_top(record, page):
    assert "Untrained encoders" not in page
    features = {**record.metrics["features"], "untrained": ["albert"]}
    untrained = RunRecord(**{**vars(record), "metrics": {**record.metrics, "features": features}})
    body = parsed(render(build_report([untrained]))).find("body")
    assert "Untrained encoders. albert had random weights" in text_of(body.find("header"))


def test_drawn_splits_are_told_as_text(record, page):
    assert "figures cannot be compared" not in page
    features = {**record.metrics["features"], "splits_from": "drawn <b>by video</b>"}
    drawn = RunRecord(**{**vars(record), "metrics": {**record.metrics, "features": features}})
    provenance = parsed(render(build_report([drawn]))).find(".//section[@id='provenance']")
    assert "drawn <b>by video</b>, and not CMU's: figures cannot be" in text_of(provenance)


def test_a_run_alone_makes_a_page_that_says_what_is_missing(hostile_run, tmp_path):
    shutil.copytree(hostile_run / "run", tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    metrics["features"]["path"] = "gone.h5"
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    record = read_run(tmp_path / "run")
    document = parsed(render(build_report([record], find_evidence(record))))
    assert "gone.h5: no such feature store" in text_of(document.find(".//header"))
    sections = [section.get("id") for section in document.iter("section")]
    assert sections == ["results", "utterances", "provenance"]
    assert len(rows_of(document)) == 24
    assert not [cell for cell in document.iter("span") if cell.get("class") == "text"]
    assert "planted-albert" in text_of(document.find(".//section[@id='provenance']"))


def test_provenance_names_store_streams_seeds_and_settings(document, record):
    said = text_of(document.find(".//section[@id='provenance']"))
    assert record.metrics["features"]["path"] in said
    table = document.find(".//section[@id='provenance']//tbody")
    shown = {text_of(row[0]): text_of(row[1]) for row in table}
    assert shown == record.metrics["features"]["fingerprints"]
    assert "seeds 1, 2" in said
    assert "d = 16" in said
    assert re.search(r"Written ?20\d\d-.*, with Python 3.* clipmsa \d", said)


# -- what is computed -----------------------------------------------------------------------------


def test_the_named_utterance_is_taken_apart_instead_of_the_worst(record):
    wanted = record.ids[7]
    report = build_report([record], find_evidence(record), utterances=[wanted])
    [explained] = report.explained
    assert explained.row.id == wanted
    assert [chart.title for chart in explained.maps] == [
        "Audio attends to vision",
        "Vision attends to audio",
        "Audio with vision attends to text",
        "Text attends to audio with vision",
    ]
    assert explained.moved[0].title == "Modalities"
    assert_allclose(explained.moved[0].figure.data[0].x, list(explained.row.moved.values()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "charts_shown", "maps"),
    [('drop=["vision/own", "vision/clip"]', ["Modalities"], 2), ("fusion=concat", None, 0)],
)
def test_a_model_without_pictures_or_attention_is_explained_too(
    hostile_run, tmp_path, setting, charts_shown, maps
):
    small = ["d=16", "heads=4", "d_ff=32", "transformer_ff=32", "epochs=1", setting]
    config = configured(RunConfig(), settings=small)
    run(FeatureStore(hostile_run / "store.h5"), config, tmp_path / "run", [1])
    record = read_run(tmp_path / "run")
    report = build_report([record], find_evidence(record), worst=1)
    [explained] = report.explained
    assert len(explained.maps) == maps
    if charts_shown is not None:
        assert [chart.title for chart in explained.moved] == charts_shown
        assert set(explained.row.moved) == {"text", "audio"}
        assert report.faces is None
    assert parsed(render(report)).find(".//section[@id='explained']") is not None


def test_an_utterance_that_is_not_there_is_an_error(record):
    with pytest.raises(RunError, match=r"no test utterance 'v0000\$_\$0'"):
        build_report([record], utterances=["v0000$_$0"])


def test_faces_are_counted_over_utterances_and_frames(report, record):
    store = find_evidence(record).store
    assert store is not None
    faces, frames = (store.streams[name].lengths for name in ("face_vgg", "clip_image"))
    assert report.faces is not None
    assert report.faces.startswith(
        f"A face was found in {(faces > 0).sum()} of 76 utterances and "
        f"{100 * faces.sum() / frames.sum():.1f} % of the frames"
    )
    test = [store.index[id_] for id_ in record.ids]
    share = {row.stream: row.shares["test"] for row in report.presence}
    assert share["face_vgg"] == f"{100 * (faces[test] > 0).mean():.1f} %"
    assert share["albert"] == "100.0 %"


def test_the_rise_without_a_modality_is_that_of_the_seeds_mae(report, record):
    evidence = find_evidence(record)
    assert evidence.data is not None
    rows = torch.tensor([evidence.data.store.index[id_] for id_ in record.ids])
    bars = report.contributions[0].figure.data[0]
    assert report.contributions[0].figure.layout.yaxis.ticktext == ("text", "audio", "vision")
    for place, modality in enumerate(("text", "audio", "vision")):
        without = [predict(model, evidence.data, rows, [modality]) for model in evidence.models]
        rise = np.abs(without - record.labels).mean() - record.score("mae").mean
        assert bars.x[place] == pytest.approx(rise, abs=1e-5)
        assert abs(rise) > 1e-4


def test_the_papers_figures_stand_beside_the_runs_and_are_marked_where_features_differ(record):
    table = parsed(render(build_report([record], paper="mosi"))).find(".//section[@id='paper']")
    (row,) = table.findall(".//tbody/tr")
    name, *cells = ["".join(cell.itertext()) for cell in row]
    assert name == "CLIP-MSA(ours) †"
    ours = fixed(record.score("mae").mean)
    assert cells[4].startswith(f"{ours}, 0.673 (")
    assert cells[-1] == "measured by the paper's authors"
    assert parsed(render(build_report([record]))).find(".//section[@id='paper']") is None


def test_the_command_puts_the_papers_figures_on_the_page(hostile_run, tmp_path, capsys):
    page, line = tmp_path / "page.html", ["report", str(hostile_run / "run"), "--out"]
    assert main([*line, str(page), "--paper", "mosei"]) == 0
    assert parsed(page.read_text()).find(".//section[@id='paper']") is not None
    assert main([*line, str(page), "--paper", "sims"]) == 1
    assert "mosi and mosei, not 'sims'" in capsys.readouterr().err


def test_several_runs_are_compared_with_the_first(record, hostile_run, tmp_path):
    other = RunRecord(
        **{
            **vars(record),
            "path": tmp_path,
            "metrics": {**record.metrics, "variant": "no-clip"},
            "scores": record.labels + 2.0 * np.sign(record.scores - record.labels),
        }
    )
    report = build_report([record, other])
    assert [part.name for part in report.runs] == ["full", "no-clip"]
    assert [chart.title for chart in report.comparison] == [
        "MAE",
        "Corr",
        "Acc-2 negative/positive",
        "Acc-7",
        "MAE minus the first run's",
    ]
    bars = report.comparison[0].figure.data[0]
    assert bars.x[0] == record.score("mae").mean
    assert bars.error_x.array[0] == pytest.approx(
        record.score("mae").ci95[1] - record.score("mae").mean
    )
    document = parsed(render(report))
    assert len([d for d in document.iter("details") if d.get("class") == "run"]) == 2


def test_runs_tested_on_other_utterances_are_not_paired(record):
    other = RunRecord(**{**vars(record), "ids": record.ids[::-1]})
    titles = [chart.title for chart in build_report([record, other]).comparison]
    assert "MAE minus the first run's" not in titles


def test_confusion_counts_classes_as_acc7_rounds_them():
    labels = np.array([-3.0, -2.6, 0.5, 0.4, 3.0])
    predictions = np.array([-3.9, -1.2, 0.6, -0.2, 2.5])
    cells = charts_results.confusion(labels, predictions).figure.data[0]
    counted = {
        (cells.y[i], cells.x[j]): cells.text[i][j]
        for i, j in np.argwhere(np.asarray(cells.text) != "")
    }
    assert counted == {(-3, -3): "1", (-3, -1): "1", (0, 1): "1", (0, 0): "1", (3, 2): "1"}
    assert_allclose(cells.z[0], [0.5, 0, 0.5, 0, 0, 0, 0])


def test_calibration_is_the_mean_prediction_of_each_label_class():
    labels = np.array([-1.0, -0.8, 2.0])
    means = charts_results.calibration(labels, np.array([-0.4, -0.2, 1.0])).figure.data[1]
    assert_allclose(means.x, [-0.9, 2.0])
    assert_allclose(means.y, [-0.3, 1.0])
    half = 1.96 * np.std([-0.4, -0.2], ddof=1) / np.sqrt(2)
    assert means.error_y.array[0] == pytest.approx(half)
    assert means.error_y.array[1] is None  # one utterance has no interval


def test_residuals_count_every_utterance():
    labels, predictions = np.zeros(5), np.array([-1.5, -0.1, 0.1, 0.1, 1.5])
    bars = charts_results.residuals(labels, predictions).figure.data[0]
    assert sum(bars.y) == 5
    assert sum(y for x, y in zip(bars.x, bars.y, strict=True) if x < -1) == 1


def test_a_difference_is_coloured_only_where_its_interval_leaves_0_out():
    found = [
        Difference(0.1, 0.05, 0.2, 0.01),
        Difference(-0.1, -0.2, -0.05, 0.01),
        Difference(0.1, -0.1, 0.3, 0.4),
    ]
    points = charts_results.differences(["worse", "better", "alike"], found).figure.data[0]
    assert points.marker.color == (RED, TEAL, GREY)


def test_a_map_is_sorted_by_the_values_that_attend():
    """Sorted by value, a head with a_i > 0 looks most at the end that has its own sign."""
    x_1, x_2 = torch.tensor([2.0, -1.0, 0.0]), torch.tensor([0.5, -3.0, 1.0])
    weights = torch.softmax(x_1[:, None] * x_2, dim=-1)[None]
    chart = charts_explain.attention(
        CoAttentionMap("audio", "text", x_1, x_2, weights, torch.ones(1))
    )
    z = chart.figure.data[0].z
    assert z[0].argmax() == 0  # the row of -1 looks at -3
    assert z[2].argmax() == 2  # the row of 2 looks at 1
    assert_allclose((2**z).mean(axis=1), 1, rtol=1e-5)  # in multiples of uniform


# -- the verb -------------------------------------------------------------------------------------


def test_the_verb_writes_the_page_and_names_it(hostile_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(hostile_run / "run")]) == 0
    assert "report.html: report on" in capsys.readouterr().err
    assert rows_of(parsed(Path("report.html").read_text()))


def test_the_verb_says_what_it_left_out(hostile_run, tmp_path, capsys):
    shutil.copytree(hostile_run / "run", tmp_path / "run")
    (tmp_path / "run" / "model-1.pt").unlink()
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "r.html")]) == 0
    assert "model-1.pt is not in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no finished run"),
        (["{run}", "--utterance", "nobody"], "no test utterance 'nobody'"),
        (["{run}", "--features", "gone.h5"], "gone.h5: no such feature store"),
        (["{run}", "--clips", "gone"], "no such folder"),
    ],
)
def test_a_mistake_writes_no_page(hostile_run, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *(a.format(run=hostile_run / "run") for a in arguments)]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("report.html").exists()
