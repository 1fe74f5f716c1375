"""Model files and run folders that are damaged or made to do harm: a result, or one clear line."""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import (
    CheckpointError,
    ClipmsaError,
    ConfigError,
    RunError,
    TableError,
    TrainingError,
)
from clipmsa.cli.main import main
from clipmsa.fusion.analysis.scored import read_scored
from clipmsa.fusion.analysis.scores import load_models
from clipmsa.fusion.experiments.runs import run
from clipmsa.fusion.experiments.variants import variants_of
from clipmsa.fusion.report import read_run
from clipmsa.fusion.training import tensorfile
from clipmsa.fusion.training.checkpoint import load_checkpoint, load_progress, load_run
from clipmsa.fusion.training.config import RunConfig, check_seeds, configured
from clipmsa.fusion.training.folder import json_text

mutation = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def model(hostile_run) -> Path:
    return hostile_run / "run" / "model-1.pt"


@pytest.fixture
def folder(hostile_run, tmp_path) -> Path:
    return Path(shutil.copytree(hostile_run / "run", tmp_path / "run"))


def put(*path: Any) -> Callable[[dict], None]:
    """Set `path[-1]` at the keys before it."""

    def change(content: dict) -> None:
        *keys, last, value = path
        for key in keys:
            content = content[key]
        content[last] = value

    return change


def of_state(change: Callable[[torch.Tensor], Any], of: str = "W_Q") -> Callable[[dict], None]:
    def apply(content: dict) -> None:
        state = content["outcome"]["state"]
        key = next(key for key in state if of in key)
        state[key] = change(state[key])

    return apply


WRONG: dict[str, Callable[[dict], Any]] = {
    "config is a list": put("config", []),
    "no such network": put("config", "model", "network", "evil"),
    "a network without a hash": put("config", "model", "network", ["a"]),
    "d of 0": put("config", "model", "d", 0),
    "d as text": put("config", "model", "d", "16"),
    "d of 2**40": put("config", "model", "d", 1 << 40),
    "heads of 0": put("config", "model", "heads", 0),
    "a million layers": put("config", "model", "transformer_layers", 1_000_000),
    "more layers than there are weights": put("config", "model", "transformer_layers", 3),
    "dropout of 5": put("config", "model", "dropout", 5.0),
    "order of numbers": put("config", "model", "order", (1, 2, 3)),
    "drop is nothing": put("config", "model", "drop", None),
    "an unknown setting": put("config", "model", "depth", 3),
    "a variant that climbs": put("config", "variant", "../../x"),
    "no streams": put("streams", {}),
    "streams is a list": put("streams", [1]),
    "a width below 0": put("streams", "text/own", "dim", -1),
    "a width of 2**62": put("streams", "text/own", "dim", 1 << 62),
    "a modality of its own": put("streams", "text/own", "modality", "smell"),
    "weights of another shape": of_state(lambda w: torch.zeros(3)),
    "weights of another type": of_state(lambda w: w.double()),
    "weights that are none": of_state(lambda w: "x"),
    "weights of NaN": of_state(lambda w: w * math.nan),
    "statistics of infinity": of_state(lambda w: w + math.inf, "running_var"),
    "weights larger than their bytes": of_state(lambda w: torch.zeros(1).expand(1 << 40)),
    "sparse weights": of_state(lambda w: torch.zeros(3, 3).to_sparse()),
    "state is a list": put("outcome", "state", [1]),
    "a seed as text": put("outcome", "seed", "x"),
    "a history of something else": put("outcome", "history", [{"a": 1}]),
    "predictions as lists": put("outcome", "predictions", {"test": [1.0]}),
    "predictions of NaN": put("outcome", "predictions", "test", torch.tensor([math.nan]).double()),
    "no versions": put("versions", None),
    "another format": put("format", "clipmsa-progress"),
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_model_file_that_does_not_fit_its_network_is_refused(model, tmp_path, change):
    content = torch.load(model, weights_only=True)
    change(content)
    torch.save(content, tmp_path / "wrong.pt")
    with pytest.raises(CheckpointError, match=r"wrong\.pt") as caught:
        load_checkpoint(tmp_path / "wrong.pt")
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def rewritten(source: Path, target: Path, kind: int, change: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", kind) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def test_a_deflated_record_is_not_inflated(model, tmp_path):
    """64 MB of zeros in 64 kB; torch would make room for all of them."""
    bomb = tmp_path / "bomb.pt"
    rewritten(model, bomb, zipfile.ZIP_DEFLATED, lambda name, data: bytes(64 << 20)
              if name.endswith("data.pkl") else data)  # fmt: skip
    assert bomb.stat().st_size < 4 << 20
    with pytest.raises(CheckpointError, match="a record is compressed"):
        load_checkpoint(bomb)


def test_a_tensor_that_declares_more_than_its_record_is_refused(tmp_path):
    torch.save({"format": "clipmsa-model", "t": torch.zeros(7)}, tmp_path / "good.pt")
    rewritten(tmp_path / "good.pt", tmp_path / "bad.pt", zipfile.ZIP_STORED, lambda name, data:
              data.replace(b"K\x07", b"M\x00\x40"))  # fmt: skip
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "bad.pt")


class Calls:
    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (1 << 40,)


@pytest.mark.parametrize("value", [Calls(), torch.nn.Parameter(torch.zeros(2)), {1, 2}, b"x"])
def test_a_file_names_nothing_but_tensors(tmp_path, value):
    """torch itself would build a bytearray of a terabyte."""
    torch.save({"format": "clipmsa-model", "x": value}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        tensorfile.load(tmp_path / "x.pt")


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "model-1.pt")
    with pytest.raises(CheckpointError, match="no regular file"):
        load_checkpoint(tmp_path / "model-1.pt")


def test_what_is_saved_comes_back(tmp_path):
    content: dict[str, Any] = {
        "a": torch.arange(6).view(2, 3).T,
        "b": [1, (2.5, None)],
        "c": {"d": True},
    }
    tensorfile.save(tmp_path / "x.pt", content)
    back = tensorfile.load(tmp_path / "x.pt")
    assert torch.equal(back.pop("a"), content.pop("a"))
    assert back == content


@pytest.mark.parametrize("seeds", [["1/../../x"], ["1"], 5, None, {"a": 1}, [1.5], [True]])
def test_seeds_that_are_no_numbers_open_no_file(folder, seeds):
    metrics = json.loads((folder / "metrics.json").read_text()) | {"seeds": seeds}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(CheckpointError, match=r"metrics\.json: not that of a run"):
        load_run(folder)
    with pytest.raises(RunError, match=r"metrics\.json: not the metrics of a run"):
        read_run(folder)


def test_models_of_different_labels_do_not_score_together(folder):
    """As a store replaced between two seeds left them in versions before."""
    content = torch.load(folder / "model-2.pt", weights_only=True)
    content["data"] = "another"
    torch.save(content, folder / "model-2.pt")
    with pytest.raises(CheckpointError, match="were not trained in one run"):
        load_run(folder)


# -- numbers that are none -------------------------------------------------------------------------


def test_scores_that_are_not_numbers_are_known(folder):
    for file in folder.glob("model-*.pt"):
        content = torch.load(file, weights_only=True)
        state = content["outcome"]["state"]
        for key in [key for key in state if key.endswith("predictor.layers.3.weight")]:
            state[key].fill_(3e38)
        torch.save(content, file)
    models = load_models(folder)
    rows = {s.name: np.ones((1, s.dim), np.float32) for s in models.streams.values()}
    (prediction,) = models.predict([rows])
    assert not prediction.finite


def test_features_too_large_leave_no_model_of_infinite_statistics(tmp_path, plant):
    plant(tmp_path / "store.h5", counts=(24, 8, 8))
    with h5py.File(tmp_path / "store.h5", "r+") as file:
        file["streams/albert/values"][3] = 1e30
    config = configured(RunConfig(), settings=["d=16", "heads=4", "d_ff=16", "epochs=1"])
    try:
        outcome = run(FeatureStore(tmp_path / "store.h5"), config, tmp_path / "run", [1]).outcomes[
            0
        ]
    except TrainingError:
        assert not (tmp_path / "run" / "model-1.pt").exists()
    else:
        assert all(tensor.isfinite().all() for tensor in outcome.state.values())


def test_json_has_null_for_what_is_no_number():
    text = json_text({"corr": math.nan, "mae": [math.inf, 1.0], "n": 3})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "corr": None,
        "mae": [None, 1.0],
        "n": 3,
    }


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [2**63], [2**64]])
def test_seeds_that_no_generator_takes_are_refused(seeds):
    with pytest.raises(ConfigError, match="seed"):
        check_seeds(seeds)


# -- what is read is not replaced ------------------------------------------------------------------


def test_a_report_does_not_replace_what_it_reads(folder):
    before = (folder / "metrics.json").read_bytes()
    assert main(["report", str(folder), "--out", str(folder / "metrics.json")]) == 2
    assert (folder / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("name", ["run/predictions.csv", "store.h5"])
def test_predictions_do_not_replace_what_is_read(hostile_run, folder, name):
    shutil.copy(hostile_run / "store.h5", folder.parent)
    target, store = folder.parent / name, folder.parent / "store.h5"
    before = target.read_bytes()
    line = ["evaluate", str(folder), "--features", str(store), "--predictions", str(target)]
    assert main(line) == 2
    assert target.read_bytes() == before


def test_a_disk_that_fills_is_told_in_one_line_and_leaves_nothing(tmp_path, plant, capsys):
    plant(tmp_path / "store.h5", counts=(24, 8, 8))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    line = ["train", "--features", str(tmp_path / "store.h5"), "--out", str(tmp_path / "run")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        status = main([*line, "--seeds", "1", "--epochs", "1", "--device", "cpu"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
    assert status == 1
    assert len(told) == 1
    assert "model-1.pt" in told[0]
    assert {file.name for file in (tmp_path / "run").iterdir()} == {".lock", "config.toml"}


# -- any change of any file is a result or an error of ours ----------------------------------------


def mutated(good: bytes, data: st.DataObject) -> bytes:
    """Bytes of a file with a piece overwritten, cut out, doubled, or all after it gone."""
    at = data.draw(st.integers(0, len(good) - 1))
    piece = data.draw(st.binary(max_size=8))
    match data.draw(st.sampled_from(["put", "cut", "double", "end"])):
        case "put":
            return good[:at] + piece + good[at + len(piece) :]
        case "cut":
            return good[:at] + good[at + len(piece) + 1 :]
        case "double":
            return good[:at] + good[max(0, at - 64) :]
        case _:
            return good[:at]


def complaint(
    error: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]
) -> str | None:
    """What an error of ours says; None where there is none; any other error fails the test."""
    try:
        call()
    except error as caught:
        return str(caught)
    return None


TEXTS: dict[str, tuple[type[ClipmsaError], Callable[[Path], object]]] = {
    "metrics.json": (RunError, lambda path: read_run(path.parent)),
    "predictions.csv": (RunError, lambda path: read_run(path.parent)),
    "history.csv": (RunError, lambda path: read_run(path.parent)),
    "config.toml": (ConfigError, lambda path: configured(RunConfig(), path)),
}
HOSTILE_NUMBERS = [b"NaN", b"1e999", b"-1", b"9" * 5000, b"null", b"[" * 5000, b'"', b"\0", b"\xff"]


@pytest.mark.parametrize("name", TEXTS)
@mutation
@given(data=st.data())
def test_a_changed_file_of_a_run_is_read_or_named(folder, hostile_run, name, data):
    error, read = TEXTS[name]
    good = (hostile_run / "run" / name).read_bytes()
    bad = mutated(good, data)
    at = data.draw(st.integers(0, len(bad)))
    bad = bad[:at] + data.draw(st.sampled_from([b"", *HOSTILE_NUMBERS])) + bad[at:]
    (folder / name).write_bytes(bad)
    told = complaint(error, lambda: read(folder / name))
    (folder / name).write_bytes(good)
    assert told is None or (name in told and "\n" not in told)


ROW = {
    "file": "a.mp4", "start": 0.0, "end": 2.0, "text": "good", "score": 0.5, "word": "positive",
    "spread": None, "contributions": {"text": 0.1}, "missing": [], "untrained": [], "error": None,
}  # fmt: skip
GOOD_ROW = json.dumps(ROW).encode()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@mutation
@given(key=st.sampled_from(list(ROW)), value=JSON, data=st.data())
def test_changed_rows_of_predict_are_read_or_named(tmp_path, key, value, data):
    path = tmp_path / "scores.jsonl"
    for content in (json.dumps(ROW | {key: value}).encode(), mutated(GOOD_ROW, data)):
        path.write_bytes(content)
        if complaint(TableError, lambda: read_scored(path)) is None:
            found = next(iter(read_scored(path).values()))[0]
            assert all(n is None or math.isfinite(n) for n in (found.start, found.end, found.score))


@mutation
@given(table=st.dictionaries(st.sampled_from(["variant", "model", "training", "x"]), JSON))
def test_any_toml_is_a_configuration_or_named(tmp_path, table):
    import tomli_w

    try:
        text = tomli_w.dumps(table)
    except TypeError:  # None has no TOML
        return
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    readers: list[Callable[[Path], object]] = [partial(configured, RunConfig()), variants_of]
    for read in readers:
        told = complaint(ConfigError, partial(read, tmp_path / "c.toml"))
        assert told is None or "c.toml" in told


@mutation
@given(data=st.data())
def test_a_changed_model_file_is_the_same_or_named(model, tmp_path, data):
    """Every byte that torch reads is under a sum; the rest may change and change nothing."""
    good = load_checkpoint(model)
    path = tmp_path / "model-1.pt"
    path.write_bytes(mutated(model.read_bytes(), data))
    if complaint(CheckpointError, lambda: load_checkpoint(path)) is None:
        found = load_checkpoint(path)
        assert found.config == good.config
        assert all(torch.equal(found.outcome.state[k], v) for k, v in good.outcome.state.items())


@mutation
@given(data=st.data())
def test_a_changed_pickle_under_a_right_sum_is_a_model_or_named(model, tmp_path, data):
    """Whoever changes a file on purpose writes its sums anew."""
    path = tmp_path / "model-1.pt"
    rewritten(model, path, zipfile.ZIP_STORED, lambda name, content:
              mutated(content, data) if name.endswith("data.pkl") else content)  # fmt: skip
    told = complaint(CheckpointError, lambda: load_checkpoint(path).model())
    assert told is None or "\n" not in told


@mutation
@given(data=st.data())
def test_changed_progress_is_none(tmp_path, data):
    path = tmp_path / ".progress-1.pt"
    tensorfile.save(path, {"format": "clipmsa-progress", "key": "k", "x": torch.arange(9)})
    path.write_bytes(mutated(path.read_bytes(), data))
    kept = load_progress(path, "k")
    assert kept is None or torch.equal(kept["x"], torch.arange(9))


def test_a_pickle_alone_is_no_model(tmp_path):
    (tmp_path / "model-1.pt").write_bytes(pickle.dumps({"format": "clipmsa-model"}))
    with pytest.raises(CheckpointError, match="is a pickle"):
        load_checkpoint(tmp_path / "model-1.pt")
