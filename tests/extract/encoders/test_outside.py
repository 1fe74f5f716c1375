"""Encoders from outside clipmsa: found where the user says, checked, and recorded as they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipmsa.cache import FeatureStore, Utterance, plugins
from clipmsa.cache.errors import ClipmsaError, FingerprintError, PluginError, ProfileError
from clipmsa.extract.datasets.clips import Clip, Manifest
from clipmsa.extract.encoders import registry
from clipmsa.extract.engine.pipeline import extract
from clipmsa.extract.engine.plan import Settings, StreamPlan
from clipmsa.extract.engine.rebuild import ClipEncoders
from clipmsa.extract.profiles.profile import load_profile
from clipmsa.extract.weights.find import Checkpoint

MODULE = "encoders_of_test"
LETTERS = """
import torch
from clipmsa.extract.encoders import Encoder, Setup


class Letters(Encoder):
    modality, consumes, level, version = "text", "text", "utterance", 1
    weightless = True

    def __init__(self, setup: Setup, *, times: float = 1.0) -> None:
        super().__init__(setup, torch.nn.Identity())
        self.dim, self.times = 2, times

    def _encode(self, items):
        return [torch.tensor([[len(text) * self.times, 1.0]]) for text in items]
"""
PROFILE = f"""
[streams.letters]
encoder = "{MODULE}:Letters"
branch = "own"
"""
# As the stores have them that clipmsa wrote before encoders had versions of their own.
FINGERPRINTS = {
    "albert": "870652c38e600fb4",
    "clip_text": "bc658a8e180d9f1e",
    "wav2vec2": "166c074abfdb7b30",
    "esresnext": "53ddc5804e890241",
    "clip_image": "062a6ea0043ef4ef",
    "face_vgg": "4aa361923f505fa5",
}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path) -> Iterator[Path]:
    """The current folder, which holds an encoder and a profile; nothing of it is trusted yet."""
    monkeypatch.setattr(plugins, "_trusted", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files are changed within a second
    write(LETTERS)
    Path("own.toml").write_text(PROFILE)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def write(code: str) -> None:
    Path(f"{MODULE}.py").write_text(code)
    sys.modules.pop(MODULE, None)


def clips(*texts: str) -> Manifest:
    found = [
        Clip(Utterance("v", str(i), "train", 1.0, text), Path("nowhere"))
        for i, text in enumerate(texts)
    ]
    return Manifest("d", found)


def extracted(weights="pretrained") -> FeatureStore:
    extract(clips("a", "bcd"), Path("s.h5"), Settings(load_profile("own.toml"), weights))
    return FeatureStore(Path("s.h5"))


def test_a_class_that_a_profile_of_the_user_s_names_is_found_in_the_current_folder_and_encodes():
    store = extracted()
    assert store.streams["letters"].values.tolist() == [[1, 1], [3, 1]]


def test_its_class_and_version_are_recorded_and_another_version_is_another_way():
    config = extracted().streams["letters"].spec.config
    assert config["encoder"] == config["class"] == f"{MODULE}:Letters"
    assert config["preprocessing"] == 1
    write(LETTERS.replace('"utterance", 1', '"utterance", 2'))
    with pytest.raises(FingerprintError, match="preprocessing: 1 -> 2"):
        extracted()


@pytest.mark.parametrize("weights", ["pretrained", "random", Path()])
def test_an_encoder_without_weights_needs_no_checkpoint_and_is_not_untrained(weights):
    spec = extracted(weights).streams["letters"].spec
    assert (spec.weights, spec.weights_sha256, spec.untrained) == ("none", "", False)


def test_weights_that_an_encoder_brings_along_are_recorded_by_their_digest():
    write(LETTERS.replace("torch.nn.Identity()", "torch.nn.Linear(2, 2)"))
    spec = extracted().streams["letters"].spec
    assert (spec.weights, len(spec.weights_sha256)) == ("none", 64)


def test_what_a_store_names_is_not_imported_unless_it_is_trusted(monkeypatch):
    spec = extracted().streams["letters"].spec
    sys.modules.pop(MODULE)
    monkeypatch.setattr(plugins, "_trusted", set())
    with pytest.raises(PluginError, match=rf"`trust='{MODULE}'`"):
        ClipEncoders([spec])
    assert MODULE not in sys.modules
    plugins.trust([MODULE])
    (batch,) = ClipEncoders([spec]).encode(clips("abcd").clips)
    assert batch[0].rows["letters"].tolist() == [[4, 1]]
    write(LETTERS.replace('"utterance", 1', '"utterance", 2'))
    with pytest.raises(FingerprintError, match="preprocessing: 1 -> 2"):
        ClipEncoders([spec])


def test_a_name_that_leads_nowhere_is_told_with_the_profile_and_its_table():
    Path("bad.toml").write_text(PROFILE.replace("Letters", "Nothing"))
    with pytest.raises(ProfileError, match=r"bad\.toml: \[streams\.letters\].*has no 'Nothing'"):
        load_profile("bad.toml")
    write("import no_such_library")
    with pytest.raises(ProfileError, match=r"own\.toml: \[streams\.letters\].*no_such_library"):
        load_profile("own.toml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("class Letters(Encoder)", "class Letters", "must be a class derived from"),
        (
            'modality, consumes, level, version = "text",',
            "consumes, level, version =",
            "no modality",
        ),
        ('"text", "text"', '"text", "words"', "no consumes"),
    ],
)
def test_a_class_that_is_no_encoder_is_refused_with_what_it_lacks(old, new, words):
    write(LETTERS.replace(old, new))
    with pytest.raises(ProfileError, match=words):
        load_profile("own.toml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("self.dim, self.times = 2, times", "", "has set no dim"),
        ("super().__init__(setup, torch.nn.Identity())", "", "has set no module"),
        ('"text", "text", "utterance"', '"text", "text", "word"', "has set no level"),
        ('"text", "text"', '"audio", "waveform"', "has set no sample_rate"),
        ("self.dim,", "self.nothing.dim,", rf"fails: AttributeError: .*{MODULE}\.py, line 12"),
    ],
)
def test_a_constructor_that_fails_or_leaves_something_out_is_told_in_a_line(old, new, words):
    write(LETTERS.replace(old, new))
    with pytest.raises(PluginError, match=words):
        extracted()


def test_an_option_that_it_does_not_take_is_named():
    Path("own.toml").write_text(f"{PROFILE}sizes = 3\n")
    with pytest.raises(PluginError, match=r"'letters'.*unexpected keyword argument 'sizes'"):
        extracted()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("for text in items]", "for text in items[1:]]", "gave features of 0 items for 1"),
        ("[[len(text)", "[[1.0, len(text)", r"shape \(1, 3\), must be \(1, 2\)"),
        ("[[len(text) * self.times, 1.0]]", "[[1.0, 1.0]] * 2", r"\(2, 2\), must be \(1, 2\)"),
    ],
)
def test_features_of_another_shape_than_it_says_are_not_stored(old, new, words):
    write(LETTERS.replace(old, new))
    with pytest.raises(ClipmsaError, match=f"clips all failed.*letters: .*{words}"):
        extracted()


def test_an_encoder_of_the_user_s_may_be_the_same_network_read_in_another_way(folder):
    write(
        "from clipmsa.extract.encoders.transformers_text import TransformersText\n"
        "class Letters(TransformersText):\n    version = 3\n"
    )
    profile = load_profile("own.toml").with_sequences()
    assert [recipe.name for recipe in profile.streams] == ["letters", "letters_tokens"]


def test_encoders_that_ship_keep_the_fingerprints_of_the_stores_that_there_are():
    settings = Settings(load_profile("tiny"))
    checkpoint = Checkpoint(Path("x"), "path:x", "ab12")
    found = {
        recipe.name: StreamPlan(recipe, checkpoint, settings).fingerprint
        for recipe in settings.profile.streams
    }
    assert found == FINGERPRINTS


def test_every_shipped_encoder_is_one():
    for name in registry.ENCODERS.shipped:
        assert registry.encoder_class(name).version == 1


@pytest.mark.slow
def test_features_without_faces_are_made_without_a_library_of_faces():
    code = (
        "import sys\n"
        "from clipmsa.extract.engine.pipeline import extract\n"
        "from clipmsa.extract.engine.rebuild import ClipEncoders\n"
        "from clipmsa.extract.profiles.profile import load_profile\n"
        "load_profile('own.toml')\n"
        "assert 'facenet_pytorch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
