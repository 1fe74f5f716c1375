"""What moved a score: attention as printed in the paper, and what withholding changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipmsa.cache import FeatureStore
from clipmsa.fusion import ClipMSA
from clipmsa.fusion.analysis.explain import (
    attention_maps,
    frame_contributions,
    modality_contributions,
    without,
)
from clipmsa.fusion.experiments.variants import find_variant
from clipmsa.fusion.networks.coattention import CoAttentionStage, HierarchicalFusion
from clipmsa.fusion.networks.registry import build_network
from clipmsa.fusion.training.config import RunConfig, configured
from clipmsa.fusion.training.data import FeatureData, streams_by_role
from clipmsa.fusion.training.trainer import predict

SMALL = ["d=16", "heads=4", "d_ff=32", "transformer_ff=32"]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture
def store(tmp_path, plant) -> FeatureStore:
    plant(tmp_path / "store.h5", counts=(20, 8, 12))
    return FeatureStore(tmp_path / "store.h5")


def model_of(store: FeatureStore, variant: str = "full") -> tuple[ClipMSA, FeatureData]:
    """An untrained model in eval mode, whose stand-ins for missing modalities are not zero."""
    config = find_variant(variant).applied(configured(RunConfig(), settings=SMALL))
    data = FeatureData(store, streams_by_role(store, config.model), torch.device("cpu"))
    torch.manual_seed(0)
    model = build_network(config.model, data.roles).eval()
    assert isinstance(model, ClipMSA)
    for role in data.roles:
        missing(model, role).normal_()
    return model, data


def missing(model: ClipMSA, role: str) -> torch.Tensor:
    return model.get_parameter(f"branches.{role}.missing")


def stages(model: ClipMSA) -> list[CoAttentionStage]:
    fusion = model.fusion
    assert isinstance(fusion, HierarchicalFusion)
    return [stage for stage in fusion.stages if isinstance(stage, CoAttentionStage)]


def with_frames(store: FeatureStore, role: str = "face_vgg", least: int = 2) -> torch.Tensor:
    return torch.tensor(np.flatnonzero(store.streams[role].lengths >= least)[:1])


@pytest.mark.parametrize(
    ("variant", "units"),
    [
        (
            "full",
            ["audio<-vision", "vision<-audio", "audio+vision<-text", "text<-audio+vision"],
        ),
        ("order-atv", ["audio<-text", "text<-audio", "audio+text<-vision", "vision<-audio+text"]),
        ("no-coattn", []),
    ],
)
def test_each_ct_unit_has_a_map_named_by_who_asks_whom(store, variant, units):
    model, data = model_of(store, variant)
    maps = attention_maps(model, data.batch(torch.tensor([3])).streams)
    assert [f"{m.asking}<-{m.asked}" for m in maps] == units


def test_a_map_is_the_attention_that_the_unit_computes_with(store):
    """h of the paper, from the map alone, is what the unit's own `attention` gives."""
    model, data = model_of(store)
    maps = attention_maps(model, data.batch(torch.tensor([3])).streams)
    units = [unit for stage in stages(model) for unit in (stage.unit_12, stage.unit_21)]
    for unit, attention in zip(units, maps, strict=True):
        assert attention.weights.shape == (4, 16, 16)
        torch.testing.assert_close(attention.weights.sum(-1), torch.ones(4, 16))
        h = torch.einsum("i,ipq,q->p", attention.scales, attention.weights, attention.x_2)
        expected = unit.attention(attention.x_1[None], attention.x_2[None])[0]
        torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-6)


def test_the_second_stage_asks_with_what_the_first_stage_gave(store):
    model, data = model_of(store)
    streams = data.batch(torch.tensor([3])).streams
    maps = attention_maps(model, streams)
    out = model.intermediates(streams)
    f_av = stages(model)[0](out["F_audio"], out["F_vision"])
    torch.testing.assert_close(maps[2].x_1, f_av[0])
    torch.testing.assert_close(maps[3].x_1, out["F_text"][0])


def test_maps_are_of_one_utterance(store):
    model, data = model_of(store)
    with pytest.raises(ValueError, match=r"hold \[2\] utterances, must hold one"):
        attention_maps(model, data.batch(torch.tensor([3, 4])).streams)


def test_withholding_a_modality_leaves_its_learned_vectors(store):
    model, data = model_of(store)
    rows = torch.arange(5)
    streams = without(data.batch(rows).streams, "vision")
    assert all(streams[role].lengths.tolist() == [0] * 5 for role in streams if "vision" in role)
    assert all(streams[role].lengths.tolist() == [1] * 5 for role in streams if "text" in role)
    stand_ins = torch.cat([missing(model, role) for role in model.roles["vision"]])
    expected = model.projections["vision"](stand_ins[None]).expand(5, -1)
    torch.testing.assert_close(model.intermediates(streams)["F_vision"], expected)


def test_a_contribution_is_the_score_minus_the_score_without(store):
    model, data = model_of(store)
    rows = torch.arange(10)
    passes: list[tuple[int, int]] = []
    moved = modality_contributions(
        [model, model], data, rows, lambda done, total: passes.append((done, total))
    )
    assert list(moved) == ["text", "audio", "vision"]
    assert passes == [(n, 8) for n in range(1, 9)]
    whole, silent = predict(model, data, rows), predict(model, data, rows, ["audio"])
    assert moved["audio"].shape == (2, 10)
    assert np.abs(whole - silent).min() > 1e-6
    np.testing.assert_allclose(moved["audio"][0], whole - silent, atol=1e-12)


@pytest.mark.parametrize("role", ["vision/own", "vision/clip"])
def test_a_frames_contribution_is_that_of_an_utterance_recorded_without_it(store, role):
    model, data = model_of(store)
    name = data.roles[role].name
    row = with_frames(store, name, least=3)
    streams = data.batch(row).streams
    moved = frame_contributions(model, streams, role)
    frames = streams[role].rows
    assert len(moved) == len(frames) >= 3
    for t in range(len(frames)):
        rest = torch.cat([frames[:t], frames[t + 1 :]])
        shorter = {**streams, role: type(streams[role])(rest, torch.tensor([len(rest)]))}
        expected = float(model(streams) - model(shorter))
        assert moved[t] == pytest.approx(expected, abs=1e-5)


def test_an_utterance_without_frames_has_no_frame_contributions(store):
    model, data = model_of(store)
    faceless = torch.tensor(np.flatnonzero(store.streams["face_vgg"].lengths == 0)[:1])
    streams = data.batch(faceless).streams
    assert frame_contributions(model, streams, "vision/own").shape == (0,)


def test_without_its_only_frame_an_utterance_has_none(store):
    model, data = model_of(store)
    row = torch.tensor(np.flatnonzero(store.streams["face_vgg"].lengths == 1)[:1])
    streams = data.batch(row).streams
    faceless = {**streams, "vision/own": without(streams, "vision")["vision/own"]}
    expected = float(model(streams) - model(faceless))
    assert frame_contributions(model, streams, "vision/own") == pytest.approx([expected], abs=1e-5)
    assert abs(expected) > 1e-6


def test_many_frames_are_withheld_in_parts(tmp_path, plant):
    plant(tmp_path / "long.h5", counts=(8, 4, 4), frames=70)
    store = FeatureStore(tmp_path / "long.h5")
    model, data = model_of(store)
    row = with_frames(store, "clip_image", least=40)
    moved = frame_contributions(model, data.batch(row).streams, "vision/clip")
    assert len(moved) == store.streams["clip_image"].lengths[int(row)]
    assert np.isfinite(moved).all()
