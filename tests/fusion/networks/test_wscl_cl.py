"""WSCL-CL: numbers of the reading that its docstring names, and what a curriculum keeps."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipmsa.cache import StreamSpec
from clipmsa.fusion.networks import Batch, Ragged
from clipmsa.fusion.networks.wscl_cl import WSCLCL, Pairs, WSCLCLConfig, curriculum, step, targets

PATH = Path(__file__).resolve().parents[2] / "data/baselines/wscl_reading.npz"
ORDER = ("text", "audio", "vision")
EXACT: Any = {"rtol": 0, "atol": 1e-9}


def network(d: int = 4, dim: int = 4) -> WSCLCL:
    streams = {f"{m}/own": StreamSpec(m, m, "own", "utterance", dim) for m in ORDER}
    return WSCLCL(WSCLCLConfig(d=d, heads=1, pretraining=1, buckets=3), streams).double()


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(PATH, allow_pickle=False) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def test_pairs_are_scored_and_sorted_as_the_reading_says(golden):
    x = torch.stack([golden[f"in.{m}"] for m in ORDER], dim=1)
    pairs = Pairs(*golden["pairs"].T)
    goal, losses = targets(pairs, golden["in.labels"]), []
    torch.testing.assert_close(goal, golden["target"], **EXACT)
    for name in ("pretrained", "current"):
        weights = golden[f"param.{name}.weight"], golden[f"param.{name}.bias"]
        score = network().scores(x, pairs, *weights)
        torch.testing.assert_close(score, golden[f"score.{name}"], **EXACT)
        losses.append((score - goal).abs())
    first, current = losses
    share, buckets = float(golden["discarded_share"]), int(golden["buckets"])
    order, bucket = curriculum(first, current, share, buckets)
    assert torch.equal(order, golden["kept"])
    assert torch.equal(bucket, golden["bucket_of_kept"])


def test_buckets_are_fed_as_the_reading_says(golden):
    loss, fed = golden["feed.loss_of_each_epoch"].tolist(), 1
    found = [fed]
    for before, now in itertools.pairwise(loss):
        fed = step(fed, before - now, int(golden["buckets"]), float(golden["tau"]))
        found.append(fed)
    assert found == golden["feed.buckets_open"].tolist()


def test_pairs_are_of_those_that_are_there_and_negatives_of_two():
    present = torch.ones(9, 3, dtype=torch.bool)
    present[2, 0] = present[4, 2] = False
    pairs = network().drawn(present)
    for c, (m, n) in enumerate([(0, 1), (0, 2), (1, 2)]):
        i, j = pairs.i[pairs.c == c], pairs.j[pairs.c == c]
        assert present[i, m].all()
        assert present[j, n].all()
        both = (present[:, m] & present[:, n]).nonzero().flatten()
        assert torch.equal(i[i == j], both)
        assert (i != j).sum() > 9


def test_after_pretraining_the_predictors_are_kept_and_the_easiest_fed():
    model = network()
    torch.manual_seed(0)
    labels = torch.linspace(-3, 3, 12).double()
    streams = {
        f"{m}/own": Ragged(torch.randn(12, 4).double(), torch.ones(12).long()) for m in ORDER
    }
    batch = Batch(torch.arange(12), streams, labels)

    def correlation(number: int) -> float:
        (one,) = model.epoch(number)
        torch.manual_seed(3)
        return float(one.losses(batch)["correlation"].detach())

    everything = correlation(1)
    assert not model.kept_weight.any()
    easy = correlation(2)
    assert torch.equal(model.kept_weight, model.weight)
    assert easy < 0.5 * everything
    assert int(model.fed) == 1
    assert not set(dict(model.named_buffers())) & set(model.state_dict())


def test_a_batch_of_a_single_pair_which_is_discarded_trains_on_the_task_alone():
    model = network()
    streams = {
        f"{m}/own": Ragged(torch.ones(n, 4).double(), torch.tensor([n, 0]))
        for m, n in zip(ORDER, (1, 1, 0), strict=True)
    }
    (one,) = model.epoch(2)
    terms = one.losses(Batch(torch.arange(2), streams, torch.zeros(2).double()))
    assert list(terms) == ["task"]
    assert terms["task"].isfinite()
