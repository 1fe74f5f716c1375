"""The paper's figures: as printed, beside ours, and never taken for ours."""

from __future__ import annotations

import csv
import io
import math

import pytest

from clipmsa.cache.errors import ConfigError
from clipmsa.fusion.experiments.paper import beside, csv_beside, markdown_beside, published
from clipmsa.fusion.experiments.variants import table2

KEYS = ("has0_acc2", "non0_acc2", "has0_f1", "non0_f1", "mae", "corr")


def metrics(mae: float = 0.7, *, untrained: tuple[str, ...] = (), interval: bool = True) -> dict:
    ci = [mae - 0.05, mae + 0.05] if interval else [math.nan, math.nan]
    test = {key: {"mean": mae, "std": 0.0, "ci95": ci} for key in KEYS}
    return {"test": test, "features": {"untrained": list(untrained)}}


def test_table_1_has_fourteen_rows_and_table_2_nine_which_the_variants_here_stand_for():
    rows = published("mosi")
    assert sum(row.table == "table1" for row in rows) == 14
    assert [row.variant for row in rows if row.table == "table2"] == [v.name for v in table2()]
    assert [row.row for row in rows if row.table == "table2"] == [v.row for v in table2()]


def test_figures_are_those_printed_as_shares_and_what_is_a_dash_is_absent():
    by_row = {(row.table, row.row): row for row in published("mosi")}
    ours = by_row["table1", "CLIP-MSA(ours)"].figures
    assert [*ours.values()] == [0.8532, 0.873, 0.8539, 0.8731, 0.673, 0.82]
    assert ours == by_row["table2", "CLIP-MSA"].figures
    tfn = by_row["table1", "TFN(2017'EMNLP)"]
    assert tfn.figures == {"non0_acc2": 0.808, "non0_f1": 0.807, "mae": 0.901, "corr": 0.698}
    assert tfn.source == "Self-MM"
    mosei = {row.row: row.figures for row in published("mosei")}
    assert mosei["MMIM(2021'EMNLP)"]["mae"] == 0.526
    assert len(mosei) == 14


def test_the_row_that_the_paper_calls_mfn_of_iclr_is_mfms():
    (row,) = [row for row in published("mosi") if row.row.startswith("MFN")]
    assert row.variant == "mfm"


def test_a_system_that_the_paper_has_twice_stands_there_twice():
    rows = [row for row in published("mosi") if row.variant == "self-mm"]
    assert [(row.row, row.source) for row in rows] == [
        ("Self-MM(2021'AAAI)", "Self-MM"),
        ("Self-MM*", "reproduced"),
    ]


def test_a_figure_is_inside_where_our_interval_holds_it():
    found = beside({"full": metrics(0.7), "order-atv": metrics(0.6)}, "mosi", "paper")
    mae = {one.published.variant: one for one in found if one.metric == "mae"}
    assert mae["full"].inside
    assert mae["full"].difference == pytest.approx(0.027)
    assert mae["order-atv"].inside is False
    assert len([one for one in found if one.published.variant == "full"]) == len(KEYS)
    nothing = beside({"full": metrics(interval=False)}, "mosi", "paper")
    assert all(one.inside is None for one in nothing)


@pytest.mark.parametrize(
    ("variant", "profile", "untrained", "same"),
    [
        ("full", "paper", (), True),
        ("no-clip", "paper", (), True),
        ("full", "tiny", (), False),
        ("full", "paper", ("albert",), False),
        ("mult", "paper", (), False),
    ],
)
def test_rows_whose_features_are_not_the_papers_are_marked(variant, profile, untrained, same):
    found = beside({variant: metrics(untrained=untrained)}, "mosi", profile)
    assert {one.same_features for one in found} == {same}
    line = markdown_beside(found, "mosi").splitlines()[2]
    assert ("†" in line) is not same


def test_the_csv_has_a_line_a_figure():
    found = beside({"mult": metrics(0.8)}, "mosi", "tiny")
    lines = list(csv.DictReader(io.StringIO(csv_beside(found))))
    (mae,) = [line for line in lines if line["metric"] == "mae"]
    assert (float(mae["paper"]), float(mae["here"])) == (0.861, 0.8)
    assert float(mae["difference"]) == pytest.approx(-0.061)
    assert (mae["from"], mae["inside"], mae["same_features"]) == ("Self-MM", "false", "false")


def test_a_variant_that_the_paper_does_not_have_is_said():
    text = markdown_beside(beside({"mine": metrics()}, "mosi", "paper"), "mosi")
    assert text == "The paper has no row for these variants on mosi.\n"


def test_another_data_set_is_refused():
    with pytest.raises(ConfigError, match="mosi and mosei, not 'sims'"):
        published("sims")
