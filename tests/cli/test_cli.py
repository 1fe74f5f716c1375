"""The command line: exit status, one-line errors, help, and the whole way with real encoders."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from clipmsa.cli.main import main
from clipmsa.extract.datasets.demo import write_demo_dataset

README = (Path(__file__).parents[2] / "README.md").read_text()
VERBS = (
    "cut",
    "extract",
    "merge",
    "train",
    "ablate",
    "report",
    "predict",
    "app",
    "inspect",
    "verify",
    "import",
    "export",
    "weights",
    "demo",
)


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run a command line in an empty folder; give (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> tuple[int, str, str]:
        # An id or text may hold spaces; test lines here do not.
        status = main(line.split())
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    write_demo_dataset(root, clips=12)
    return root


def edit_table(clips: Path, folder: Path, old: str, new: str) -> Path:
    """The clips' table with one change, in a folder of its own."""
    folder.mkdir()
    (folder / "Raw").symlink_to(clips / "Raw")
    text = (clips / "label.csv").read_text()
    assert re.search(old, text, re.MULTILINE)
    (folder / "label.csv").write_text(re.sub(old, new, text, count=1, flags=re.MULTILINE))
    return folder


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("extract --dataset nothing --profile tiny", 1, "data/nothing: no such folder"),
        ("extract --dataset d --root {clips}/Raw --profile tiny", 1, "in none of the layouts"),
        ("extract --dataset d --root {clips} --profile huge", 1, "no profile 'huge'"),
        ("extract --dataset d --root {clips} --profile tiny --streams a", 1, "no stream 'a'"),
        ("extract --dataset d --root {clips} --profile tiny --weights no", 1, "no such folder"),
        (
            "extract --dataset d --root {clips} --profile tiny --precision fp8",
            1,
            "fp32, bf16, fp16",
        ),
        ("extract --dataset d --root {clips} --profile tiny --device cuda:7", 1, "--device cuda:7"),
        ("extract --root {clips}", 2, "--dataset"),
        ("extract --dataset d --limit 0", 2, "--limit"),
        ("extract --dataset d --root {clips} --shard 2/2", 2, "I from 0 to N - 1"),
        ("extract --dataset d --root {clips} --shard 0/99", 2, "there are 12 clips only"),
        ("merge a.h5 b.h5 --out c.h5", 1, "a.h5: no such feature store"),
        ("train", 2, "--features"),
        ("train --features nowhere.h5", 1, "nowhere.h5: no such feature store"),
        ("train --features {clips}/label.csv", 1, "not a readable HDF5 file"),
        ("train --features nowhere.h5 --variant best", 1, "no variant 'best'"),
        ("train --features nowhere.h5 --seeds one,two", 2, "whole numbers"),
        ("train --features nowhere.h5 --seeds 1,1", 2, "seed 1: is there twice"),
        ("ablate --features nowhere.h5", 1, "nowhere.h5: no such feature store"),
        ("ablate --features nowhere.h5 --variants full,best", 1, "no variant 'best'"),
        ("ablate --features nowhere.h5 --variants full,full", 1, "named twice"),
        ("train --features nowhere.h5 --set d=wide", 1, "d: must be a valid integer"),
        ("train --features nowhere.h5 --config none.toml", 1, "none.toml: no such file"),
        ("inspect nowhere.h5", 1, "nowhere.h5: no such feature store"),
        ("verify nowhere.h5", 1, "nowhere.h5: no such feature store"),
        ("fly", 2, "fly"),
    ],
)
def test_a_mistake_is_told_in_one_line(cli, clips, line, status, message):
    got, out, err = cli(line.format(clips=clips))
    assert got == status
    assert out == ""
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    if status == 1:
        assert err.startswith("error: ")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r",-?\d\.\d+,", ",good,", r"row 2: label 'good' is no number"),
        (r",train$", ",training", r"row 2: split 'training' must be one of train, valid, test"),
        (r"^demo\d+,", "../secrets,", r"row 2: video_id '../secrets' is not the name"),
    ],
)
def test_a_fault_in_the_table_names_its_row(cli, clips, tmp_path, old, new, message):
    root = edit_table(clips, tmp_path / "table", old, new)
    status, _, err = cli(f"extract --dataset d --root {root} --profile tiny")
    assert status == 1
    assert message in err
    assert not (tmp_path / "cache").exists()


def test_a_missing_checkpoint_names_the_file_the_source_and_the_command(cli, clips, tmp_path):
    (tmp_path / "weights").mkdir()
    line = f"extract --dataset d --root {clips} --weights weights --streams esresnext"
    status, _, err = cli(line)
    assert status == 1
    assert "weights/AudioCLIP-Full-Training.pt" in err
    assert "https://github.com/AndreyGuzhov/AudioCLIP/releases" in err
    assert "`clipmsa weights fetch --profile paper --dir weights`" in err
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(cli, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, err = cli("inspect nowhere.h5 --debug")
    assert status == 1
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("error: nowhere.h5: no such feature store")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_and_is_in_the_readme(cli, verb):
    status, out, _ = cli(f"{verb} --help")
    assert status == 0
    assert f"Example: clipmsa {verb}" in out
    assert f"clipmsa {verb}" in README


def test_the_version_is_the_packages(cli):
    from importlib.metadata import version

    assert cli("--version")[:2] == (0, f"clipmsa {version('clipmsa')}\n")


def test_without_arguments_the_verbs_are_listed():
    shown = subprocess.run(
        [sys.executable, "-m", "clipmsa.cli.main"], capture_output=True, text=True
    )
    assert shown.returncode == 2
    assert all(verb in shown.stdout + shown.stderr for verb in VERBS)


def test_a_dataset_is_inspected_before_anything_is_encoded(cli, clips, tmp_path):
    root = edit_table(clips, tmp_path / "mosi", r"^demo01,0", "demo01,absent")
    status, out, err = cli(f"inspect {root}")
    assert status == 0
    rows = [re.findall(r"\d+", line) for line in out.splitlines()]
    assert ["4", "4", "4", "12"] in rows
    assert ["1284", "229", "686", "2199"] in rows
    assert "1 times: clip whose file is missing" in err
    assert "demo01$_$absent" in err
    assert "demo01/0.mp4" in err


def test_splits_that_were_drawn_are_said_to_be_so(cli, tmp_path):
    """Of a raw folder, before the encoders: the run then ends because no clip has its file."""
    said = tmp_path / "raw" / "Raw" / "Transcript" / "Segmented"
    said.mkdir(parents=True)
    (said / "v.annotprocessed").write_text("1_DELIM_GOOD\n2_DELIM_NOT RATED\n")
    (tmp_path / "raw" / "OpinionLevelSentiment.csv").write_text("0,1,v,1,2.0\n")
    status, _, err = cli("extract --dataset mosi --root raw --profile tiny --streams esresnext")
    assert status == 1
    assert "mosi: 1 clips; raw CMU-MOSI" in err
    assert "splits: drawn by video with seed 1111, and not CMU's" in err
    assert "1 times: transcript without a label (v$_$2)" in err
    assert "the first 1 clips all failed" in err


@pytest.mark.slow
def test_a_store_remembers_that_its_splits_were_drawn(cli, plant, tmp_path):
    plant(tmp_path / "s.h5")
    _, _, err = cli("inspect s.h5")
    assert "splits:" not in err
    with h5py.File(tmp_path / "s.h5", "a") as file:
        file.attrs["splits_from"] = "drawn by video with seed 1111"
    warning = "splits: drawn by video with seed 1111, and not CMU's: figures cannot be compared"
    for line in (
        "inspect s.h5",
        "train --features s.h5 --seeds 1 --epochs 1 --out run",
        "ablate --features s.h5 --variants full --seeds 1 --set epochs=1",
        "evaluate run --features s.h5",
    ):
        status, _, err = cli(line)
        assert status == 0
        assert warning in err, line
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["features"]["splits_from"] == "drawn by video with seed 1111"


@pytest.mark.slow
def test_the_whole_way_with_real_encoders(cli, clips, tmp_path):
    """Real clips, all six encoders at toy size, training, metrics; then once more for nothing."""
    status, _, err = cli(f"extract --dataset d --root {clips} --profile tiny --limit 11")
    assert status == 0
    assert "encoders with random weights are untrained" in err
    status, _, err = cli(f"extract --dataset d --root {clips} --profile tiny")
    assert status == 0
    assert "1 clips encoded" in err
    status, _, err = cli(f"extract --dataset d --root {clips} --profile tiny")
    assert status == 0
    assert "nothing to do, all 12 clips are there" in err
    with h5py.File(tmp_path / "cache" / "d.h5") as file:
        widths = {name: group["values"].shape[1] for name, group in file["streams"].items()}
        assert all(file["streams"][n].attrs["weights"] == b"random (seed 0)" for n in widths)
    assert widths == {
        "albert": 64,
        "clip_text": 64,
        "wav2vec2": 64,
        "esresnext": 64,
        "clip_image": 64,
        "face_vgg": 256,
    }
    status, out, _ = cli("inspect cache/d.h5")
    assert status == 0
    assert all(name in out for name in widths)
    small = "--set d=16 --set heads=2 --set d_ff=16"
    line = f"train --features cache/d.h5 --seeds 1,2 --epochs 2 {small} --device cpu"
    status, out, err = cli(line)
    assert status == 0
    assert "Acc-2 negative/non-negative" in out
    assert "untrained encoders: albert" in err
    metrics = json.loads((tmp_path / "runs" / "d" / "metrics.json").read_text())
    assert metrics["seeds"] == [1, 2]
    assert metrics["features"]["untrained"] == list(metrics["features"]["fingerprints"])


@pytest.mark.slow
def test_sequences_are_kept_when_asked_and_used_when_named(cli, clips, tmp_path):
    line = f"extract --dataset d --root {clips} --profile tiny --streams albert,wav2vec2"
    assert cli(line)[0] == 0
    status, _, err = cli(f"{line} --sequences --sequence-rate 8")
    assert status == 0
    assert "albert_tokens 64" in err
    with h5py.File(tmp_path / "cache" / "d.h5") as file:
        streams = file["streams"]
        assert streams["albert_tokens"].attrs["states_of"] == b"albert"
        lengths = streams["wav2vec2_frames/offsets"][1:] - streams["wav2vec2_frames/offsets"][:-1]
        ratio = lengths / file["utterances/duration"][:]
    assert ratio == pytest.approx([8] * 12, abs=1.2)
    small = "--seeds 1 --epochs 1 --set d=16 --set heads=2 --set d_ff=16 --device cpu"
    assert cli(f"train --features cache/d.h5 {small} --out vectors")[0] == 0
    choice = '--set streams={"text/own"="albert_tokens","audio/own"="wav2vec2_frames"}'
    assert cli(f"train --features cache/d.h5 {small} --out states {choice}")[0] == 0
    for run, names in (
        ("vectors", {"albert", "wav2vec2"}),
        ("states", {"albert_tokens", "wav2vec2_frames"}),
    ):
        metrics = json.loads((tmp_path / run / "metrics.json").read_text())
        assert metrics["features"]["fingerprints"].keys() == names


@pytest.mark.slow
def test_a_broken_clip_decides_the_exit_status_only_when_strict(cli, clips, tmp_path):
    root = edit_table(clips, tmp_path / "table", r"^demo01,0", "demo01,absent")
    line = f"extract --dataset d --root {root} --profile tiny --streams esresnext"
    status, _, err = cli(line)
    assert status == 0
    assert "left out demo01$_$absent at media" in err
    assert cli(f"{line} --strict")[0] == 1
    assert "demo01$_$absent" in cli("inspect cache/d.h5")[1]


@pytest.mark.slow
def test_the_demo_learns_something_and_says_that_encoders_are_untrained(cli, tmp_path):
    status, out, err = cli("demo --out demo")
    assert status == 0
    assert "constant" in out
    assert "untrained" in err
    metrics = json.loads((tmp_path / "demo" / "run" / "metrics.json").read_text())
    assert metrics["test"]["corr"]["mean"] > 0.4
    assert metrics["test"]["mae"]["mean"] < metrics["constant"]["mae"]
    assert "demo/report.html: report on demo/run" in err
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "Untrained encoders." in page
    assert page.count("data:image/jpeg;base64,") >= 12  # a picture of every test utterance
