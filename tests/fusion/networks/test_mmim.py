"""MMIM: two passes, a memory, and what is left out where it cannot be estimated."""

from __future__ import annotations

import copy

import torch

from clipmsa.cache import StreamSpec
from clipmsa.fusion.networks import Batch, Network, Ragged
from clipmsa.fusion.networks.mmim import MMIM, MMIMConfig, entropy_of
from clipmsa.fusion.training.config import TrainingConfig


def network(*modalities: str) -> MMIM:
    torch.manual_seed(0)
    return MMIM(
        MMIMConfig(audio_width=4, vision_width=8, z=6, dropout=0.0),
        {f"{m}/own": StreamSpec(m, m, "own", "sequence", 5) for m in modalities},
    )


def batch(lengths: dict[str, list[int]], seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    streams = {}
    for m, of in lengths.items():
        streams[f"{m}/own"] = Ragged(torch.randn(sum(of), 5, generator=generator), torch.tensor(of))
    n = len(next(iter(lengths.values())))
    return Batch(torch.arange(n), streams, torch.linspace(-2.5, 2.6, n))


WHOLE = {m: [2, 1, 3] * 4 for m in ("text", "audio", "vision")}


def moved(model: Network, number: int) -> list[set[str]]:
    """Of each pass of an epoch of four batches: which parameters it moves."""
    optimisers = model.optimisers(TrainingConfig())
    out = []
    for one in model.epoch(number):
        before = copy.deepcopy(model.state_dict())
        for seed in range(4):
            model.zero_grad(set_to_none=True)
            torch.stack([*one.losses(batch(WHOLE, seed)).values()]).sum().backward()
            optimisers[one.optimiser].step()
        after = model.state_dict()
        out.append({key for key in after if not torch.equal(after[key], before[key])})
    return out


def test_the_first_pass_moves_the_bounds_and_the_second_all_else_but_the_projection():
    model = network("text", "audio", "vision")
    first, second = moved(model, 1)
    names = {name for name, _ in model.named_parameters()}
    bounds = {name for name in names if ".mu." in name or ".s." in name}
    assert first == bounds
    assert second == {n for n in names - bounds if ".project.0" not in n and "missing" not in n}


def test_entropy_is_in_the_loss_from_the_third_batch_of_every_epoch():
    model = network("text", "audio", "vision")
    for number in (1, 2):
        second = model.epoch(number)[-1]
        found = ["entropy" in second.losses(batch(WHOLE, seed)) for seed in range(4)]
        assert found == [False, False, True, True]


def test_a_class_whose_covariance_is_singular_has_no_entropy():
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double()
    found = entropy_of([rows, 2 * rows])
    assert found is not None
    assert found.isfinite()
    assert entropy_of([rows, rows[:3]]) is None
    assert entropy_of([rows, torch.ones(9, 3).double()]) is None


def test_a_bound_and_a_prediction_are_of_those_that_have_the_modality():
    model = network("text", "vision")
    whole = batch({"text": [1] * 6, "vision": [2, 0, 1, 2, 0, 3]})
    there = torch.tensor([0, 2, 3, 5])
    some = Batch(
        there,
        {
            "text/own": Ragged(whole.streams["text/own"].rows[there], torch.ones(4).long()),
            "vision/own": Ragged(whole.streams["vision/own"].rows, torch.tensor([2, 1, 2, 3])),
        },
        whole.labels[there],
    )
    torch.testing.assert_close(model.first(whole), model.first(some))
    none = batch({"text": [1] * 6, "vision": [0] * 6})
    assert float(model.first(none)["likelihood"].detach()) == 0
    assert all(term.isfinite() for term in model.losses(none).values())


def test_without_text_there_is_one_pass():
    model = network("audio", "vision")
    assert len(model.epoch(1)) == len(model.optimisers(TrainingConfig())) == 1
    assert set(model.losses(batch({m: WHOLE[m] for m in ("audio", "vision")}))) == {
        "task",
        "prediction",
    }
