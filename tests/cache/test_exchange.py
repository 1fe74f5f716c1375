"""Other programs' features in and out: MMSA's pickles, CMU's csd files, Parquet, scikit-learn."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from clipmsa.cache import FeatureStore, StreamColumn, StreamSpec, Utterance, pooled, write_store
from clipmsa.cache.errors import ClipmsaError, ExchangeError
from clipmsa.cache.exchange.mmsa_pickle import (
    bert_tokens,
    export_mmsa,
    import_mmsa,
    streams_for_mmsa,
)
from clipmsa.cache.exchange.unpickle import load_plain
from clipmsa.cache.spec import SPLITS
from clipmsa.cache.verify import verify_store
from clipmsa.cli.main import main
from clipmsa.extract.datasets.cmu import read_csd

ROOT = Path(__file__).parents[2]
TEXT, AUDIO, VISION = 6, 5, 3  # columns; 768, 5 and 20 in MMSA's files of MOSI


def part(n: int, seed: int, *, aligned: bool) -> dict[str, Any]:
    """A split as MMSA distributes it: padded at the end, with the lengths beside it."""
    rng = np.random.default_rng(seed)
    longest = {"text": 8, "audio": 8 if aligned else 12, "vision": 8 if aligned else 10}
    lengths = {name: rng.integers(2, size + 1, n) for name, size in longest.items()}
    if aligned:
        lengths = dict.fromkeys(longest, lengths["text"])
    arrays = {
        name: rng.normal(1, 0.2, (n, longest[name], width)).astype(np.float32)
        for name, width in (("text", TEXT), ("audio", AUDIO), ("vision", VISION))
    }
    for name, array in arrays.items():
        for i, length in enumerate(lengths[name]):
            array[i, length:] = 0
    mask = np.arange(8) < lengths["text"][:, None]
    tokens = np.stack([np.where(mask, 101, 0), mask, np.zeros((n, 8))], axis=1).astype(np.int64)
    labels = np.array([-1.2, 0.0, 2.4] * n, np.float32)[:n]
    given = {
        "raw_text": np.array([f"words {seed} {i}" for i in range(n)]),
        "id": np.array([f"vid{seed}_$_${i}" for i in range(n)]),
        **arrays,
        "text_bert": tokens,
        "annotations": np.array(["Negative", "Neutral", "Positive"] * n)[:n],
        "classification_labels": np.array([0, 1, 2] * n)[:n],
        "regression_labels": labels,
    }
    if not aligned:
        given |= {f"{name}_lengths": lengths[name].tolist() for name in ("audio", "vision")}
    return given


def mmsa_content(*, aligned: bool = False) -> dict[str, Any]:
    counts = zip(SPLITS, (7, 4, 5), strict=True)
    return {split: part(n, n, aligned=aligned) for split, n in counts}


def dump(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


# ---- From MMSA.


@pytest.mark.parametrize("aligned", [False, True])
def test_mmsa_s_padding_is_taken_off(tmp_path, aligned):
    content = mmsa_content(aligned=aligned)
    source = dump(tmp_path / "mosi.pkl", content)
    assert import_mmsa(source, tmp_path / "s.h5") == (16, [])
    store = FeatureStore(tmp_path / "s.h5")
    assert store.splits == ["train"] * 7 + ["valid"] * 4 + ["test"] * 5
    assert (store.video_ids[8], store.clip_ids[8], store.texts[8]) == ("vid4_", "1", "words 4 1")
    assert store.labels[:3].tolist() == pytest.approx([-1.2, 0.0, 2.4])
    row = 0
    for split in SPLITS:
        given = content[split]
        mask = given["text_bert"][:, 1].sum(axis=1)
        for i in range(len(given["id"])):
            for name, stream in store.streams.items():
                length = mask[i] if aligned or name == "text" else given[f"{name}_lengths"][i]
                assert np.array_equal(stream[row], given[name][i, :length])
            row += 1
    for name, stream in store.streams.items():
        assert (stream.spec.modality, stream.spec.branch, stream.spec.level) == (
            name,
            "own",
            "sequence",
        )
        assert stream.values.dtype == np.float32
    assert verify_store(store.path) == ([], [])


def test_values_that_are_not_finite_and_missing_modalities_are_counted(tmp_path):
    content = mmsa_content()
    content["train"]["audio"][0, 0, 1] = -np.inf
    content["valid"]["audio"][1, 1] = np.nan
    content["test"]["vision"][2] = 0  # MMSA states a length of 1 for nothing
    content["test"]["vision_lengths"][2] = 1
    imported = import_mmsa(dump(tmp_path / "a.pkl", content), tmp_path / "s.h5")
    assert imported.notes == [
        "audio: 6 values that were not finite are 0 now, as MMSA reads them",
        "vision: 1 utterances have nothing but zeros and now no rows: it is missing",
    ]
    store = FeatureStore(tmp_path / "s.h5")
    assert store.streams["audio"][0][0, 1] == 0
    assert store.streams["vision"].lengths[13] == 0


def test_a_pickle_of_mmsa_fet_is_read(tmp_path):
    """Float64, lists, bytes, no token ids, a configuration beside the splits."""
    content = mmsa_content()
    for split in SPLITS:
        given = content[split]
        given["id"] = [id_.encode() for id_ in given["id"]]
        given["raw_text"] = given["raw_text"].tolist()
        given["text"] = given["text"].astype(np.float64)
        del given["text_bert"], given["annotations"], given["classification_labels"]
    content["test"]["id"][:2] = ["a$_$b$_$3", "no clip"]
    content["config"] = {"audio": {"tool": "librosa", "args": [16000, None, True]}}
    import_mmsa(dump(tmp_path / "fet.pkl", content), tmp_path / "s.h5")
    store = FeatureStore(tmp_path / "s.h5")
    assert store.ids[0] == "vid7_$_$0"
    assert (store.video_ids[11], store.clip_ids[11]) == ("a$_$b", "3")
    assert (store.video_ids[12], store.clip_ids[12]) == ("no clip", "0")
    filled = [int((rows != 0).any(axis=1).sum()) for rows in content["train"]["text"]]
    assert store.streams["text"].lengths[:7].tolist() == filled


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"], ids=["NumPy 1", "NumPy 2"])
def test_pickles_of_every_age_are_read(tmp_path, protocol, core):
    content = OrderedDict(
        a=np.arange(6.0).reshape(2, 3), b=np.float32(1.5), c=np.array(["x", None], object)
    )
    written = pickle.dumps(content, protocol)
    if core == b"numpy.core":
        if protocol >= 4:  # there a name has its length before it, and all a frame around it
            written = written[:2] + written[11:]
            for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
                written = written.replace(bytes([len(name)]) + name, bytes([len(name) - 1]) + name)
        written = written.replace(b"numpy._core", core)
        assert b"_core" not in written
    (tmp_path / "old.pkl").write_bytes(written)
    read = load_plain(tmp_path / "old.pkl")
    assert read["a"].tolist() == content["a"].tolist()
    assert (read["b"], read["c"].tolist()) == (1.5, ["x", None])


class Evil:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("evil", "named"),
    [
        (lambda path: Evil(os.mkdir, str(path)), "mkdir"),
        (lambda path: Evil(eval, f"__import__('os').mkdir({str(path)!r})"), "builtins.eval"),
        (lambda path: np.array([Evil(os.mkdir, str(path))], object), "mkdir"),
        (lambda path: Evil(getattr, "x", "y"), "builtins.getattr"),
        (lambda path: pd.DataFrame({"a": [1]}), "pandas"),
        (lambda path: Path("x"), "pathlib"),
        (lambda path: np.load, "numpy"),
    ],
    ids=["a command", "an expression", "in an array", "getattr", "a frame", "a path", "np.load"],
)
def test_a_pickle_that_names_anything_else_is_refused_by_name_and_not_run(tmp_path, evil, named):
    content = {"train": {"text": evil(tmp_path / "executed")}}
    with pytest.raises(ExchangeError, match=named) as caught:
        load_plain(dump(tmp_path / "evil.pkl", content))
    assert "it is not loaded" in str(caught.value)
    assert not (tmp_path / "executed").exists()


FAULTS = {
    "no splits": (
        lambda c: [c.update(data=c.pop(split)) for split in SPLITS],
        "split 'data' is none of train, training, valid, val, dev",
    ),
    "no dicts": (lambda c: c.update(valid=[1]), "must hold dicts train, valid, test"),
    "no ids": (lambda c: c["valid"].pop("id"), "split valid has no 'id'"),
    "no labels": (lambda c: c["test"].pop("regression_labels"), "no 'regression_labels'"),
    "labels of words": (
        lambda c: c["test"].update(regression_labels=["good"] * 5),
        "split test: 'regression_labels'",
    ),
    "fewer labels": (
        lambda c: c["test"].update(regression_labels=[1.0]),
        "split test has 5 ids, 5 texts, 1 labels",
    ),
    "two axes": (
        lambda c: c["train"].update(audio=np.zeros((7, 5))),
        r"'audio' is float64 of shape \(7, 5\), must be 3 axes",
    ),
    "fewer rows": (
        lambda c: c["train"].update(vision=np.zeros((6, 5, 3))),
        "'vision' is float64 of shape .*of 7 utterances",
    ),
    "other widths": (
        lambda c: c["valid"].update(audio=np.ones((4, 5, 9))),
        "'audio' has 5 and 9 columns",
    ),
    "not in all splits": (lambda c: c["valid"].pop("vision"), "'vision' has 3 columns in train, t"),
    "an id twice": (
        lambda c: c["test"].update(id=["a$_$1"] * 5),
        r"id 'a\$_\$1' occurs twice",
    ),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_a_pickle_is_named(tmp_path, change, message):
    content = mmsa_content()
    change(content)
    with pytest.raises(ClipmsaError, match=message):
        import_mmsa(dump(tmp_path / "a.pkl", content), tmp_path / "s.h5")
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04]q", pickle.dumps({})[:-3]])
def test_a_file_that_is_no_pickle_is_refused(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(ExchangeError, match=r"a\.pkl: not a readable pickle \(.+\)"):
        load_plain(tmp_path / "a.pkl")
    with pytest.raises(ExchangeError, match="no such file"):
        load_plain(tmp_path / "none.pkl")


@pytest.mark.slow
def test_an_imported_store_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dump(tmp_path / "mosi.pkl", mmsa_content())
    assert main(["import", "--from", "mmsa", "mosi.pkl", "mosi.h5"]) == 0
    assert main(["import", "--from", "mmsa", "mosi.pkl", "mosi.h5"]) == 1
    assert "is there already" in capsys.readouterr().err
    small = ["--set", "d=16", "--set", "d_ff=16", "--seeds", "1", "--epochs", "1"]
    assert main(["train", "--features", "mosi.h5", "--device", "cpu", *small]) == 0
    metrics = json.loads((tmp_path / "runs" / "mosi" / "metrics.json").read_text())
    assert sorted(metrics["features"]["fingerprints"]) == ["audio", "text", "vision"]


# ---- The names and shapes that repositories of the field give to the same things.


def renamed(part: dict[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in part.items()}


@pytest.mark.parametrize("valid", ["val", "dev", "validation", "Valid"])
@pytest.mark.parametrize(("audio", "vision"), [("acoustic", "visual"), ("audio", "video")])
def test_usual_names_of_splits_and_arrays_are_read(tmp_path, valid, audio, vision):
    content = mmsa_content()
    import_mmsa(dump(tmp_path / "a.pkl", content), tmp_path / "a.h5")
    names = {"audio": audio, "vision": vision, "regression_labels": "labels"}
    names |= {f"{name}_lengths": f"{other}_lengths" for name, other in list(names.items())[:2]}
    other = {split: renamed(part, **names) for split, part in content.items()}
    for part in other.values():
        part["labels"] = part["labels"].reshape(-1, 1, 1)
    other = {"Train": other["train"], valid: other["valid"], "test": other["test"]}
    assert import_mmsa(dump(tmp_path / "b.pkl", other), tmp_path / "b.h5") == (16, [])
    one, two = FeatureStore(tmp_path / "a.h5"), FeatureStore(tmp_path / "b.h5")
    assert one.utterances.equals(two.utterances)
    for name, stream in one.streams.items():
        assert np.array_equal(stream.values, two.streams[name].values)


UNKNOWN = {
    "a split": (
        lambda c: c.update(extra=c["test"]),
        "split 'extra' is none of train, training, valid, val",
    ),
    "a split twice": (lambda c: c.update(val=c["valid"]), "'valid' and 'val' are the same split"),
    "an array": (
        lambda c: c["train"].update(glove=np.ones((7, 3, 5))),
        "split train: array 'glove' is none of text, audio, acoustic",
    ),
    "an array twice": (
        lambda c: c["train"].update(visual=c["train"]["vision"]),
        "split train has two arrays of 'vision', as 'visual'",
    ),
    "labels of seven": (
        lambda c: c["train"].update(regression_labels=np.ones((7, 7))),
        r"'regression_labels' has shape \(7, 7\), must be one for each",
    ),
    "a length that is nan": (
        lambda c: c["train"].update(audio_lengths=[np.nan] * 7),
        "'audio_lengths' of utterance 0 is nan, must be a whole number",
    ),
    "a length below nothing": (
        lambda c: c["train"].update(audio_lengths=[1, -5, 1, 1, 1, 1, 1]),
        "'audio_lengths' of utterance 1 is -5, must be a whole number",
    ),
    "ids that are none": (lambda c: c["train"].update(id=5), r"'id' has shape \(\), must be one"),
    "ids in a dict": (
        lambda c: c["train"].update(id=[{"a": 1}] * 7),
        "'id' holds a dict, must be texts",
    ),
    "tokens that are none": (
        lambda c: c["train"].update(text_bert=7),
        "'text_bert' is int64 of shape ",
    ),
}


@pytest.mark.parametrize(("change", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_is_refused_by_name(tmp_path, change, message):
    content = mmsa_content()
    change(content)
    with pytest.raises(ExchangeError, match=message):
        import_mmsa(dump(tmp_path / "a.pkl", content), tmp_path / "s.h5")


@pytest.mark.parametrize(
    ("form", "video", "clip"),
    [("v{0}[{1}]", "v0", "1"), ("v_{0}_{1}", "v_0", "1"), ("v{0}_{1}$_$2", "v0_1", "2")],
)
def test_ids_of_other_forms_keep_their_video(tmp_path, form, video, clip):
    content = mmsa_content()
    for n, part in enumerate(content.values()):
        part["id"] = [form.format(n, k + 1) for k in range(len(part["id"]))]
    notes = import_mmsa(dump(tmp_path / "a.pkl", content), tmp_path / "s.h5").notes
    assert notes == (["ids are read as <video>_<clip>"] if form == "v_{0}_{1}" else [])
    store = FeatureStore(tmp_path / "s.h5")
    assert (store.video_ids[0], store.clip_ids[0]) == (video, clip)


def test_ids_of_a_video_and_two_times_are_those_of_a_part(tmp_path):
    content = mmsa_content()
    for split, part in content.items():
        part["id"] = np.array([[split, str(k), f"{k}.5"] for k in range(len(part["id"]))])
    import_mmsa(dump(tmp_path / "a.pkl", content), tmp_path / "s.h5")
    store = FeatureStore(tmp_path / "s.h5")
    assert (store.video_ids[1], store.starts[1], store.ends[1]) == ("train", 1.0, 1.5)


def test_what_is_odd_in_a_table_is_told(tmp_path):
    content = mmsa_content()
    content["train"]["raw_text"] = [float("nan"), None, "c", "d", "e", "f", "g"]
    content["train"]["regression_labels"][:2] = [np.nan, 4]
    content["valid"]["id"] = [f"vid7_$_${n + 9}" for n in range(4)]
    content["train"]["speaker"] = ["x"] * 7
    imported = import_mmsa(dump(tmp_path / "a.pkl", content), tmp_path / "s.h5")
    assert imported.notes == [
        "not read: 'speaker', of which nothing is known",
        "2 texts are nan or none: they are blank now",
        "1 labels are nan: unknown",
        "1 labels are outside [-3, 3], such as 4 of 'vid7_$_$1'",
        "1 videos have clips in several splits, such as 'vid7_'",
    ]
    assert FeatureStore(tmp_path / "s.h5").texts[:3] == ["", "", "c"]


# ---- To MMSA.

SPECS = {
    "albert": StreamSpec("albert", "text", "own", "utterance", 4),
    "albert_tokens": StreamSpec("albert_tokens", "text", "own", "sequence", 4),
    "clip_text": StreamSpec("clip_text", "text", "clip", "utterance", 3),
    "wav2vec2": StreamSpec("wav2vec2", "audio", "own", "utterance", 5),
    "clip_image": StreamSpec("clip_image", "vision", "clip", "sequence", 6),
}
LENGTHS = {
    "albert": (1, 1, 1, 1),
    "albert_tokens": (2, 3, 1, 2),
    "clip_text": (1, 1, 1, 1),
    "wav2vec2": (1, 0, 1, 1),
    "clip_image": (3, 2, 5, 1),
}


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    rng = np.random.default_rng(0)
    columns = [
        StreamColumn(
            spec,
            np.array(LENGTHS[name]),
            [rng.normal(1, 0.3, (n, spec.dim)).astype(np.float16) for n in LENGTHS[name]],
        )
        for name, spec in SPECS.items()
    ]
    utterances = [
        Utterance("a", "1", "train", 2.4, "a good film"),
        Utterance("a", "2", "train", -0.2, "no"),
        Utterance("b_", "0", "valid", 0.0, ""),
        Utterance("c", "1", "test", math.nan, "not rated"),
    ]
    path = tmp_path / "store.h5"
    write_store(path, dataset="d", profile="p", utterances=utterances, streams=columns)
    return FeatureStore(path)


def test_a_pickle_for_mmsa_has_its_schema(store, tmp_path):
    streams = streams_for_mmsa(store, {})
    assert [stream.spec.name for stream in streams.values()] == [
        "albert_tokens",
        "wav2vec2",
        "clip_image",
    ]
    notes = export_mmsa(store, tmp_path / "a.pkl", streams)
    assert notes == ["1 utterances without a label were left out"]
    content = load_plain(tmp_path / "a.pkl")
    assert list(content) == list(SPLITS)
    train = content["train"]
    assert train["id"].tolist() == ["a$_$1", "a$_$2"]
    assert train["raw_text"].tolist() == ["a good film", "no"]
    assert train["annotations"].tolist() == ["Positive", "Negative"]
    assert train["classification_labels"].tolist() == [2, 0]
    assert train["regression_labels"].tolist() == pytest.approx([2.4, -0.2])
    assert content["valid"]["annotations"].tolist() == ["Neutral"]
    shapes = {name: train[name].shape for name in ("text", "audio", "vision")}
    assert shapes == {"text": (2, 3, 4), "audio": (2, 1, 5), "vision": (2, 5, 6)}
    assert all(train[name].dtype == np.float32 for name in shapes)
    assert train["audio_lengths"] == [1, 1]
    assert train["vision_lengths"] == [3, 2]
    assert np.array_equal(train["vision"][0, :3], store.streams["clip_image"][0])
    assert not train["vision"][0, 3:].any()
    assert not train["audio"][1].any()  # a missing modality is a row of zeros there
    assert "text_bert" not in train
    assert content["test"]["text"].shape == (0, 3, 4)


def test_rows_are_padded_and_cut_as_told(store, tmp_path):
    streams = streams_for_mmsa(store, {"text": "clip_text", "vision": "clip_image"})
    notes = export_mmsa(store, tmp_path / "a.pkl", streams, {"text": 4, "vision": 2})
    assert notes[1:] == ["vision: 2 utterances were cut to 2 rows"]
    train = load_plain(tmp_path / "a.pkl")["train"]
    assert train["text"].shape == (2, 4, 3)
    assert train["vision_lengths"] == [2, 2]
    assert np.array_equal(train["vision"][0], store.streams["clip_image"][0][:2])


def test_token_ids_are_those_of_the_tokenizer_that_is_given(store, tmp_path):
    def tokenizer(texts: list[str], **options: Any) -> dict[str, Any]:
        assert options["max_length"] == 4
        counts = [min(2 + len(text.split()), 4) for text in texts]
        ids = np.array([[101] * n + [0] * (4 - n) for n in counts])
        return {"input_ids": ids, "attention_mask": (ids > 0).astype(int)}

    streams = streams_for_mmsa(store, {})
    export_mmsa(store, tmp_path / "a.pkl", streams, tokenize=bert_tokens(tokenizer, 4))
    tokens = load_plain(tmp_path / "a.pkl")["train"]["text_bert"]
    assert tokens.shape == (2, 3, 4)
    assert tokens[:, 1].sum(axis=1).tolist() == [4, 3]


def test_what_is_exported_is_imported_as_it_was(tmp_path):
    content = mmsa_content()
    import_mmsa(dump(tmp_path / "a.pkl", content), tmp_path / "a.h5")
    store = FeatureStore(tmp_path / "a.h5")
    longest = {"text": 8, "audio": 12, "vision": 10}
    export_mmsa(store, tmp_path / "b.pkl", streams_for_mmsa(store, {}), longest)
    again = load_plain(tmp_path / "b.pkl")
    for split, given in content.items():
        written = again[split]
        assert written.keys() == given.keys() - {"text_bert"}
        for key, value in written.items():
            assert np.array_equal(value, given[key]), key


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"text": "none"},
            "choose a text stream with --text; there is albert, albert_tokens, clip",
        ),
        ({"audio": "albert"}, "choose a audio stream with --audio; there is wav2vec2"),
    ],
)
def test_a_stream_must_be_of_the_modality(store, chosen, message):
    with pytest.raises(ExchangeError, match=message):
        streams_for_mmsa(store, chosen)


def test_the_verb_says_what_became_of_what(store, tmp_path, capsys):
    assert main(["export", str(store.path), str(tmp_path / "a.pkl"), "--to", "mmsa"]) == 0
    said = capsys.readouterr().err
    assert "text = albert_tokens, audio = wav2vec2, vision = clip_image; without text_bert" in said
    line = ["export", str(store.path), str(tmp_path / "b.pkl"), "--to", "mmsa", "--tokenizer"]
    assert main([*line, str(tmp_path / "none")]) == 1
    assert "none: cannot be loaded" in " ".join(capsys.readouterr().err.split())


def test_a_store_is_not_written_over_by_what_is_made_of_it(store, tmp_path, capsys):
    before = store.path.read_bytes()
    other = tmp_path / "other"
    other.symlink_to(store.path)
    for target in (store.path, other):
        for to in ("mmsa", "parquet"):
            assert main(["export", str(store.path), str(target), "--to", to]) == 1
            assert "is what is read" in capsys.readouterr().err
    source = dump(tmp_path / "a.pkl", mmsa_content())
    assert main(["import", "--from", "mmsa", str(source), str(source), "--overwrite"]) == 1
    assert "is what is read" in capsys.readouterr().err
    assert store.path.read_bytes() == before
    assert load_plain(source).keys() == set(SPLITS)


# ---- From csd.


@pytest.fixture
def csd(tmp_path) -> Path:
    """Labels, features ten times a second and words of two videos."""
    labels = {"v-1": [(0.0, 1.0, 1.5), (1.0, 1.0, 0.0), (1.0, 2.0, -2.0)], "w": [(0.5, 1.5, 0.0)]}

    def write(name: str, data: dict[str, tuple[Any, Any]]) -> None:
        with h5py.File(tmp_path / f"{name}.csd", "w") as file:
            for video, (intervals, features) in data.items():
                file[f"{name}/data/{video}/intervals"] = np.array(intervals, np.float32)
                file[f"{name}/data/{video}/features"] = features

    write(
        "CMU_MOSEI_Labels",
        {
            v: ([r[:2] for r in rows], np.array([[r[2], 0.0] for r in rows]))
            for v, rows in labels.items()
        },
    )
    with h5py.File(tmp_path / "CMU_MOSEI_Labels.csd", "a") as file:
        file["CMU_MOSEI_Labels/metadata/dimension names"] = ['["sentiment", "happy"]']
    ticks = np.arange(20) / 10
    sound = np.stack([ticks, ticks**2], axis=1).astype(np.float32)
    sound[3, 0] = -np.inf
    write("COVAREP", {v: (np.stack([ticks, ticks + 0.1], axis=1), sound) for v in ("v-1", "other")})
    said = np.array([[b"sp"], [b"good"], [b"film"], [b"never"]])
    times = [(0.0, 0.2), (0.2, 0.6), (0.6, 0.9), (1.2, 1.6)]
    write("words", {"v-1": (times, said), "w": (times, said)})
    return tmp_path


def test_rows_of_a_sequence_are_those_of_the_interval(csd, capsys):
    (csd / "folds.json").write_text('{"train": ["v-1"], "valid": [], "test": ["w"]}')
    line = f"import --from csd {csd}/CMU_MOSEI_Labels.csd {csd}/s.h5 --audio {csd}/COVAREP.csd"
    assert main([*line.split(), f"--words={csd}/words.csd", f"--folds={csd}/folds.json"]) == 0
    said = capsys.readouterr().err
    assert "1 times: label of an empty interval (a clip that CMU removed) (v-1$_$1)" in said
    assert "audio: 1 values that were not finite are 0 now" in said
    store = FeatureStore(csd / "s.h5")
    assert store.ids == ["v-1$_$0", "v-1$_$2", "w$_$0"]
    assert store.splits == ["train", "train", "test"]
    assert store.texts == ["good film", "never", "film never"]
    assert store.labels.tolist() == [1.5, -2.0, 0.0]
    assert store.starts.tolist() == [0.0, 1.0, 0.5]
    audio = store.streams["audio"]
    assert audio.lengths.tolist() == [10, 10, 0]
    assert audio[1][:, 0] == pytest.approx(np.arange(10, 20) / 10)
    assert audio[0][3].tolist() == pytest.approx([0, 0.09])
    assert audio.spec.encoder == "COVAREP"
    assert verify_store(store.path).faults == []


def test_a_csd_needs_a_modality_and_rows(csd, capsys):
    line = f"import --from csd {csd}/CMU_MOSEI_Labels.csd {csd}/s.h5"
    assert main(line.split()) == 2
    with h5py.File(csd / "COVAREP.csd", "a") as file:
        file.move("COVAREP/data/v-1", "COVAREP/data/else")
    assert main([*line.split(), f"--audio={csd}/COVAREP.csd"]) == 1
    assert "has no row within any of the utterances" in capsys.readouterr().err


def write_sequence(
    path: Path, rows: dict[str, Any], names: list[str] | None = None, root: str = "All Labels"
) -> Path:
    """A csd of three intervals a video, or of one where a video's rows are one."""
    with h5py.File(path, "w") as file:
        for video, features in rows.items():
            times = [[2.0 * k, 2.0 * k + 2] for k in range(len(features))]
            file[f"{root}/data/{video}/intervals"] = times
            file[f"{root}/data/{video}/features"] = np.array(features, np.float32)
        if names:
            file[f"{root}/metadata/dimension names"] = [json.dumps(names)]
    return path


EMOTIONS = ["happy", "sad", "anger", "surprise", "disgust", "fear"]


def labelled(*order: str) -> dict[str, Any]:
    """Rows of columns in this order; sentiment is -1, 2 and 3, every emotion 0."""
    return {
        f"v{n}": [[s if name == "sentiment" else 0.0 for name in order] for s in (-1, 2, 3)]
        for n in range(10)
    }


@pytest.mark.parametrize("order", [["sentiment", *EMOTIONS], [*EMOTIONS, "sentiment"]])
def test_the_label_is_the_column_that_is_called_sentiment(tmp_path, order):
    csd = write_sequence(tmp_path / "CMU_MOSEI_Labels.csd", labelled(*order), order)
    assert [c.utterance.label for c in read_csd(csd).clips[:3]] == [-1, 2, 3]


@pytest.mark.parametrize(
    ("names", "width", "words"),
    [
        (EMOTIONS, 6, "not labels of sentiment: its columns are happy, sad"),
        (["pitch"], 1, "not labels of sentiment: its columns are pitch"),
        (None, 6, "not labels of sentiment: it has 6 columns without names"),
        (None, 74, "not labels of sentiment: it has 74 columns without names"),
    ],
)
def test_a_csd_of_something_else_is_not_taken_for_labels(tmp_path, names, width, words):
    rows = {f"v{n}": np.ones((3, width)) for n in range(10)}
    csd = write_sequence(tmp_path / "x.csd", rows, names, "COVAREP")
    with pytest.raises(ExchangeError, match=words):
        read_csd(csd)


def test_values_beyond_the_scale_are_no_labels_where_nothing_names_them(tmp_path):
    csd = write_sequence(tmp_path / "x.csd", {"v": np.full((3, 7), 80.0)})
    with pytest.raises(ClipmsaError, match="not labels of sentiment: it has no names"):
        read_csd(csd)


def test_parts_of_a_video_are_of_one_video(tmp_path):
    """As CMU's SDK writes what it has aligned: a key for each part, also of the features."""
    order = ["sentiment", *EMOTIONS]
    whole = labelled(*order)
    labels = write_sequence(tmp_path / "CMU_MOSEI_Labels.csd", whole, order)
    parts = tmp_path / "aligned.csd"
    with h5py.File(parts, "w") as file:
        for video, rows in whole.items():
            for k in (2, 0):
                file[f"All Labels/data/{video}[{k}]/intervals"] = [[2.0 * k, 2.0 * k + 2]]
                file[f"All Labels/data/{video}[{k}]/features"] = rows[k : k + 1]
        file["All Labels/metadata/dimension names"] = [json.dumps(order)]
    clips = [clip.utterance for clip in read_csd(parts).clips]
    assert [(u.video_id, u.clip_id, u.label) for u in clips[:2]] == [
        ("v0", "0", -1),
        ("v0", "2", 3),
    ]
    line = f"import --from csd {labels} {tmp_path}/s.h5 --audio {parts}"
    assert main(line.split()) == 0
    store = FeatureStore(tmp_path / "s.h5")
    homes = {(video, split) for video, split in zip(store.video_ids, store.splits, strict=True)}
    assert len(homes) == 10
    assert store.streams["audio"].lengths[:3].tolist() == [1, 0, 1]


# ---- pandas, scikit-learn.


def test_pooled_features_are_means_and_nan_where_a_modality_is_missing(store):
    means = pooled(store.streams["clip_image"])
    assert means.shape == (4, 6)
    assert means[2] == pytest.approx(
        store.streams["clip_image"][2].astype(float).mean(axis=0), 1e-3
    )
    assert np.isnan(pooled(store.streams["wav2vec2"])).all(axis=1).tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_a_parquet_file_holds_the_table_and_a_vector_a_stream(store, tmp_path):
    assert main(["export", str(store.path), str(tmp_path / "a.parquet"), "--to", "parquet"]) == 0
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert list(frame.columns) == [*store.utterances.columns, *store.streams]
    assert frame["id"].tolist() == store.ids
    assert frame["label"].isna().tolist() == [False, False, False, True]
    assert frame["wav2vec2"].isna().tolist() == [False, True, False, False]
    assert np.array_equal(
        np.stack(frame["clip_image"].tolist()), pooled(store.streams["clip_image"])
    )


@pytest.mark.slow
def test_the_example_trains_a_ridge_on_a_store(tmp_path, plant):
    oracle = plant(tmp_path / "s.h5", (300, 10, 100))
    shown = subprocess.run(
        [sys.executable, ROOT / "examples" / "ridge.py", tmp_path / "s.h5"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    corr = float(dict(line.split() for line in shown.splitlines())["corr"])
    assert corr > 0.9 * oracle
