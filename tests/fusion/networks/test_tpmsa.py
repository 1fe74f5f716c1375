"""TPMSA: text first, then the rest beside text that stays."""

from __future__ import annotations

import copy

import pytest
import torch

from clipmsa.cache import StreamSpec
from clipmsa.fusion.networks import Batch, Ragged
from clipmsa.fusion.networks.tpmsa import TPMSA, TPMSAConfig
from clipmsa.fusion.training.config import TrainingConfig


def network(*modalities: str) -> TPMSA:
    torch.manual_seed(0)
    return TPMSA(
        TPMSAConfig(d=8, heads=2, d_ff=16, text_epochs=2),
        {f"{m}/own": StreamSpec(m, m, "own", "sequence", 12) for m in modalities},
    )


def batch(modalities: tuple[str, ...]) -> Batch:
    lengths = torch.tensor([2, 1, 3, 4])
    streams = {f"{m}/own": Ragged(torch.randn(10, 12), lengths) for m in modalities}
    return Batch(torch.arange(4), streams, torch.linspace(-2, 2, 4))


ALL = ("text", "audio", "vision")


def moved(model: TPMSA, number: int) -> set[str]:
    optimisers, before = model.optimisers(TrainingConfig()), copy.deepcopy(model.state_dict())
    (one,) = model.epoch(number)
    model.zero_grad(set_to_none=True)
    torch.stack([*one.losses(batch(ALL)).values()]).sum().backward()
    optimisers[one.optimiser].step()
    after = model.state_dict()
    return {key for key in after if not torch.equal(after[key], before[key])}


def test_phase_1_moves_text_and_its_head_and_phase_2_all_else():
    model = network(*ALL)
    names = {n for n, _ in model.named_parameters() if "missing" not in n}
    text = {n for n in names if n.startswith(("encoders.text", "first_head"))}
    assert moved(model, 2) == text
    assert moved(model, 3) == names - text


def test_no_epoch_of_phase_1_is_judged():
    assert [network(*ALL).judged(number) for number in (1, 2, 3, 4)] == [False, False, True, True]


@pytest.mark.parametrize(("epochs", "of_text"), [(1, 0), (2, 1), (3, 1), (4, 2), (9, 2)])
def test_phase_1_takes_half_of_a_short_schedule_at_most(epochs, of_text):
    model = network(*ALL)
    optimisers = model.optimisers(TrainingConfig(epochs=epochs))
    assert [model.judged(n + 1) for n in range(epochs)].count(False) == of_text
    assert len(optimisers) == (2 if of_text else 1)


def test_of_one_epoch_text_is_trained_with_the_rest():
    model = network(*ALL)
    (optimiser,) = model.optimisers(TrainingConfig(epochs=1))
    (one,) = model.epoch(1)
    before = copy.deepcopy(model.state_dict())
    torch.stack([*one.losses(batch(ALL)).values()]).sum().backward()
    optimiser.step()
    still = {k for k, v in model.state_dict().items() if torch.equal(v, before[k])}
    assert not [key for key in still if "text" in key and "missing" not in key]


def test_without_text_there_is_no_phase_1():
    model = network("audio", "vision")
    assert len(model.optimisers(TrainingConfig(epochs=1))) == 1
    assert model.judged(1)
    (one,) = model.epoch(1)
    assert set(one.losses(batch(("audio", "vision")))) == {"task", "audio", "vision"}
