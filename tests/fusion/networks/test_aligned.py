"""All modalities on the text's steps."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clipmsa.cache import StreamSpec
from clipmsa.fusion.networks.aligned import Aligned, averaged
from clipmsa.fusion.networks.ragged import Ragged


def test_bins_are_those_of_adaptive_average_pooling_whatever_the_lengths():
    rows = [5, 3, 7, 6, 12, 1, 11]
    steps = [5, 5, 5, 5, 4, 3, 1]
    x = torch.randn(sum(rows), 3, dtype=torch.float64)
    out = averaged(Ragged(x, torch.tensor(rows)), torch.tensor(steps))
    expected = [
        F.adaptive_avg_pool1d(own.T[None], T)[0].T
        for own, T in zip(x.split(rows), steps, strict=True)
    ]
    torch.testing.assert_close(out, torch.cat(expected))


def test_steps_are_the_texts_and_what_is_missing_is_the_learned_vector():
    aligned = Aligned(
        {
            "text/own": StreamSpec("t", "text", "own", "sequence", 2),
            "text/clip": StreamSpec("c", "text", "clip", "utterance", 1),
            "vision/own": StreamSpec("v", "vision", "own", "sequence", 2),
        }
    )
    with torch.no_grad():
        for vector in aligned.missing.values():
            vector.fill_(7.0)
    out = aligned(
        {
            "text/own": Ragged(torch.ones(3, 2), torch.tensor([3, 0])),
            "text/clip": Ragged(torch.zeros(2, 1), torch.tensor([1, 1])),
            "vision/own": Ragged(torch.tensor([[4.0, 2.0], [0.0, 6.0]]), torch.tensor([0, 2])),
        }
    )
    assert out["text"].lengths.tolist() == out["vision"].lengths.tolist() == [3, 1]
    assert out["text"].rows.tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 0], [7, 7, 0]]
    assert out["vision"].rows.tolist() == [[7, 7], [7, 7], [7, 7], [2, 4]]
