"""Profiles: what a TOML file asks for is what is planned, and its mistakes are named in a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from clipmsa.cache.errors import ProfileError
from clipmsa.extract.engine.plan import Settings, StreamPlan, plan_streams
from clipmsa.extract.engine.worker import Worker
from clipmsa.extract.profiles.profile import Media, check_precision, load_profile
from clipmsa.extract.weights.find import find_checkpoint

OWN = """
weights = "random"

[media]
fps = 2.5
max_frames = 7

[streams.roberta]
encoder = "transformers-text"
branch = "own"
pooling = "mean"
source = { hub = "FacebookAI/roberta-base" }
architecture = { model_type = "roberta", vocab_size = 50, hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 2, intermediate_size = 16 }
"""  # noqa: E501


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    return path


# ---- What there is.


def test_the_paper_s_six_streams_are_shipped_with_a_source_each() -> None:
    profile = load_profile("paper")
    assert {recipe.name: recipe.branch for recipe in profile.streams} == {
        "albert": "own",
        "clip_text": "clip",
        "wav2vec2": "own",
        "esresnext": "clip",
        "clip_image": "clip",
        "face_vgg": "own",
    }
    assert all(recipe.source for recipe in profile.streams)
    assert (profile.weights, profile.media) == ("pretrained", Media(fps=5, max_frames=64))


def test_tiny_has_the_streams_encoders_and_branches_of_paper_and_asks_for_random_weights() -> None:
    tiny, paper = load_profile("tiny"), load_profile("paper")
    assert [(r.name, r.encoder, r.branch) for r in tiny.streams] == [
        (r.name, r.encoder, r.branch) for r in paper.streams
    ]
    assert tiny.weights == "random"
    with pytest.raises(ProfileError, match="made for `weights='random'`"):
        find_checkpoint("albert", tiny.streams[0].source, "pretrained")


def test_sequences_are_further_streams_of_the_encoders_that_have_states() -> None:
    paper = load_profile("paper")
    longer = paper.with_sequences(rate=10)
    assert longer.streams[:6] == paper.streams
    tokens, frames = longer.streams[6:]
    assert (tokens.name, tokens.states_of) == ("albert_tokens", "albert")
    assert (frames.name, frames.states_of) == ("wav2vec2_frames", "wav2vec2")
    assert tokens.options == {**paper.streams[0].options, "pooling": "none"}
    assert frames.options == {**paper.streams[2].options, "pooling": "none", "rate": 10}
    assert (tokens.source, tokens.branch) == (paper.streams[0].source, "own")
    names = [recipe.name for recipe in longer.only(("albert", "clip_text")).streams]
    assert names == ["albert", "clip_text", "albert_tokens"]


@pytest.mark.slow
def test_states_at_random_are_those_of_their_vectors_encoder() -> None:
    settings = Settings(load_profile("tiny").with_sequences(), weights="random")
    plans = plan_streams(settings)
    vectors, tokens = (plans[name].build() for name in ("albert", "albert_tokens"))
    text = ["a film", "another one, and longer"]
    for vector, rows in zip(vectors.encode(text), tokens.encode(text), strict=True):
        assert rows[:1] == pytest.approx(vector, abs=1e-6)
    spec = plans["albert_tokens"].spec(tokens)
    assert (spec.level, spec.states_of, spec.dim) == ("sequence", "albert", 64)
    assert spec.fingerprint != plans["albert"].fingerprint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("albert", ["a film", "another one, and longer", "a film"]),
        ("wav2vec2", [np.sin(np.arange(length, dtype=np.float32) / 9) for length in (4000, 9000)]),
    ],
)
def test_the_network_of_vectors_and_states_runs_once_a_batch(name, items) -> None:
    settings = Settings(load_profile("tiny").with_sequences(rate=8), weights="random")
    plans = {n: plan for n, plan in plan_streams(settings).items() if n.startswith(name)}
    one, other = (plan.build() for plan in plans.values())
    apart = [one.encode(items), other.encode(items)]
    vectors, states = Worker(plans, settings).encoders.values()
    assert states.module is vectors.module
    runs: list[int] = []
    vectors.module.register_forward_hook(lambda *_: runs.append(1))
    together = [vectors.encode(items), states.encode(items)]
    batches = 1 if name == "albert" else len(items)  # speech goes clip by clip
    assert len(runs) == batches
    for alone, shared in zip(apart, together, strict=True):
        for a, b in zip(alone, shared, strict=True):
            np.testing.assert_array_equal(a, b)
    less = states.encode(items[1:])  # another batch, of which nothing is at hand
    assert len(runs) > batches
    np.testing.assert_allclose(less[0], together[1][1], rtol=1e-5, atol=1e-6)


def test_a_toml_file_of_the_user_s_is_a_profile(own: Path) -> None:
    profile = load_profile(str(own))
    assert (profile.name, profile.weights) == ("mine", "random")
    assert profile.media == Media(fps=2.5, max_frames=7)
    (recipe,) = profile.streams
    assert (recipe.name, recipe.encoder, recipe.branch) == ("roberta", "transformers-text", "own")
    assert recipe.source == {"hub": "FacebookAI/roberta-base"}
    assert recipe.options.keys() == {"pooling", "architecture"}


@pytest.mark.slow
def test_the_encoder_of_a_user_s_profile_encodes(own: Path) -> None:
    plan = plan_streams(Settings(load_profile(str(own)), weights="random"))["roberta"]
    encoder = plan.build()
    assert encoder.encode(["a film", "another one"])[1].shape == (1, 16)
    spec = plan.spec(encoder)
    assert (spec.modality, spec.branch, spec.level, spec.dim) == ("text", "own", "utterance", 16)
    assert spec.untrained


def test_settings_left_out_have_the_paper_s_defaults(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text('[streams.sound]\nencoder = "esresnext"\nbranch = "clip"\n')
    profile = load_profile(str(path))
    assert (profile.weights, profile.media) == ("pretrained", Media(fps=5, max_frames=64))


def test_some_of_the_streams_keep_the_profile_s_order() -> None:
    chosen = load_profile("paper").only(("face_vgg", "albert"))
    assert [recipe.name for recipe in chosen.streams] == ["albert", "face_vgg"]


def test_an_option_or_the_clock_changes_the_fingerprint(own: Path) -> None:
    def fingerprint(profile: Any, **options: Any) -> str:
        recipe = profile.streams[0]
        recipe = replace(recipe, options={**recipe.options, **options})
        settings = Settings(profile, weights="random")
        checkpoint = find_checkpoint(recipe.name, recipe.source, "random")
        return StreamPlan(recipe, checkpoint, settings).fingerprint

    text = load_profile(str(own))
    assert fingerprint(text) == fingerprint(load_profile(str(own)))
    assert fingerprint(text) != fingerprint(text, pooling="cls")
    faster = replace(text, media=Media(fps=9))
    assert fingerprint(faster) == fingerprint(text)  # text has no frames
    frames = load_profile("tiny").only(("clip_image",))
    for media in (replace(frames.media, fps=9.0), replace(frames.media, max_frames=9)):
        assert fingerprint(replace(frames, media=media)) != fingerprint(frames)


# ---- What there is not.


def refused(call: Any, *words: str) -> None:
    """The call fails as a user's mistake does: one line that holds the words."""
    with pytest.raises(ProfileError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_an_unknown_profile_is_refused_with_those_there_are(tmp_path: Path) -> None:
    refused(lambda: load_profile("papre"), "'papre'", "paper, tiny", "TOML file")
    absent = str(tmp_path / "absent.toml")
    refused(lambda: load_profile(absent), absent)


def test_an_unknown_stream_is_refused_with_those_there_are() -> None:
    refused(lambda: load_profile("tiny").only(("albert", "faces")), "'faces'", "face_vgg", "tiny")


def test_an_unknown_precision_is_refused() -> None:
    assert check_precision("bf16") == "bf16"
    refused(lambda: check_precision("fp8"), "'fp8'", "fp32, bf16, fp16")


STREAM = '[streams.x]\nencoder = "esresnext"\nbranch = "own"\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("weights = ", ["not a TOML file"]),
        ("", ["no [streams.NAME] table"]),
        (f"weigths = 'random'\n{STREAM}", ["'weigths'", "weights, media, streams"]),
        (f"weights = 3\n{STREAM}", ["weights must be a text"]),
        (f"media = 5\n{STREAM}", ["media must be a table"]),
        (f"[media]\nfsp = 5\n{STREAM}", ["fps and max_frames"]),
        (f"[media]\nfps = 'fast'\n{STREAM}", ["fps is fast"]),
        (f"[media]\nfps = 0\n{STREAM}", ["fps is 0"]),
        (f"[media]\nfps = nan\n{STREAM}", ["fps is nan"]),
        (f"[media]\nfps = inf\n{STREAM}", ["fps is inf"]),
        (f"[media]\nmax_frames = 0\n{STREAM}", ["max_frames is 0"]),
        (f"[media]\nmax_frames = 2.5\n{STREAM}", ["max_frames is 2.5"]),
        ("streams = 5", ["streams must be a table"]),
        ("[streams]\nx = 5", ["'x'", "[streams.NAME]"]),
        ("[streams.'a/b']\nencoder = 'esresnext'\nbranch = 'own'", ["'a/b'", "slash"]),
        ("[streams.x]\nbranch = 'own'", ["[streams.x]", "'encoder'"]),
        ("[streams.x]\nencoder = 'esresnext'", ["[streams.x]", "'branch'"]),
        ("[streams.x]\nencoder = 'esresnet'\nbranch = 'own'", ["'esresnet'", "esresnext"]),
        ("[streams.x]\nencoder = ['a']\nbranch = 'own'", ["no encoder"]),
        ("[streams.x]\nencoder = 'esresnext'\nbranch = 'audio'", ["'audio'", "own or clip"]),
        (f"{STREAM}source = 'albert/albert-base-v2'", ["[streams.x]", "source"]),
        (f"{STREAM}source = {{ hub = 'a/b', flie = 'c' }}", ["[streams.x]", "flie"]),
        (f"{STREAM}source = {{ file = 'c' }}", ["[streams.x]", "hub"]),
        (f"{STREAM}source = {{ url = 'https://a/b', file = 'c' }}", ["[streams.x]", "url"]),
    ],
)
def test_a_mistake_in_a_profile_is_named(tmp_path: Path, content: str, words: list[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    refused(lambda: load_profile(str(path)), *words)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    refused(lambda: load_profile(str(path)), str(path), "not UTF-16; save it")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stream", "options", "words"),
    [
        ("albert", {"poolin": "cls"}, ["poolin"]),
        ("albert", {"pooling": "max"}, ["'max'", "cls, mean or none"]),
        ("albert", {"max_tokens": 1}, ["max_tokens is 1"]),
        ("albert", {"max_tokens": "many"}, ["options"]),
        ("albert", {"architecture": {}}, ["model_type"]),
        ("albert", {"architecture": "albert"}, ["model_type"]),
        ("albert", {"architecture": {"model_type": "alberta"}}, ["'alberta'"]),
        ("albert", {"architecture": {"model_type": "albert", "hidden_sise": 8}}, ["hidden_sise"]),
        ("albert", {"architecture": {"model_type": "albert", "hidden_size": "8"}}, ["hidden_size"]),
        ("wav2vec2", {"pooling": "cls"}, ["'cls'", "mean or none"]),
        ("wav2vec2", {"rate": 10}, ["rate is 10", "pooling none"]),
        ("wav2vec2", {"rate": 0, "pooling": "none"}, ["rate is 0"]),
        ("wav2vec2", {"architecture": {"model_type": "wav2vec2", "conv_dim": [3]}}, ["conv"]),
        (
            "wav2vec2",
            {"architecture": {"model_type": "bert", "hidden_size": 12, "num_hidden_layers": 1}},
            ["BertModel", "waveforms"],
        ),
        ("clip_text", {"architecture": "RN49"}, ["'RN49'"]),
        ("clip_text", {"architecture": {"embed_dim": 4}}, ["vision_cfg"]),
        ("clip_image", {"architecture": {"embed_dim": 4, "depth": 1}}, ["depth"]),
        ("esresnext", {"architecture": {"layers": [1, 1]}}, ["4 stages"]),
        ("esresnext", {"architecture": {"depth": 1}}, ["depth"]),
        ("esresnext", {"fps": 5}, ["fps"]),
        ("face_vgg", {"architecture": {"shrnk": 2}}, ["image_size and shrink"]),
        ("face_vgg", {"architecture": {"shrink": 0}}, ["shrink 1 to 64"]),
        ("face_vgg", {"architecture": {"image_size": 8}}, ["at least 32"]),
        ("face_vgg", {"min_face": 0}, ["min_face >= 1"]),
        ("face_vgg", {"detect_side": 30, "min_face": 40}, ["detect_side >= min_face"]),
        ("face_vgg", {"margin": -0.1}, ["margin >= 0"]),
        ("face_vgg", {"margin": "wide"}, ["options"]),
    ],
)
def test_an_option_that_an_encoder_does_not_have_is_named_with_the_stream(
    stream: str, options: dict[str, Any], words: list[str]
) -> None:
    profile = load_profile("tiny").only((stream,))
    (recipe,) = profile.streams
    recipe = replace(recipe, options={**recipe.options, **options})
    settings = Settings(replace(profile, streams=(recipe,)), weights="random")
    refused(plan_streams(settings)[stream].build, f"'{stream}'", *words)


# ---- Whatever a file says.

VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(),
        st.text(max_size=8),
        st.dates(),
        st.sampled_from(["pretrained", "own", "clip", "transformers-text", "~no-such-user", "a/b"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(["encoder", "branch", "source", "pooling", "states_of", "architecture"])
STREAMS_TOLD = st.fixed_dictionaries(
    {"encoder": st.just("transformers-text"), "branch": st.just("own")},
    optional={
        "source": st.dictionaries(
            st.sampled_from(["hub", "url", "path", "file", "sha256", "megabytes"]),
            st.one_of(st.text(max_size=8), st.integers(), st.just("~no-such-user/x")),
            max_size=3,
        )
    },
) | st.dictionaries(KEYS, VALUES, max_size=4)
FILE = st.fixed_dictionaries(
    {},
    optional={
        "weights": st.one_of(st.text(max_size=8), VALUES),
        "media": st.dictionaries(st.sampled_from(["fps", "max_frames", "x"]), VALUES, max_size=2),
        "streams": st.dictionaries(st.text(max_size=6), STREAMS_TOLD | VALUES, max_size=2),
        "more": VALUES,
    },
)


def planned_or_refused(path: Path) -> None:
    try:
        profile = load_profile(str(path))
    except ProfileError:
        return
    for plan in plan_streams(Settings(profile, "random")).values():
        assert len(plan.fingerprint) == 16


@given(content=FILE)
def test_whatever_a_profile_asks_for_is_planned_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.toml"
    path.write_bytes(tomli_w.dumps(content).encode(errors="surrogatepass"))
    planned_or_refused(path)


@given(where=st.integers(0, len(OWN)), new=st.binary(max_size=6), cut=st.integers(0, 6))
def test_a_profile_that_was_changed_anywhere_is_planned_or_refused(
    tmp_path_factory: pytest.TempPathFactory, where: int, new: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.toml"
    path.write_bytes(OWN.encode()[:where] + new + OWN.encode()[where + cut :])
    planned_or_refused(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"x = {'[' * 5000}{']' * 5000}", "not a TOML file"),
        (f"x = 1{'0' * 5000}", "not a TOML file"),
        (OWN.replace("mean", "\\u0000" + "x" * 70_000), r"\[streams.roberta\] is of 7\d{4}"),
        (OWN.replace('"mean"', "1979-05-27"), r"\[streams.roberta\] holds what no encoder takes"),
        (OWN.replace("streams.roberta", 'streams."."'), "'.' is no .* table"),
        (OWN.replace("streams.roberta", 'streams.""'), "'' is no .* table"),
        (OWN.replace("fps = 2.5", "fps = true"), "fps is True, must be above 0"),
        (OWN.replace("max_frames = 7", f"max_frames = {10**30}"), "max_frames is 10{30}, must be"),
        (OWN.replace('weights = "random"', 'weights = ""'), "weights is empty"),
        (
            OWN.replace('hub = "FacebookAI/roberta-base"', 'path = "~no-such-user/x"'),
            "~no-such-user/x: Could",
        ),
    ],
)
def test_what_no_encoder_or_store_could_take_is_refused(own, content: str, words: str) -> None:
    own.write_text(content)
    with pytest.raises(ProfileError, match=words):
        load_profile(str(own))
