"""Baselines: their papers' equations, masks, missing modalities, and runs like any other."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ConfigError
from clipmsa.cli.main import main
from clipmsa.fusion import ClipMSA
from clipmsa.fusion.analysis.evaluation import evaluate
from clipmsa.fusion.analysis.explain import attention_maps, modality_contributions
from clipmsa.fusion.analysis.scores import load_models
from clipmsa.fusion.experiments.reference import reference_scores
from clipmsa.fusion.experiments.runs import run
from clipmsa.fusion.experiments.tuning import read_search
from clipmsa.fusion.experiments.variants import find_model, find_variant, left_out, table1
from clipmsa.fusion.metrics.regression import regression_metrics
from clipmsa.fusion.networks.clip_msa import ClipMSAConfig
from clipmsa.fusion.networks.hycon import HyCon
from clipmsa.fusion.networks.mag import MAG
from clipmsa.fusion.networks.mfm import MFM
from clipmsa.fusion.networks.mfn import MFN
from clipmsa.fusion.networks.misa import MISA
from clipmsa.fusion.networks.mmim import MMIM
from clipmsa.fusion.networks.mult import MulT
from clipmsa.fusion.networks.network import NetworkConfig
from clipmsa.fusion.networks.ragged import Ragged
from clipmsa.fusion.networks.registry import NETWORKS, build_network
from clipmsa.fusion.networks.self_mm import SelfMM
from clipmsa.fusion.networks.tfn_lmf import LMF, TFN, LMFConfig
from clipmsa.fusion.networks.tpmsa import TPMSA
from clipmsa.fusion.networks.wscl_cl import WSCLCL
from clipmsa.fusion.training import trainer
from clipmsa.fusion.training.checkpoint import load_checkpoint
from clipmsa.fusion.training.config import RunConfig, configured
from clipmsa.fusion.training.data import FeatureData, streams_by_role
from clipmsa.fusion.training.outcome import Epoch
from clipmsa.fusion.training.trainer import train_seed

POOLED = ["text_width=6", "audio_width=4", "vision_width=5"]
WIDTHS = ["text_width=12", "audio_width=10", "vision_width=14"]
MEMORY = ["attention_hidden=9", "proposal_hidden=9", "keep_hidden=9", "write_hidden=9"]
CODES = ["z_y=9", "z_text=8", "z_audio=7", "z_vision=6"]
FACTORS = ["f_y=8", "f_text=5", "f_audio=4", "f_vision=3"]
SMALL = {
    "tfn": [*POOLED, "post_fusion=8"],
    "lmf": [*POOLED, "rank=3"],
    "mult": ["heads=3", "d=6", "layers=2"],
    "misa": ["d=32"],
    "mfn": [*WIDTHS, *MEMORY, "memory=12", "out_hidden=8"],
    "mfm": [*WIDTHS, *MEMORY, "memory=12", *CODES, *FACTORS, "mmd=5"],
    "mag": ["d=16", "d_ff=16", "heads=2"],
    "self-mm": ["fusion_width=16", "text_width=8"],
    "mmim": ["audio_width=8", "vision_width=8", "audio_hidden=6", "vision_hidden=6", "z=16"],
    "tpmsa": ["d=16", "heads=2", "d_ff=32", "interactions=2", "text_epochs=1"],
    "hycon": ["d=16", "heads=2", "d_ff=32"],
    "wscl-cl": ["d=16", "heads=2", "layers=1", "d_ff=32", "pretraining=1", "buckets=3"],
}
NAMES = list(SMALL)


def small(name: str, *settings: str) -> RunConfig:
    return configured(find_model(name).applied(RunConfig()), settings=[*SMALL[name], *settings])


def data_of(store: FeatureStore, config: RunConfig) -> FeatureData:
    return FeatureData(store, streams_by_role(store, config.model), torch.device("cpu"))


def network_of(store: FeatureStore, config: RunConfig) -> tuple[nn.Module, FeatureData]:
    """An untrained network in eval mode in which no parameter and no statistic is 0 or 1."""
    data = data_of(store, config)
    torch.manual_seed(0)
    network = build_network(config.model, data.roles).eval()
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point() and value.dim() == 1:
                value.add_(0.3 * torch.rand_like(value))
    return network, data


def scores(network: nn.Module, streams) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = network(streams)
    return out


@pytest.fixture
def path(tmp_path, plant) -> Path:
    plant(tmp_path / "store.h5", faceless=0.3)
    return tmp_path / "store.h5"


@pytest.fixture
def store(path) -> FeatureStore:
    return FeatureStore(path)


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


# -- the papers' equations, transcribed, one utterance at a time, in float64 -----------------------


def weights_of(network: nn.Module) -> dict[str, np.ndarray]:
    return {key: value.double().numpy() for key, value in network.state_dict().items()}


def rows_of(streams: Mapping[str, Ragged], role: str) -> list[np.ndarray]:
    """(T, D) of each utterance."""
    stream = streams[role]
    ends = np.cumsum(stream.lengths.numpy())
    return np.split(stream.rows.double().numpy(), ends[:-1])


def linear(x, weights, name):
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def z_1(weights, streams, modality: str, utterance: int) -> np.ndarray:
    """[z; 1] of a modality: the mean of each of its streams, batch norm, three ReLU layers."""
    means = []
    for role in (f"{modality}/own", f"{modality}/clip"):
        rows = rows_of(streams, role)[utterance]
        missing = weights[f"modalities.means.{role}.missing"]
        means.append(rows.mean(0) if len(rows) else missing)
    x, at = np.concatenate(means), f"modalities.subnetworks.{modality}"
    x = (x - weights[f"{at}.norm.running_mean"]) / np.sqrt(weights[f"{at}.norm.running_var"] + 1e-5)
    x = x * weights[f"{at}.norm.weight"] + weights[f"{at}.norm.bias"]
    for layer in range(3):
        x = np.maximum(0, linear(x, weights, f"{at}.layers.{layer}"))
    return np.append(x, 1.0)


def test_tfn_is_an_mlp_on_the_outer_product(store):
    network, data = network_of(store, small("tfn"))
    streams = data.batch(torch.arange(12)).streams
    assert 0 in streams["vision/own"].lengths
    weights = weights_of(network)
    for utterance, score in enumerate(scores(network, streams)):
        t, a, v = (z_1(weights, streams, m, utterance) for m in ("text", "audio", "vision"))
        x = np.array([t_i * a_j * v_k for t_i in t for a_j in a for v_k in v])
        x = np.maximum(0, linear(x, weights, "layers.0"))
        x = np.maximum(0, linear(x, weights, "layers.2"))
        expected = 6 / (1 + np.exp(-linear(x, weights, "layers.4"))) - 3
        assert float(score) == pytest.approx(float(expected[0]), abs=1e-5)


def test_lmf_is_linear_in_tfns_tensor_with_weights_of_low_rank(store):
    """The tensor and its weights, which the network never builds, are built here."""
    network, data = network_of(store, small("lmf"))
    streams = data.batch(torch.arange(12)).streams
    weights = weights_of(network)
    w_t, w_a, w_v = (weights[f"factors.{m}"] for m in ORDER)
    tensor = np.zeros((7, 5, 6))
    for r in range(3):
        tensor += weights["weights"][0, r] * np.multiply.outer(
            np.multiply.outer(w_t[r], w_a[r]), w_v[r]
        )
    assert np.linalg.matrix_rank(tensor.reshape(7, 30)) == 3
    for utterance, score in enumerate(scores(network, streams)):
        t, a, v = (z_1(weights, streams, m, utterance) for m in ORDER)
        expected = (tensor * np.multiply.outer(np.multiply.outer(t, a), v)).sum()
        assert float(score) == pytest.approx(expected + weights["bias"], abs=1e-5)


ORDER = ("text", "audio", "vision")


def norm(x, weights, name):
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attend(x, memory, weights, name, heads):
    """Multi-head attention of rows x to rows memory: a list of (width,)."""
    width = len(x[0])
    W, b = weights[f"{name}.in_proj_weight"], weights[f"{name}.in_proj_bias"]
    q = [W[:width] @ row + b[:width] for row in x]
    k = [W[width : 2 * width] @ row + b[width : 2 * width] for row in memory]
    v = [W[2 * width :] @ row + b[2 * width :] for row in memory]
    out = []
    for query in q:
        joined = []
        for h in range(heads):
            part = slice(h * width // heads, (h + 1) * width // heads)
            logits = [query[part] @ key[part] / np.sqrt(width / heads) for key in k]
            e = np.exp(logits)
            joined.append(sum(p * value[part] for p, value in zip(e / e.sum(), v, strict=True)))
        out.append(linear(np.concatenate(joined), weights, f"{name}.out_proj"))
    return out


def transformer(x, source, steps, source_steps, weights, name, layers, heads=3):
    """MulT's: rows that attend to those of a source, or (None) to themselves."""

    def embedded(rows, at):
        width = len(rows[0])
        rates = 10000.0 ** (-np.arange(width // 2) / (width // 2 - 1))
        angles = [(t + 1) * rates for t in at]  # fairseq's, as in the authors' code
        positions = [np.concatenate([np.sin(a), np.cos(a)]) for a in angles]
        return [np.sqrt(width) * row + p for row, p in zip(rows, positions, strict=True)]

    x = embedded(x, steps)
    memory = None if source is None else embedded(source, source_steps)
    for i in range(layers):
        at = f"{name}.layers.{i}"
        query = [norm(row, weights, f"{at}.norm") for row in x]
        key = query if memory is None else [norm(row, weights, f"{at}.norm") for row in memory]
        h = attend(query, key, weights, f"{at}.attention", heads)
        x = [row + change for row, change in zip(x, h, strict=True)]
        for n, row in enumerate(x):
            inner = linear(norm(row, weights, f"{at}.norm_ffn"), weights, f"{at}.ffn.0")
            x[n] = row + linear(np.maximum(0, inner), weights, f"{at}.ffn.3")
    return [norm(row, weights, f"{name}.norm") for row in x]


def test_mult_is_crossmodal_transformers_and_their_last_rows(store):
    network, data = network_of(store, small("mult"))
    streams = data.batch(torch.arange(12)).streams
    assert 0 in streams["vision/own"].lengths
    weights = weights_of(network)
    for utterance, score in enumerate(scores(network, streams)):
        rows: dict[str, list[np.ndarray]] = {}
        steps: dict[str, list[int]] = {}
        for m in ORDER:
            rows[m], steps[m] = [], []
            for role in (f"{m}/own", f"{m}/clip"):
                found = rows_of(streams, role)[utterance]
                projected = [weights[f"projections.{role}.weight"] @ row for row in found]
                rows[m] += projected or [weights[f"missing.{role}"]]
                steps[m] += range(max(1, len(found)))
        last = []
        for m in ORDER:
            attended = [
                transformer(rows[m], rows[o], steps[m], steps[o], weights, f"cross.{m}<-{o}", 2)
                for o in ORDER
                if o != m
            ]
            joined = [np.concatenate(pair) for pair in zip(*attended, strict=True)]
            out = transformer(joined, None, steps[m], None, weights, f"own.{m}", 3)
            second = max(n for n, step in enumerate(steps[m]) if step == 0)  # where CLIP's begins
            last.append((out[second - 1] + out[-1]) / 2)
        h = np.concatenate(last)
        inner = np.maximum(0, linear(h, weights, "layers.0"))
        expected = linear(h + linear(inner, weights, "layers.3"), weights, "out")
        assert float(score) == pytest.approx(float(expected[0]), abs=1e-4)


def subspaces(network: nn.Module, streams, weights) -> dict[str, list[np.ndarray]]:
    """u, private and shared of each modality, (B, d)."""
    out: dict[str, list[np.ndarray]] = {"u": [], "private": [], "shared": []}
    for m in ORDER:
        vectors = [network.get_submodule(f"branches.{m}/{b}")(streams[f"{m}/{b}"]) for b in BOTH]
        u, private, shared = [], [], []
        for x in torch.cat(vectors, -1).detach().double().numpy():
            x = np.maximum(0, linear(x, weights, f"project.{m}.0"))
            u.append(norm(x, weights, f"project.{m}.2"))
            private.append(1 / (1 + np.exp(-linear(u[-1], weights, f"private.{m}.0"))))
            shared.append(1 / (1 + np.exp(-linear(u[-1], weights, "shared.0"))))
        out["u"].append(np.array(u))
        out["private"].append(np.array(private))
        out["shared"].append(np.array(shared))
    return out


BOTH = ("own", "clip")


def test_misa_is_a_transformer_over_private_and_shared_vectors(store):
    network, data = network_of(store, small("misa"))
    streams = data.batch(torch.arange(12)).streams
    weights = weights_of(network)
    of = subspaces(network, streams, weights)
    for utterance, score in enumerate(scores(network, streams)):
        x = [h[utterance] for h in of["private"] + of["shared"]]
        h = attend(x, x, weights, "transformer.self_attn", 2)
        for n, row in enumerate(x):
            row = norm(row + h[n], weights, "transformer.norm1")
            inner = np.maximum(0, linear(row, weights, "transformer.linear1"))
            row = row + linear(inner, weights, "transformer.linear2")
            x[n] = norm(row, weights, "transformer.norm2")
        inner = np.maximum(0, linear(np.concatenate(x), weights, "layers.0"))
        assert float(score) == pytest.approx(float(linear(inner, weights, "layers.3")[0]), abs=1e-5)


def test_misas_own_loss_is_its_papers(store):
    """Moments apart, overlap, and reconstruction: weighted, over pairs and modalities."""
    config = small("misa", "difference=20")
    network, data = network_of(store, config)
    streams = data.batch(torch.arange(12)).streams
    weights = weights_of(network)
    of = subspaces(network, streams, weights)
    pairs = [(0, 1), (0, 2), (1, 2)]

    def moment(x, k):
        return x.mean(0) if k == 1 else ((x - x.mean(0)) ** k).mean(0)

    sim = 0.0
    for i, j in pairs:
        for k in range(1, 6):
            apart = moment(of["shared"][i], k) - moment(of["shared"][j], k)
            sim += np.sqrt((apart**2).sum()) / 3

    def overlap(x, y):
        x, y = x - x.mean(0), y - y.mean(0)
        x, y = ([row / np.sqrt(row @ row) for row in rows] for rows in (x, y))
        product = np.sum([np.outer(a, b) for a, b in zip(x, y, strict=True)], axis=0)
        return (product**2).mean()

    diff = sum(overlap(of["private"][i], of["private"][j]) for i, j in pairs)
    diff += sum(overlap(of["private"][m], of["shared"][m]) for m in range(3))
    recon = 0.0
    for n, m in enumerate(ORDER):
        for u, p, c in zip(of["u"][n], of["private"][n], of["shared"][n], strict=True):
            recon += ((linear(p + c, weights, f"decode.{m}") - u) ** 2).sum() / (3 * 12 * 32)
    expected = sim + 20 * diff + recon
    batch = data.batch(torch.arange(12))._replace(labels=torch.zeros(12))
    assert isinstance(network, MISA)
    whole = torch.stack([*network.losses(batch).values()]).sum()
    plain = nn.functional.smooth_l1_loss(network(streams), torch.zeros(12))
    assert min(sim, 20 * diff, recon) > 0.1 * expected
    assert (whole - plain).item() == pytest.approx(expected, rel=1e-4)


# -- what holds for all ---------------------------------------------------------------------------


def test_a_score_does_not_depend_on_the_batch(store, name):
    network, data = network_of(store, small(name))
    whole = scores(network, data.batch(torch.arange(40)).streams)
    assert whole.std() > 1e-3
    for row in range(40):
        alone = scores(network, data.batch(torch.tensor([row])).streams)
        torch.testing.assert_close(alone[0], whole[row], rtol=1e-5, atol=1e-5)


def test_every_stream_moves_the_score(store, name):
    network, data = network_of(store, small(name))
    streams = data.batch(torch.arange(30)).streams
    whole = scores(network, streams)
    for role, stream in streams.items():
        moved = {**streams, role: Ragged(stream.rows + 1, stream.lengths)}
        changed, there = (scores(network, moved) - whole).abs() > 1e-6, stream.lengths > 0
        assert not changed[~there].any()
        assert changed[there].float().mean() > 0.2, role  # ReLUs as few as these hide some


def test_a_missing_modality_is_a_vector_that_is_learned(store, name):
    network, data = network_of(store, small(name))
    streams = data.batch(torch.arange(20), {"audio": torch.arange(20) < 10}).streams
    network.train()
    network(streams).square().sum().backward()
    learned = {key: p.grad for key, p in network.named_parameters() if "missing" in key}
    assert len(learned) == 6
    for key, gradient in learned.items():
        role = next(role for role in streams if role in key)
        assert gradient is not None
        assert (gradient.abs().max() > 0) == bool((streams[role].lengths == 0).any()), key


def test_any_modalities_may_be_left_out(store, name):
    for count in (1, 2):
        for modalities in itertools.combinations(ORDER, count):
            network, data = network_of(store, left_out(small(name), modalities))
            assert not {role.partition("/")[0] for role in data.roles} & set(modalities)
            assert scores(network, data.batch(torch.arange(8)).streams).isfinite().all()


def test_a_role_may_be_dropped(store, name):
    network, data = network_of(store, small(name, 'drop=["vision/own", "text/clip"]'))
    assert set(data.roles) == {"text/own", "audio/own", "audio/clip", "vision/clip"}
    assert scores(network, data.batch(torch.arange(8)).streams).isfinite().all()


@pytest.mark.slow
def test_training_learns_what_is_planted(tmp_path, plant, name):
    oracle = plant(tmp_path / "store.h5", (300, 80, 200))
    rate = 0.001 if name == "misa" else 0.005
    config = small(name, "epochs=10", "batch_size=32", f"learning_rate={rate}")
    data = data_of(FeatureStore(tmp_path / "store.h5"), config)
    outcome = train_seed(data, config, 1)
    task = [epoch.terms["task"] for epoch in outcome.history if "task" in epoch.terms]
    assert task[-1] < 0.6 * task[0]
    constant = reference_scores(data, ("test",))["constant"]["test"]
    mae = regression_metrics(constant, data.labels[data.labelled_rows("test")].numpy())["mae"]
    assert outcome.metrics["test"]["mae"] < 0.8 * mae
    assert outcome.metrics["test"]["corr"] > 0.7 * oracle


@pytest.mark.slow
def test_an_interrupted_seed_goes_on_to_the_same_bits(store, tmp_path, monkeypatch, name):
    monkeypatch.setattr(trainer, "_PROGRESS_SECONDS", 0.0)
    config = small(name, "epochs=3", "modality_dropout=0.2")
    data = data_of(store, config)
    whole = train_seed(data, config, 7)

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_seed(data, config, 7, stop, tmp_path / "progress.pt")
    seen: list[Epoch] = []
    rest = train_seed(data, config, 7, seen.append, tmp_path / "progress.pt")
    assert len(seen) == 1
    assert rest.history == whole.history
    assert all(torch.equal(rest.state[key], whole.state[key]) for key in whole.state)


@pytest.mark.slow
def test_a_run_is_a_run_like_any_other(store, tmp_path, name):
    """Checkpoint, config.toml, evaluate, predict and contributions; no map of co-attention."""
    config, out = small(name, "epochs=2"), tmp_path / "run"
    result = run(store, config, out, [1, 2])
    assert result.metrics["variant"] == name
    assert configured(RunConfig(), out / "config.toml") == config
    checkpoints = [load_checkpoint(out / f"model-{seed}.pt") for seed in (1, 2)]
    assert checkpoints[0].config == config
    assert not run(store, config, out, [1, 2]).fresh
    again = evaluate(checkpoints, store, "test")
    assert again.summary()["mae"]["mean"] == pytest.approx(
        result.metrics["test"]["mae"]["mean"], abs=1e-6
    )
    models, data = [c.model() for c in checkpoints], data_of(store, config)
    rows = data.labelled_rows("test")
    moved = modality_contributions(models, data, rows)
    assert list(moved) == ["text", "audio", "vision"]
    assert all(np.abs(m).max() > 1e-5 for m in moved.values())
    assert attention_maps(models[0], data.batch(rows[:1]).streams) == []
    utterance = {
        spec.name: data.batch(rows[:1]).streams[role].rows.numpy()
        for role, spec in data.roles.items()
    }
    said = load_models(out).predict([utterance])[0]
    assert said.scores[1] == pytest.approx(result.outcomes[0].predictions["test"][0], abs=1e-5)
    assert said.contributions["audio"] == pytest.approx(moved["audio"][:, 0].mean(), abs=1e-5)


# -- configuration and command line ---------------------------------------------------------------


def test_a_setting_of_another_network_is_refused():
    with pytest.raises(ConfigError, match=r"no setting 'd_ff' of 'lmf' and its training; there"):
        small("lmf", "d_ff=32")
    with pytest.raises(ConfigError, match=r"no setting 'rank' of 'clip-msa'"):
        configured(RunConfig(), settings=["rank=3"])
    with pytest.raises(ConfigError, match="chosen by `model`"):
        configured(RunConfig(), settings=["network=lmf"])


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("lmf", "rank=0", "rank: must be greater than or equal to 1, got 0"),
        ("tfn", "post_fusion=0", "post_fusion: must be greater than or equal to 1"),
        ("mult", "heads=4", "d = 6 must be a multiple of heads = 4"),
        ("misa", "d=5", "d = 5 must be even"),
        ("mult", 'drop=["text/owl"]', "no role 'text/owl'"),
    ],
)
def test_a_size_that_cannot_be_is_named(name, setting, message):
    with pytest.raises(ConfigError, match=message):
        small(name, setting)


def test_a_baseline_takes_the_training_and_the_streams_of_a_configuration_and_not_its_sizes():
    base = configured(RunConfig(), settings=["d=64", "epochs=3", 'streams={"text/own" = "bert"}'])
    config = find_model("lmf").applied(base)
    assert (config.variant, config.training) == ("lmf", base.training)
    assert config.model == replace(find_model("lmf").model, streams=base.model.streams)
    assert find_variant("full").applied(config).model == ClipMSAConfig(streams=base.model.streams)


def test_a_users_file_sets_a_baselines_sizes(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[lmf-8]\nnetwork = "lmf"\nrank = 8\n')
    mine = find_variant(str(file))
    assert (mine.name, mine.model) == ("lmf-8", LMFConfig(rank=8))
    file.write_text('[model]\nnetwork = "mult"\nlayers = 2\n')
    config = configured(RunConfig(), file)
    assert (config.variant, config.model.network) == ("mult", "mult")
    file.write_text('[model]\nnetwork = "must"\n')
    with pytest.raises(
        ConfigError,
        match="no network 'must'; there are clip-msa, tfn, lmf, mult, misa, mfn, mfm, mag, self-mm",
    ):
        configured(RunConfig(), file)


def test_a_configuration_of_one_network_is_not_anothers(store):
    config = ClipMSAConfig(network="tfn")
    with pytest.raises(ConfigError, match="network 'tfn' takes TFNConfig, not ClipMSAConfig"):
        build_network(config, streams_by_role(store, config))


def test_a_checkpoint_from_before_there_were_baselines_is_clip_msas(store, tmp_path):
    config = configured(RunConfig(), settings=["d=16", "heads=4", "epochs=1"])
    run(store, config, tmp_path / "run", [1])
    file = tmp_path / "run" / "model-1.pt"
    content = torch.load(file, weights_only=True)
    del content["config"]["model"]["network"]
    torch.save(content, file)
    assert load_checkpoint(file).config == config
    assert isinstance(load_checkpoint(file).model().network, ClipMSA)


def test_each_network_is_its_own_class(store):
    kinds = {
        "clip-msa": ClipMSA,
        "tfn": TFN,
        "lmf": LMF,
        "mult": MulT,
        "misa": MISA,
        "mfn": MFN,
        "mfm": MFM,
        "mag": MAG,
        "self-mm": SelfMM,
        "mmim": MMIM,
        "tpmsa": TPMSA,
        "hycon": HyCon,
        "wscl-cl": WSCLCL,
    }
    assert kinds.keys() == NETWORKS.shipped.keys()
    streams = streams_by_role(store, NetworkConfig())
    for name, kind in kinds.items():
        assert type(build_network(find_model(name).model, streams)) is kind


def options(name: str, *more: str) -> list[str]:
    settings = [*SMALL[name], "epochs=1", *more]
    return [word for setting in settings for word in ("--set", setting)]


def test_train_takes_a_model_by_name(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["train", "--features", str(path), "--seeds", "1", "--model", "lmf", *options("lmf")]
    assert main(line) == 0
    assert "variant 'lmf'" in capsys.readouterr().out
    metrics = json.loads(Path("runs/store-lmf/metrics.json").read_text())
    assert metrics["variant"] == "lmf"
    assert main([*line, "--without", "audio"]) == 0
    assert Path("runs/store-lmf-without-audio/model-1.pt").exists()


def test_an_unknown_model_is_refused_with_the_names(path, capsys):
    assert main(["train", "--features", str(path), "--model", "self-nn"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "no network 'self-nn'; there are clip-msa, tfn, lmf, mult, misa" in told


def test_a_model_and_a_variant_at_once_are_wrong_usage(path, capsys):
    line = ["train", "--features", str(path), "--model", "tfn", "--variant", "no-clip"]
    assert main(line) == 2
    assert "give one of the two" in capsys.readouterr().err


def test_sizes_in_a_file_that_are_not_the_models_are_told(path, tmp_path, capsys):
    file = tmp_path / "best.toml"
    file.write_text("[model]\nd = 16\n[training]\nepochs = 1\n")
    line = ["train", "--features", str(path), "--out", str(tmp_path / "run"), "--seeds", "1"]
    assert main([*line, "--config", str(file), "--model", "lmf"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "sizes of 'clip-msa' are not taken over; 'lmf' has its own" in told


@pytest.mark.slow
def test_table1_is_baselines_beside_full_on_the_same_features(tmp_path, plant, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "store.h5", counts=(40, 12, 16))
    line = ["ablate", "--features", "store.h5", "--variants", "table1", "--workers", "1"]
    line += ["--seeds", "1,2", "--set", "d=16", "--set", "epochs=11"]  # TPMSA has phases
    assert main(line) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = [row.split("|")[1].strip() for row in printed if "±" in row]
    assert rows == [variant.row for variant in table1()]
    with Path("runs/store-table1/comparison.csv").open() as csv_file:
        assert {row["variant"] for row in csv.DictReader(csv_file)} == set(NAMES)
    configs = {n: load_checkpoint(Path(f"runs/store-table1/{n}/model-1.pt")).config for n in NAMES}
    assert all(configs[n].model == find_model(n).model for n in NAMES)  # d=16 is CLIP-MSA's
    assert all(config.training.epochs == 11 for config in configs.values())


def test_a_search_is_over_the_settings_of_its_network(tmp_path):
    file = tmp_path / "search.toml"
    file.write_text(
        "[search]\nrank = { low = 1, high = 8 }\nlearning_rate = { choices = [1e-3] }\n"
    )
    assert read_search(file, small("lmf")).keys() == {"rank", "learning_rate"}
    with pytest.raises(ConfigError, match="no setting 'rank' of 'tfn'"):
        read_search(file, small("tfn"))
