"""docs/extending.md is true: its encoder and its layout, from an empty folder, through `clipmsa`.

The network of that page is tested with the networks.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipmsa.cache import FeatureStore
from clipmsa.extract.datasets.demo import write_clip

DOCS = Path(__file__).parents[2] / "docs" / "extending.md"
SPLITS = ("train", "train", "valid", "test")
REBUILT = """
import sys
import numpy as np
from pathlib import Path
from clipmsa.cache import FeatureStore, Utterance, plugins
from clipmsa.extract.datasets.clips import Clip
from clipmsa.extract.engine.rebuild import ClipEncoders

plugins.trust(sys.argv[1:])
store = FeatureStore("clips.h5")
clip = Clip(Utterance("v", "0", "", 0.0, ""), Path("talks/0.mp4"))
(batch,) = ClipEncoders([store.streams["prosody"].spec]).encode([clip])
np.testing.assert_allclose(batch[0].rows["prosody"], store.streams["prosody"][0], atol=1e-3)
"""


def block(language: str, marker: str) -> str:
    """The code of the page that holds the words."""
    found = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    (code,) = [code for code in found if marker in code]
    return code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and four clips in the layout's folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "my_encoders.py").write_text(block("python", "class Prosody"))
    (folder / "my_layouts.py").write_text(block("python", "class Talks"))
    (folder / "my.toml").write_text(block("toml", "[streams.prosody]"))
    (folder / "talks").mkdir()
    rows = {}
    for number, split in enumerate(SPLITS):
        time = np.arange(16000) / 16000
        sound = 0.2 * np.sin(2 * np.pi * (110 + 30 * number) * time)
        write_clip(folder / "talks" / f"{number}.mp4", [], 10, sound.astype(np.float32), 16000)
        rows[f"{number}.mp4"] = {"split": split, "label": number - 1.5, "text": "well"}
    (folder / "talks" / "talks.json").write_text(json.dumps(rows))
    return folder


def ran(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, which has trusted nothing yet."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def clipmsa(folder: Path, *words: str) -> str:
    done = ran(folder, "-m", "clipmsa.cli.main", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def store(folder: Path) -> FeatureStore:
    line = "extract --dataset talks --layout my_layouts:Talks --profile my.toml --out clips.h5"
    told = clipmsa(folder, *line.split(), "--device", "cpu")
    assert "untrained" not in told
    return FeatureStore(folder / "clips.h5")


@pytest.mark.parametrize("name", ["class Prosody", "class Talks"])
def test_each_takes_no_more_than_25_lines(name):
    assert len(block("python", name).splitlines()) <= 25


@pytest.mark.slow
def test_the_layout_s_clips_are_encoded_by_the_encoder(store: FeatureStore):
    assert store.splits == list(SPLITS)
    stream = store.streams["prosody"]
    assert (stream.spec.modality, stream.spec.level, stream.spec.dim) == ("audio", "sequence", 2)
    assert (stream.spec.weights, stream.spec.untrained) == ("none", False)
    assert stream.spec.config["class"] == "my_encoders:Prosody"
    pitch = [np.exp(np.median(stream[row][:, 0].astype(float))) for row in range(4)]
    np.testing.assert_allclose(pitch, [110, 140, 170, 200], rtol=0.06)


@pytest.mark.slow
def test_what_follows_needs_none_of_the_code_but_to_encode_again(folder: Path, store: FeatureStore):
    assert "my_encoders:Prosody" in clipmsa(folder, "inspect", "clips.h5").replace("\n", "")
    clipmsa(folder, "verify", "clips.h5")
    told = clipmsa(folder, "inspect", "talks", "--layout", "my_layouts:Talks")
    assert "our paper" in told
    clipmsa(folder, "verify", "talks", "--layout", "my_layouts:Talks")


@pytest.mark.slow
def test_features_are_made_again_from_the_store_only_where_the_module_is_trusted(
    folder: Path, store: FeatureStore
):
    refused = ran(folder, "-c", REBUILT)
    assert refused.returncode
    assert "trust='my_encoders'" in refused.stderr
    done = ran(folder, "-c", REBUILT, "my_encoders")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_actors_of_a_cluster_find_the_class_too(folder: Path, store: FeatureStore):
    pytest.importorskip("ray")
    line = "extract --dataset talks --layout my_layouts:Talks --profile my.toml --out ray.h5"
    clipmsa(folder, *line.split(), "--engine", "ray", "--ray-workers", "1", "--ray-cpus", "1")
    values = FeatureStore(folder / "ray.h5").streams["prosody"].values
    np.testing.assert_allclose(values, store.streams["prosody"].values, atol=1e-3)
