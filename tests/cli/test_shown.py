"""Strings of files that anybody may have written: no terminal or spreadsheet obeys them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from clipmsa import progress
from clipmsa import terminal as screen
from clipmsa.cache.csvtext import csv_text, guarded, unguarded
from clipmsa.cache.errors import MediaError
from clipmsa.cli.main import main
from clipmsa.cli.verbs import inspect, predict
from clipmsa.extract.datasets.read import read_dataset
from clipmsa.fusion.analysis.scored import ScoredUtterance
from clipmsa.fusion.experiments.run_folder import _read_test

ATTACKS = (
    "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1b[95mpink",
    "\x1b]0;title\x07",
    "\x9b31mred",
    "a\rb\x08c",
    "gpj.\u202eexe",
    "\udc80",
    "[link=https://evil.example]link[/link]",
    "[conceal]hidden[/]",
    "closes [/] nothing",
    ":boom:",
    "\\[bold]",
    "ends with \\",
)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal gets to see, of stdout and stderr."""
    seen = io.StringIO()
    for name in ("out", "err"):
        one = screen.Terminal(file=seen, force_terminal=True, width=200, color_system="truecolor")
        monkeypatch.setattr(screen, name, one)
    return seen


def obeyed(seen: str) -> set[str]:
    """All that a terminal acts upon, our own colours and the bar's moves among it."""
    return set(re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", seen))


def print_everywhere(text: str) -> None:
    """Print a text as notes, in all parts of a table, in bars, and by itself."""
    screen.note("[bold red]{} failed[/]: {}", text, text)
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    table.add_row(screen.styled("[red]{}[/]", text))
    screen.out.print(table)
    screen.out.print(text, highlight=False, soft_wrap=True)
    with progress.progress(text, "clips") as advance:
        advance(1, 2, text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_string_is_shown_as_it_stands_and_sets_nothing(
    terminal: io.StringIO, attack: str
) -> None:
    print_everywhere("harmless")
    harmless = obeyed(terminal.getvalue())
    terminal.seek(0)
    terminal.truncate()
    print_everywhere(attack)
    seen = terminal.getvalue()
    assert obeyed(seen) <= harmless
    assert re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen).count(screen.shown(attack)) >= 9


def test_a_value_stays_in_its_line(terminal: io.StringIO) -> None:
    screen.note("{}", "id\nerror: forged")
    assert terminal.getvalue() == "id\\nerror: forged\n"


def test_inspect_shows_a_hostile_store_as_it_stands(
    plant, tmp_path: Path, terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "s.h5", counts=(8, 4, 4))
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file.attrs["dataset"] = ATTACKS[2]
        for key, attack in zip(("encoder", "weights", "fingerprint"), ATTACKS[7:], strict=False):
            file["streams/albert"].attrs[key] = attack
        file["streams/esresnext"].attrs["encoder"] = ATTACKS[0]
        file.move("streams/wav2vec2", "streams/[bold]x")
    monkeypatch.setattr(inspect, "out", screen.out)
    inspect.inspect_store(tmp_path / "s.h5")
    assert obeyed(terminal.getvalue()) <= {
        *("\x1b[1m", "\x1b[0m", "\x1b[2m", "\x1b[3m"),
        "\x1b[1;33m",  # of our own words before what is odd in the store
    }


def test_rows_of_predict_are_json_of_the_same_text_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [ScoredUtterance("a.mp4", 0.0, 1.0, attack, error=attack) for attack in ATTACKS]
    with predict._json_lines(Path("run")) as write:
        for row in rows:
            write(row)
    printed = capsys.readouterr().out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed)
    assert [json.loads(line)["text"] for line in printed.splitlines()] == list(ATTACKS)


def test_csv_on_a_terminal_shows_control_characters_and_elsewhere_keeps_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for terminal in (True, False):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        with predict._csv_table(Path("run")) as write:
            write(ScoredUtterance("a.mp4", 0.0, 1.0, "\x1b[31mred"))
        assert ("\x1b" in capsys.readouterr().out) is not terminal


# ---- CSV.

FORMULAS = ("=cmd|'/c calc'!A1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_does_not_start_a_formula(text: str) -> None:
    (cell,) = list(csv.reader(io.StringIO(csv_text(["x"], [[text]]), newline="")))[1]
    assert cell[0] == "'"
    assert unguarded(cell) == text


def test_numbers_stay_numbers_and_plain_texts_plain() -> None:
    assert csv_text(["a"], [[-1.5], ["fine"], ["'tis"], [float("nan")]]) == (
        "a\n-1.5\nfine\n'tis\nnan\n"
    )


@given(st.text())
def test_every_text_reads_back(text: str) -> None:
    written = csv_text(["x", "y"], [[text, 1]])
    rows = list(csv.reader(io.StringIO(written, newline=""), strict=True))
    assert [unguarded(rows[1][0]), rows[1][1]] == [text, "1"]
    assert len(rows) == 2
    assert guarded(text) == text or str(guarded(text)).startswith("'")


def test_ids_of_a_run_read_back_from_its_predictions(tmp_path: Path) -> None:
    ids = [f"{formula}$_$0" for formula in FORMULAS]
    lines = [[id_, "test", -1.0, -0.5, -0.5] for id_ in ids]
    table = tmp_path / "predictions.csv"
    header = ["id", "split", "label", "prediction", "prediction_1"]
    table.write_text(csv_text(header, lines), encoding="utf-8", newline="")
    assert _read_test(table, [1])[0] == tuple(ids)


def test_a_table_of_cut_reads_back_in_extract(tmp_path: Path) -> None:
    header = ["path", "clip_id", "start", "end", "text", "label", "split"]
    lines = [["-a.mp4", "=0", 0.5, 2.0, text, -1.5, "train"] for text in ("-well", "'tis", "'=1")]
    for number, line in enumerate(lines):
        line[1] = f"={number}"
    table = tmp_path / "clips.csv"
    table.write_text(csv_text(header, lines), encoding="utf-8", newline="")
    clips = read_dataset(str(table)).clips
    assert [clip.utterance.text for clip in clips] == ["-well", "'tis", "'=1"]
    assert [clip.utterance.clip_id for clip in clips] == ["=0", "=1", "=2"]
    assert {clip.path.name for clip in clips} == {"-a.mp4"}
    assert {clip.utterance.label for clip in clips} == {-1.5}


@pytest.mark.slow
def test_the_tables_that_verbs_write_start_no_formula(plant, tmp_path: Path) -> None:
    plant(tmp_path / "s.h5", counts=(24, 8, 8))
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        for column in ("id", "text"):
            for row, formula in zip(range(32, 40), FORMULAS, strict=False):
                file["utterances"][column][row] = f"{formula}$_$0" if column == "id" else formula
        for row, formula in zip(range(32, 40), FORMULAS, strict=False):
            file["utterances"]["video_id"][row] = formula
            file["utterances"]["clip_id"][row] = "0"
    run = tmp_path / "run"
    small = ["--set", "d=16", "--set", "heads=2", "--set", "d_ff=16", "--epochs", "1"]
    line = ["train", "--features", str(tmp_path / "s.h5"), "--out", str(run), "--seeds", "1"]
    assert main([*line, *small, "--device", "cpu"]) == 0
    scored = tmp_path / "scored.csv"
    line = ["evaluate", str(run), "--features", str(tmp_path / "s.h5"), "--device", "cpu"]
    assert main([*line, "--predictions", str(scored)]) == 0
    for table in (run / "predictions.csv", scored):
        rows = list(csv.DictReader(io.StringIO(table.read_bytes().decode(), newline="")))
        texts = [row[key] for row in rows for key in ("id", "text", "video_id") if key in row]
        assert not [text for text in texts if text[:1] in "=+-@\t\r\n"]
        assert {unguarded(row["id"]) for row in rows} >= {f"{x}$_$0" for x in FORMULAS[:5]}
        float(rows[0]["label"])


def test_an_error_s_words_do_not_reach_the_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tmp_path / "\x1b]0;owned\x07.h5")]) == 1
    printed = capsys.readouterr()
    assert "\x1b" not in printed.err + printed.out
    assert r"\x1b]0;owned\x07.h5" in printed.err


def test_what_a_file_s_error_says_is_one_line() -> None:
    assert str(screen.styled("{}", MediaError("a\nb"))) == r"a\nb"
