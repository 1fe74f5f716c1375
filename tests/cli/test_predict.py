"""From a video to a score: the checkpoint alone says how, and gives what the store's features give.

One tiny run, trained once on clips made here, serves the slow tests of this file.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from clipmsa.cache import FeatureStore, StreamSpec
from clipmsa.cache.errors import CheckpointError, FingerprintError, MediaError
from clipmsa.cli.main import main
from clipmsa.extract.datasets.clips import Clip
from clipmsa.extract.datasets.demo import write_demo_dataset
from clipmsa.extract.datasets.read import Manifest, read_dataset
from clipmsa.extract.engine.pipeline import extract
from clipmsa.extract.engine.plan import Settings
from clipmsa.extract.engine.rebuild import ClipEncoders
from clipmsa.extract.profiles.profile import load_profile
from clipmsa.fusion.analysis.scores import Models, Prediction, load_models
from clipmsa.fusion.experiments.runs import run
from clipmsa.fusion.networks.registry import Trainable
from clipmsa.fusion.training.checkpoint import save_checkpoint
from clipmsa.fusion.training.config import RunConfig, configured
from clipmsa.fusion.training.outcome import Outcome

SPECS = {
    "text/own": StreamSpec("words", "text", "own", "utterance", 4, fingerprint="a"),
    "audio/own": StreamSpec("sound", "audio", "own", "utterance", 4, fingerprint="b"),
    "vision/own": StreamSpec("faces", "vision", "own", "sequence", 6, fingerprint="c"),
}
SMALL = configured(
    RunConfig(), settings=["d=16", "heads=2", "d_ff=16", "transformer_ff=16", "epochs=3"]
)


def save_model(folder: Path, seed: int, specs: dict[str, StreamSpec] = SPECS) -> Path:
    """A checkpoint of a model that was never trained."""
    torch.manual_seed(seed)
    state = Trainable(SMALL.model, specs).state_dict()
    path = folder / f"model-{seed}.pt"
    save_checkpoint(path, SMALL, specs, "", Outcome(seed, 0, state, []))
    return path


def features(seed: int, faces: int = 3) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {
        spec.name: generator.standard_normal((faces if spec.level == "sequence" else 1, spec.dim))
        for spec in SPECS.values()
    }


@pytest.fixture
def models(tmp_path) -> Models:
    for seed in (7, 8, 9):
        save_model(tmp_path, seed)
    return load_models(tmp_path)


def test_a_run_scores_as_the_mean_of_its_seeds_and_gives_their_spread(models, tmp_path):
    (together,) = models.predict([features(0)])
    alone = [
        load_models(tmp_path / f"model-{seed}.pt").predict([features(0)])[0] for seed in (7, 8, 9)
    ]
    scores = [prediction.score for prediction in alone]
    assert list(together.scores) == [7, 8, 9]
    assert list(together.scores.values()) == pytest.approx(scores, abs=1e-6)
    assert together.score == pytest.approx(np.mean(scores), abs=1e-6)
    assert together.spread == pytest.approx(np.std(scores), abs=1e-6)
    assert len(set(scores)) == 3
    assert alone[0].spread is None


def test_a_contribution_is_the_score_minus_the_score_without_the_modality(models):
    (whole,) = models.predict([features(0)])
    assert list(whole.contributions) == ["text", "audio", "vision"]
    for modality, name in (("text", "words"), ("audio", "sound"), ("vision", "faces")):
        without = {stream: rows for stream, rows in features(0).items() if stream != name}
        (withheld,) = models.predict([without])
        assert whole.contributions[modality] == pytest.approx(
            whole.score - withheld.score, abs=1e-6
        )
        assert whole.contributions[modality] != 0
        assert withheld.missing == (modality,)
        assert withheld.contributions[modality] == 0


def test_no_rows_and_no_stream_both_mean_missing(models):
    empty = features(0) | {"faces": np.empty((0, 6))}
    absent = {name: rows for name, rows in features(0).items() if name != "faces"}
    one, other, _ = models.predict([empty, absent, features(1)])
    assert one.missing == other.missing == ("vision",)
    assert one.score == pytest.approx(other.score, abs=1e-6)
    assert one.contributions["vision"] == other.contributions["vision"] == 0


def test_a_score_does_not_depend_on_the_others_in_its_batch(models):
    many = [features(seed, faces=seed) for seed in range(5)]
    together = [prediction.score for prediction in models.predict(many)]
    alone = [models.predict([one])[0].score for one in many]
    assert together == pytest.approx(alone, abs=1e-5)
    assert models.predict([]) == []


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (-7.0, "strongly negative"),
        (-2.5, "negative"),  # halves go to the even class, as in Acc-7
        (-0.51, "weakly negative"),
        (0.5, "neutral"),
        (1.4, "weakly positive"),
        (1.6, "positive"),
        (2.51, "strongly positive"),
    ],
)
def test_a_score_is_told_in_words_and_not_clipped(score, word):
    prediction = Prediction({1: score}, {}, ())
    assert prediction.word == word
    assert prediction.score == score


def test_models_of_different_features_do_not_score_together(tmp_path):
    save_model(tmp_path, 1)
    save_model(tmp_path, 2, SPECS | {"text/own": replace(SPECS["text/own"], fingerprint="other")})
    with pytest.raises(CheckpointError, match="seeds 1 and 2 were not trained in one run"):
        load_models(tmp_path)


def test_a_folder_without_models_says_what_writes_them(tmp_path):
    with pytest.raises(CheckpointError, match=r"no model-SEED\.pt; `clipmsa train"):
        load_models(tmp_path)


class Tiny(NamedTuple):
    manifest: Manifest
    store: FeatureStore
    run: Path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    write_demo_dataset(folder / "clips", clips=24)  # with faceless, silent and wordless ones
    manifest = read_dataset("d", folder / "clips")
    settings = Settings(load_profile("tiny"), weights="random")
    extract(manifest, folder / "d.h5", settings)
    store = FeatureStore(folder / "d.h5")
    run(store, SMALL, folder / "run", [1, 2])
    return Tiny(manifest, store, folder / "run")


@pytest.fixture
def predict(tiny, capsys, tmp_path, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Run `clipmsa predict` with the tiny run, in an empty folder; (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(["predict", str(tiny.run), *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.slow
def test_a_clip_from_its_file_scores_as_its_stored_features_do(tiny):
    models = load_models(tiny.run)
    encoders = ClipEncoders(models.streams.values(), batch_clips=5)
    encoded = [one for batch in encoders.encode(tiny.manifest.clips) for one in batch]
    assert [one.clip for one in encoded] == tiny.manifest.clips
    assert not any(one.error for one in encoded)
    for name, stream in tiny.store.streams.items():
        assert {one.rows[name].dtype for one in encoded if name in one.rows} == {
            stream.values.dtype
        }
    rows = range(len(encoded))
    from_store = models.predict(
        [{name: stream[row] for name, stream in tiny.store.streams.items()} for row in rows]
    )
    from_files = models.predict([one.rows for one in encoded])
    for one, other in zip(from_files, from_store, strict=True):
        assert one.missing == other.missing
        assert one.scores == pytest.approx(dict(other.scores), abs=1e-4)
        assert one.contributions == pytest.approx(dict(other.contributions), abs=1e-4)
    assert {one.missing for one in from_files} == {(), ("text",), ("audio",)}


@pytest.mark.slow
def test_random_weights_that_come_out_otherwise_are_refused(tiny):
    (spec,) = (s for s in load_models(tiny.run).streams.values() if s.name == "esresnext")
    other = replace(spec, weights_sha256="ab12", config={**spec.config, "weights": {"torch": "1"}})
    with pytest.raises(FingerprintError) as caught:
        ClipEncoders([other])
    assert f"weights.torch: 1 -> {torch.__version__}" in str(caught.value)
    assert f"weights_sha256: ab12 -> {spec.weights_sha256}" in str(caught.value)


@pytest.mark.slow
def test_json_has_a_line_for_each_video_with_all_that_is_known_of_it(predict, tiny):
    clip = tiny.manifest.clips[-1]
    status, out, err = predict(str(clip.path), "--text", clip.utterance.text, "--json")
    assert status == 0
    assert "untrained encoders: albert" in err
    row = json.loads(out)
    assert row["file"] == str(clip.path)
    assert (row["start"], row["end"]) == (0, pytest.approx(2, abs=0.6))
    assert row["text"] == clip.utterance.text
    assert row["word"].endswith(("negative", "neutral", "positive"))
    assert row["spread"] >= 0
    assert list(row["contributions"]) == ["text", "audio", "vision"]
    assert row["missing"] == []
    assert row["faces"] == row["frames"] > 0
    assert set(row["untrained"]) == set(tiny.store.streams)
    assert row["error"] is None
    (stored,) = load_models(tiny.run).predict(
        [{name: stream[len(tiny.store) - 1] for name, stream in tiny.store.streams.items()}]
    )
    assert row["score"] == pytest.approx(stored.score, abs=1e-4)


@pytest.mark.slow
def test_a_bad_file_is_one_row_and_fails_the_command_only_when_strict(predict, tiny, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, clip in zip("ac", tiny.manifest.clips, strict=False):
        shutil.copy(clip.path, folder / f"{name}.mp4")
    (folder / "b.mp4").write_bytes(b"no video")
    (folder / "notes.md").write_text("not a video either")
    status, out, err = predict("videos", "--json")
    assert status == 0
    assert "1 failed; the rows say why" in err
    assert "2 scored without text" in err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["file"] for row in rows] == ["videos/a.mp4", "videos/b.mp4", "videos/c.mp4"]
    assert [row["score"] is None for row in rows] == [False, True, False]
    assert rows[1]["error"].startswith("videos/b.mp4: cannot be decoded")
    assert rows[0]["missing"] == ["text"]
    status, out, _ = predict("videos/[bc].mp4", "--strict", "--csv")
    assert status == 1
    table = list(csv.DictReader(io.StringIO(out)))
    assert [row["error"] != "" for row in table] == [True, False]
    contribution = pytest.approx(rows[2]["contributions"]["vision"], abs=1e-6)
    assert float(table[1]["contribution_vision"]) == contribution


@pytest.mark.slow
def test_a_text_file_beside_the_video_is_what_is_said_in_it(predict, tiny, tmp_path):
    shutil.copy(tiny.manifest.clips[-1].path, tmp_path / "talk.mp4")
    (tmp_path / "talk.txt").write_text("\ufeffThe ending,\nthough!\n", encoding="utf-8")
    _, out, err = predict("talk.mp4", "talk.txt", "--json")
    (row,) = map(json.loads, out.splitlines())
    assert row["text"] == "The ending, though!"
    assert "without text" not in err


@pytest.mark.slow
def test_subtitles_make_a_timeline_and_a_cue_beyond_the_end_is_a_row_with_an_error(
    predict, tiny, tmp_path
):
    shutil.copy(tiny.manifest.clips[-1].path, tmp_path / "talk.mp4")
    cues = [("00.000", "00.700", "it is great"), ("00.700", "01.400", "no it is not")]
    lines = [f"00:{start} --> 00:{end}\n{text}\n" for start, end, text in cues]
    late = "00:30.000 --> 00:31.000\ntoo late\n"
    (tmp_path / "words.vtt").write_text("\n".join(["WEBVTT\n", *lines, late]))
    status, out, _ = predict("talk.mp4", "--subtitles", "words.vtt", "--json")
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["start"], row["end"], row["text"]) for row in rows[:2]] == [
        (float(start), float(end), text) for start, end, text in cues
    ]
    assert rows[0]["score"] != rows[1]["score"]
    assert [row["frames"] for row in rows] == [4, 4, None]
    assert "talk.mp4: " in rows[2]["error"]


@pytest.mark.slow
def test_subtitles_that_are_named_are_read_before_any_work_and_a_sidecar_is_its_video_s_error(
    predict, tiny, tmp_path
):
    shutil.copy(tiny.manifest.clips[-1].path, tmp_path / "talk.mp4")
    (tmp_path / "talk.srt").write_text("no subtitles")
    status, out, err = predict("talk.mp4", "--subtitles", "talk.srt")
    assert (status, out) == (1, "")
    assert err.startswith("error: talk.srt: not subtitles")
    status, out, _ = predict("talk.mp4", "--json")
    assert status == 0
    assert json.loads(out)["error"].startswith("talk.srt: not subtitles")


@pytest.mark.slow
def test_a_cue_that_cannot_be_read_is_a_row_with_an_error(predict, tiny, tmp_path):
    shutil.copy(tiny.manifest.clips[-1].path, tmp_path / "talk.mp4")
    cues = "00:00.000 --> 00:00.700\ngood\n\n00:00.7x0 --> 00:01.400\nbad\n"
    (tmp_path / "talk.en.vtt").write_text(f"WEBVTT\n\n{cues}")
    status, out, _ = predict("talk.mp4", "--json", "--strict")
    assert status == 1
    error, good = sorted(map(json.loads, out.splitlines()), key=lambda row: row["text"])
    assert "talk.en.vtt: left out 'bad', whose cue at line 6" in error["error"]
    assert (good["text"], good["error"]) == ("good", None)


@pytest.mark.slow
def test_a_file_whose_name_is_not_utf_8_is_scored(predict, tiny, tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(tiny.manifest.clips[-1].path, tmp_path / name)
    status, out, _ = predict(name, "--text", "good", "--json")
    assert status == 0
    assert json.loads(out)["file"] == name  # JSON can hold it


class StubTranscriber:
    """Hears one sentence, and nothing in a clip whose file has a name with "deaf"."""

    def heard(self, clip: Clip) -> Clip:
        if "deaf" in clip.path.name:
            raise MediaError(f"{clip.path}: cannot be decoded")
        return replace(clip, utterance=replace(clip.utterance, text="what is heard"))


@pytest.mark.slow
def test_what_is_heard_is_the_text_whatever_lies_beside_the_video(
    predict, tiny, tmp_path, monkeypatch
):
    found = "clipmsa.extract.transcripts.transcriber.find_transcriber"
    monkeypatch.setattr(found, lambda weights, device: StubTranscriber())
    for name in ("a.mp4", "deaf.mp4"):
        shutil.copy(tiny.manifest.clips[-1].path, tmp_path / name)
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nwhat is written\n")
    status, out, _ = predict(".", "--transcribe", "--json")
    assert status == 0
    heard, deaf = map(json.loads, out.splitlines())
    assert (heard["text"], heard["start"]) == ("what is heard", 0)
    assert heard["end"] > 1
    assert heard["missing"] == []
    assert deaf["error"] == "deaf.mp4: cannot be decoded"
    _, out, _ = predict("a.mp4", "--text", "what is heard", "--json")
    assert json.loads(out)["score"] == pytest.approx(heard["score"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere.mp4"], 1, "nowhere.mp4: no such file or folder"),
        (["*.mp4"], 1, "*.mp4: no video or sound there"),
        (["."], 1, ".: no video or sound there"),
        (["{clip}", "{clip}", "--text", "good"], 2, "these are 2"),
        (["{clip}", "--text", "good", "--subtitles", "a.srt"], 2, "one of --text, --sub"),
        (["{clip}", "--json", "--csv"], 2, "one of --json and --csv"),
        (["{clip}", "--weights", "random"], 2, "the model says"),
        (["{clip}", "--weights", "nowhere"], 1, "--weights nowhere: no such folder"),
    ],
)
def test_a_mistake_is_told_before_any_work(predict, tiny, arguments, status, message):
    clip = str(tiny.manifest.clips[0].path)
    got, out, err = predict(*(argument.replace("{clip}", clip) for argument in arguments))
    assert got == status
    assert out == ""
    assert message in " ".join(err.split())
