"""The model: branches, missing modalities, roles and variants (paper, Sec. 2.2 to 2.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clipmsa.cache import FeatureStore, StreamSpec
from clipmsa.cache.errors import ConfigError
from clipmsa.fusion import ClipMSA
from clipmsa.fusion.experiments.variants import find_variant, left_out, table2
from clipmsa.fusion.networks.branches import (
    SLSTM,
    FrameTransformer,
    StackedBiLSTM,
    VectorBranch,
    sinusoidal_positions,
)
from clipmsa.fusion.networks.clip_msa import ClipMSAConfig
from clipmsa.fusion.networks.network import NetworkConfig
from clipmsa.fusion.networks.ragged import Ragged
from clipmsa.fusion.training.config import RunConfig, changed, configured
from clipmsa.fusion.training.data import FeatureData, streams_by_role

SMALL = ClipMSAConfig(d=16, heads=4, d_ff=32, transformer_ff=32, predictor_hidden=8)
LENGTHS = [3, 0, 7, 1]


def ragged(lengths=LENGTHS, dim=6, seed=0) -> Ragged:
    generator = torch.Generator().manual_seed(seed)
    return Ragged(torch.randn(sum(lengths), dim, generator=generator), torch.tensor(lengths))


def parts(stream: Ragged) -> tuple[torch.Tensor, ...]:
    """(T, D) for each utterance with rows."""
    return torch.split(stream.rows, stream.lengths[stream.lengths > 0].tolist())


def temporal_branches() -> list:
    torch.manual_seed(0)
    return [
        SLSTM(6, 8).eval(),
        StackedBiLSTM(6, 8).eval(),
        FrameTransformer(6, 8, heads=2, layers=2, d_ff=16, dropout=0.1).eval(),
    ]


@pytest.fixture
def planted(tmp_path, plant) -> FeatureStore:
    plant(tmp_path / "store.h5", counts=(12, 4, 4))
    return FeatureStore(tmp_path / "store.h5")


def clip_msa(config: NetworkConfig) -> ClipMSAConfig:
    assert isinstance(config, ClipMSAConfig)
    return config


def model_and_batch(store: FeatureStore, config: ClipMSAConfig):
    torch.manual_seed(0)
    streams = streams_by_role(store, config)
    data = FeatureData(store, streams, torch.device("cpu"))
    return ClipMSA(config, streams).eval(), data


def test_slstm_is_the_last_valid_state_of_a_one_layer_lstm():
    branch, stream = temporal_branches()[0], ragged()
    out = branch(stream)
    for index, rows in zip((0, 2, 3), parts(stream), strict=True):
        _, (h_n, _) = branch.lstm(rows)
        torch.testing.assert_close(out[index], h_n[0])


def test_stacked_bilstm_takes_the_last_states_of_both_layers_and_directions():
    branch, stream = temporal_branches()[1], ragged()
    out = branch(stream)
    for index, rows in zip((0, 2, 3), parts(stream), strict=True):
        states, (h_first, _) = branch.first(rows)
        _, (h_second, _) = branch.second(branch.norm(states))
        last = torch.cat([*h_first, *h_second])
        torch.testing.assert_close(out[index], branch.project(last))


def test_frame_transformer_is_torchs_layers_and_a_mean_over_valid_frames():
    branch, stream = temporal_branches()[2], ragged()
    layers = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval() for _ in range(2)]
    for ours, torchs in zip(branch.layers, layers, strict=True):
        torchs.self_attn.in_proj_weight, torchs.self_attn.in_proj_bias = ours.qkv.parameters()
        torchs.self_attn.out_proj.weight, torchs.self_attn.out_proj.bias = ours.out.parameters()
        torchs.linear1, torchs.linear2 = ours.ffn[0], ours.ffn[2]
        torchs.norm1, torchs.norm2 = ours.norm_attention, ours.norm_ffn
    out = branch(stream)
    for index, rows in zip((0, 2, 3), parts(stream), strict=True):
        x = branch.project(rows)[None] + sinusoidal_positions(len(rows), 8)
        for layer in layers:
            x = layer(x)
        torch.testing.assert_close(out[index], x.mean(dim=1)[0])


def test_packing_is_torchs():
    stream = ragged([3, 0, 7, 1, 3])
    packed, expected = stream.pack(), pack_sequence(list(parts(stream)), enforce_sorted=False)
    for ours, torchs in zip(packed, expected, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=0)


def test_positions_are_those_of_the_transformer_paper():
    positions = sinusoidal_positions(50, 16)
    expected = [torch.tensor(30 / 10000 ** (2 * (i // 2) / 16)) for i in range(16)]
    for i, angle in enumerate(expected):
        wave = angle.sin() if i % 2 == 0 else angle.cos()
        torch.testing.assert_close(positions[30, i], wave, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("branch", temporal_branches(), ids=lambda b: type(b).__name__)
def test_a_vector_does_not_depend_on_the_rest_of_its_batch(branch):
    stream = ragged()
    together = branch(stream)
    for index, rows in zip((0, 2, 3), parts(stream), strict=True):
        alone = branch(Ragged(rows, torch.tensor([len(rows)])))
        torch.testing.assert_close(together[index], alone[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "branch", [VectorBranch(6), *temporal_branches()], ids=lambda b: type(b).__name__
)
def test_a_missing_modality_is_a_learned_vector(branch):
    lengths = [1, 0, 1] if isinstance(branch, VectorBranch) else LENGTHS
    nn.init.normal_(branch.missing)
    out = branch(ragged(lengths))
    torch.testing.assert_close(out[1], branch.missing)
    out[1].sum().backward()
    assert branch.missing.grad is not None
    assert (branch.missing.grad == 1).all()


def test_a_batch_without_any_face_works():
    for branch in temporal_branches():
        out = branch(ragged([0, 0]))
        assert out.shape == (2, branch.out_dim)


def test_widths_are_read_from_the_store(planted):
    model, _ = model_and_batch(planted, SMALL)
    # albert 24 + clip_text 32; wav2vec2 24 + esresnext 32; F_v^trans 16 + F_v^clip 16
    widths = {k: p.linear.in_features for k, p in model.projections.items()}
    assert widths == {"text": 56, "audio": 56, "vision": 32}


def test_intermediates_are_the_papers_quantities(planted):
    model, data = model_and_batch(planted, SMALL)
    batch = data.batch(torch.arange(5))
    out = model.intermediates(batch.streams)
    assert {key: tuple(value.shape) for key, value in out.items()} == {
        "F_text": (5, 16),
        "F_audio": (5, 16),
        "F_vision": (5, 16),
        "F_m": (5, 16),
        "y": (5,),
    }
    torch.testing.assert_close(out["y"], model(batch.streams))


def test_batches_hold_the_stores_rows(planted):
    _, data = model_and_batch(planted, SMALL)
    rows = torch.tensor([7, 0, 3])
    batch = data.batch(rows)
    faces = planted.streams["face_vgg"]
    expected = torch.cat([torch.from_numpy(faces[int(row)].copy()) for row in rows]).float()
    torch.testing.assert_close(batch.streams["vision/own"].rows, expected)
    assert batch.streams["vision/own"].lengths.tolist() == [len(faces[int(row)]) for row in rows]
    assert batch.labels.tolist() == [planted.labels[int(row)] for row in rows]


def test_table_2_has_nine_rows_named_as_in_the_paper():
    assert [(v.name, v.row) for v in table2()] == [
        ("full", "CLIP-MSA"),
        ("no-clip", "w/o CLIP"),
        ("no-coattn", "w/o Co-Attn"),
        ("no-clip-no-coattn", "w/o CLIP, Co-Attn"),
        ("no-clip-t", "w/o CLIP-T"),
        ("no-clip-a", "w/o CLIP-A"),
        ("no-clip-v", "w/o CLIP-V"),
        ("order-atv", "(A,T,V)"),
        ("order-vta", "(V,T,A)"),
    ]


@pytest.mark.parametrize(
    ("variant", "dropped"),
    [
        ("full", set()),
        ("no-clip", {"clip_text", "esresnext", "clip_image"}),
        ("no-clip-t", {"clip_text"}),
        ("no-clip-a", {"esresnext"}),
        ("no-clip-v", {"clip_image"}),
    ],
)
def test_a_variant_reads_only_its_streams(planted, variant, dropped):
    used = {spec.name for spec in streams_by_role(planted, find_variant(variant).model).values()}
    assert used == set(planted.streams) - dropped


def test_without_coattention_the_predictor_sees_the_concatenation(planted):
    config = replace(SMALL, fusion="concat")
    model, data = model_and_batch(planted, config)
    out = model.intermediates(data.batch(torch.arange(3)).streams)
    # The paper's order of concatenation is not given; ours is the order of fusion.
    expected = torch.cat([out["F_audio"], out["F_vision"], out["F_text"]], dim=-1)
    torch.testing.assert_close(out["F_m"], expected)


def test_orders_differ_in_who_meets_first():
    assert clip_msa(find_variant("order-atv").model).order == ("audio", "text", "vision")
    assert clip_msa(find_variant("order-vta").model).order == ("vision", "text", "audio")


def test_modalities_can_be_left_out():
    config = left_out(find_variant("no-clip-t").applied(RunConfig()), ["audio", "vision"])
    assert config.variant == "no-clip-t-without-audio-vision"
    assert set(config.model.drop) == {
        "text/clip", "audio/own", "audio/clip", "vision/own", "vision/clip",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="`without='smell'`: must be one of text, audio, vision"):
        left_out(RunConfig(), ["smell"])


def test_two_streams_of_one_role_need_a_choice(planted):
    spec = planted.streams["albert"].spec
    planted.streams["roberta"] = planted.streams["albert"]
    with pytest.raises(
        ConfigError, match=r"albert and roberta both have the role text/own.*`settings`"
    ):
        streams_by_role(planted, SMALL)
    config = changed(SMALL, {"streams": {"text/own": "albert"}}, "test")
    assert streams_by_role(planted, config)["text/own"] == spec
    config = changed(SMALL, {"streams": {"text/own": "bert"}}, "test")
    with pytest.raises(ConfigError, match=r"no stream 'bert' with the role text/own"):
        streams_by_role(planted, config)


def test_of_vectors_and_their_states_the_vectors_are_taken_unless_the_states_are_named(planted):
    albert = planted.streams["albert"]
    states = replace(albert.spec, name="albert_tokens", level="sequence", states_of="albert")
    planted.streams["albert_tokens"] = replace(albert, spec=states)
    assert streams_by_role(planted, SMALL)["text/own"].name == "albert"
    config = changed(SMALL, {"streams": {"text/own": "albert_tokens"}}, "test")
    assert streams_by_role(planted, config)["text/own"].name == "albert_tokens"
    del planted.streams["albert"]
    assert streams_by_role(planted, SMALL)["text/own"].name == "albert_tokens"


def test_a_store_without_sound_still_makes_a_model(planted):
    for name in ("wav2vec2", "esresnext"):
        del planted.streams[name]
    model, data = model_and_batch(planted, SMALL)
    out = model.intermediates(data.batch(torch.arange(3)).streams)
    assert "F_audio" not in out
    assert out["y"].shape == (3,)


def test_a_sequence_in_any_role_gets_a_temporal_layer():
    text = StreamSpec("text", "text", "own", "sequence", 10)
    model = ClipMSA(SMALL, {"text/own": text})
    y = model.eval()({"text/own": ragged(dim=10)})
    assert y.shape == (4,)


class NoStrays(TorchDispatchMode):
    """Raises where an operation gets tensors of the device and of the CPU, as a GPU would."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        flat = tree_leaves((args, kwargs))
        devices = {t.device.type for t in flat if isinstance(t, torch.Tensor) and t.ndim}
        if len(devices) > 1 and func not in (torch.ops.aten._to_copy.default, aten_lstm):
            raise RuntimeError(f"{func}: tensors on {devices}")
        return func(*args, **kwargs)


aten_lstm = torch.ops.aten.lstm.data  # it wants the packing's batch sizes on the CPU


def test_the_whole_model_runs_on_another_device(planted):
    """There is no GPU here: the meta device computes shapes, and a stray CPU tensor raises."""
    streams = streams_by_role(planted, SMALL)
    batch = FeatureData(planted, streams, torch.device("cpu")).batch(torch.arange(12))
    with torch.device("meta"):
        model = ClipMSA(SMALL, streams)
    moved = {role: Ragged(x.rows.to("meta"), x.lengths) for role, x in batch.streams.items()}
    with NoStrays():
        score = model(moved)
        loss = torch.nn.functional.smooth_l1_loss(score, batch.labels.to("meta"))
        loss.backward()
        with pytest.raises(RuntimeError, match="tensors on"):
            torch.nn.functional.smooth_l1_loss(score, batch.labels)
    assert (score.device.type, score.shape) == ("meta", (12,))
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["dd=1"], "no setting 'dd'"),
        (["d"], "write key=value"),
        (["d=large"], "d: must be a valid integer, got 'large'"),
        (["d=12.5"], "d: must be a valid integer"),
        (["d=100"], "multiple of heads"),
        (["fusion=sum"], "must be 'coattention' or 'concat', got 'sum'"),
        (['order=["audio"]'], "each of text, audio, vision once"),
        (["drop=text/clap"], "no role 'text/clap'"),
        (["batch_size=1"], "greater than or equal to 2"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        configured(RunConfig(), settings=settings)


def test_settings_and_files_change_the_configuration(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('[model]\nd = 64\ndrop = ["text/clip"]\n[training]\nlearning_rate = 1e-3\n')
    config = configured(RunConfig(), file, ["epochs=3", "residual=additive", "dropout=0"])
    model = clip_msa(config.model)
    assert (model.d, model.drop) == (64, ("text/clip",))
    assert (model.residual, model.dropout) == ("additive", 0.0)
    assert (config.training.learning_rate, config.training.epochs) == (1e-3, 3)


def test_a_users_variant_is_a_table_in_a_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[mine]\nrow = "no faces"\ndrop = ["vision/own"]\nd = 64\n')
    mine = find_variant(str(file))
    assert (mine.name, mine.row, mine.model.drop) == ("mine", "no faces", ("vision/own",))
    file.write_text(file.read_text() + '[other]\nfusion = "concat"\n')
    assert clip_msa(find_variant(f"{file}:other").model).fusion == "concat"
    with pytest.raises(ConfigError, match=r"there are mine, other; write .*:NAME"):
        find_variant(str(file))


def test_an_unknown_variant_lists_those_there_are():
    with pytest.raises(ConfigError, match="no variant 'no-clap'; there are full, no-clip"):
        find_variant("no-clap")
