"""The encoders that made a model's features, built again from what is recorded, or refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from clipmsa.cache import FeatureStore, Stream, StreamSpec
from clipmsa.cache.errors import FingerprintError, WeightsError
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.datasets.read import Manifest, read_dataset
from clipmsa.extract.engine.pipeline import extract
from clipmsa.extract.engine.plan import Settings
from clipmsa.extract.engine.rebuild import ClipEncoders
from clipmsa.extract.profiles.profile import load_profile

PROFILE = """
[streams.speech]
encoder = "transformers-speech"
branch = "own"
source = { hub = "org/tiny-speech" }
"""


def spec_of(file: Path, **changes: Any) -> StreamSpec:
    """A stream as `extract` describes one that it made with the checkpoint at `file`."""
    config = {
        "encoder": "esresnext",
        "options": {},
        "weights": {"sha256": "ab12"},
        "precision": "fp32",
        "preprocessing": 1,
    }
    weights = f"path:{file}"
    spec = StreamSpec("esresnext", "audio", "clip", "utterance", 1024, weights=weights)
    return replace(spec, config=config | changes)


def test_other_weights_than_in_training_are_refused_with_both_digests(tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(FingerprintError, match=rf"weights\.sha256: ab12 -> {digest}"):
        ClipEncoders([spec_of(file)], tmp_path)


def test_other_preprocessing_than_in_training_is_refused(tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(b"weights")
    weights = {"sha256": hashlib.sha256(b"weights").hexdigest()}
    with pytest.raises(FingerprintError, match="preprocessing: 0 -> 1"):
        ClipEncoders([spec_of(file, weights=weights, preprocessing=0)], tmp_path)


def test_weights_that_have_moved_are_named_and_found_in_a_folder_that_is_given(tmp_path):
    spec = spec_of(tmp_path / "gone.pt")
    with pytest.raises(WeightsError, match=r"; name a folder that has 'gone\.pt' with `weights`"):
        ClipEncoders([spec])
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "gone.pt").write_bytes(b"weights")
    with pytest.raises(FingerprintError, match=r"weights\.sha256: ab12 -> "):
        ClipEncoders([spec], tmp_path / "moved")


def test_features_that_another_program_wrote_cannot_be_made_again():
    with pytest.raises(FingerprintError, match="does not say what made it"):
        ClipEncoders([StreamSpec("words", "text", "own", "utterance", 4)])


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    """Two clips of noise, the second a part of a longer file."""
    generator = np.random.default_rng(0)
    for name, seconds in (("a", 1), ("b", 3)):
        sound = 0.1 * generator.standard_normal(16000 * seconds)
        write_clip(tmp_path / f"{name}.mp4", [], 10, sound.astype(np.float32), 16000)
    rows = ["path,text,label,split,start,end", "a.mp4,,0,train,,", "b.mp4,,0,train,0.5,2"]
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    return read_dataset(str(tmp_path / "clips.csv"))


@pytest.fixture
def weights(tmp_path) -> Path:
    """A folder of checkpoints, with a small one in the hub's format."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    folder = tmp_path / "weights" / "tiny-speech"
    Wav2Vec2Model(config).save_pretrained(folder)
    preprocessor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder.parent


@pytest.fixture
def stored(tmp_path, manifest, weights) -> Stream:
    """The clips' features by that checkpoint."""
    (tmp_path / "own.toml").write_text(PROFILE)
    profile = load_profile(str(tmp_path / "own.toml"))
    extract(manifest, tmp_path / "d.h5", Settings(profile, weights))
    return FeatureStore(tmp_path / "d.h5").streams["speech"]


@pytest.mark.slow
def test_a_checkpoint_is_found_again_by_what_the_store_says_and_gives_the_stored_features(
    stored, manifest, weights
):
    assert stored.spec.weights == "hub:org/tiny-speech"
    (batch,) = ClipEncoders([stored.spec], weights).encode(manifest.clips)
    for row, encoded in enumerate(batch):
        np.testing.assert_allclose(encoded.rows["speech"], stored[row], rtol=1e-5)
    assert [encoded.duration for encoded in batch] == [pytest.approx(1, abs=0.1), 1.5]
    preprocessor = weights / "tiny-speech" / "preprocessor_config.json"
    preprocessor.write_text(preprocessor.read_text() + " ")
    with pytest.raises(FingerprintError, match=r"'speech' cannot be made .*weights\.sha256: "):
        ClipEncoders([stored.spec], weights)


@pytest.mark.slow
def test_a_clip_that_fails_leaves_its_place_to_an_error_and_the_others_alone(
    stored, manifest, weights, tmp_path, monkeypatch
):
    good, other = manifest.clips
    (tmp_path / "broken.mp4").write_text("no sound")
    broken, strange = (replace(good, path=tmp_path / f"{x}.mp4") for x in ("broken", "b"))
    encoders = ClipEncoders([stored.spec], weights, batch_clips=4)
    encode = encoders._encoders["speech"].encode

    def fails_on_the_long_one(items):
        if any(len(item) > 32000 for item in items):
            raise RuntimeError("too strange")
        return encode(items)

    monkeypatch.setattr(encoders._encoders["speech"], "encode", fails_on_the_long_one)
    (batch,) = encoders.encode([good, broken, strange, other])
    errors = [encoded.error for encoded in batch]
    assert errors[0] == errors[3] == ""
    assert errors[1].startswith(f"{tmp_path / 'broken.mp4'}: cannot be decoded")
    assert errors[2] == "stream 'speech': RuntimeError: too strange"
    assert [len(encoded.rows) for encoded in batch] == [1, 0, 0, 1]


@pytest.mark.slow
def test_clips_are_asked_for_a_batch_ahead_and_no_further(stored, manifest, weights):
    asked = 0

    def clips():
        nonlocal asked
        for _ in range(50):
            asked += 1
            yield manifest.clips[0]

    batches = ClipEncoders([stored.spec], weights, batch_clips=3, workers=2).encode(clips())
    for number, batch in enumerate(batches, 1):
        assert len(batch) <= 3
        assert asked <= 3 * number + 2
    assert asked == 50
