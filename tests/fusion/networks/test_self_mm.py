"""What Self-MM keeps of its training; its figures are in test_parity.py."""

from __future__ import annotations

import torch

from clipmsa.fusion.networks.self_mm import MadeLabels


def made(labels: list[float]) -> MadeLabels:
    out = MadeLabels({"fusion": 2, "audio": 2}, 3.0, True)
    out.begin(torch.tensor(labels))
    return out


def updated(of: MadeLabels, epoch: int, there: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(epoch)
    features = {"fusion": torch.rand(4, 2), "audio": torch.rand(4, 2)}
    of.update(torch.arange(4), features, {"audio": there}, epoch)
    return of.labels("audio").clone()


ALL = torch.ones(4, dtype=torch.bool)


def test_labels_move_from_the_second_epoch_on_and_within_their_limit():
    labels = made([1.0, -1.0, 2.0, -3.0])
    assert updated(labels, 1, ALL).tolist() == [1.0, -1.0, 2.0, -3.0]
    moved = updated(labels, 2, ALL)
    assert (moved != torch.tensor([1.0, -1.0, 2.0, -3.0])).any()
    assert moved.abs().max() <= 3


def test_a_class_without_members_keeps_all_labels():
    labels = made([1.0, 1.0, 2.0, 0.0])
    updated(labels, 1, ALL)
    assert updated(labels, 2, ALL).tolist() == [1.0, 1.0, 2.0, 0.0]


def test_an_utterance_without_the_modality_keeps_its_label_and_is_in_no_class():
    labels = made([1.0, -1.0, 2.0, -3.0])
    updated(labels, 1, ALL)
    before = labels.get_buffer("feature_audio").clone()
    there = torch.tensor([True, True, False, True])
    moved = updated(labels, 2, there)
    assert moved[2] == 2.0
    assert (moved[[0, 1, 3]] != torch.tensor([1.0, -1.0, -3.0])).any()
    now = labels.get_buffer("feature_audio")
    assert torch.equal(now[2], before[2])
    positive = (labels.labels("audio") > 0) & there
    torch.testing.assert_close(labels.centres("audio")[0], now[positive].mean(0))


def test_what_training_keeps_is_in_no_checkpoint():
    assert made([1.0, -1.0]).state_dict() == {}
