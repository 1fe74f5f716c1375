"""Rows of several utterances, one after another, with how many each one has.

The store keeps features this way, batches keep it, and only attention pads. An utterance-level
stream is the case where every length is 1, or 0 where the modality is missing. Lengths stay on the
CPU, and with them all that depends on them, so that a GPU never has to be waited for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


class Ragged(NamedTuple):
    """`rows` (N, D), utterances one after another; `lengths` (B,) int64 on the CPU, sum N."""

    rows: Tensor
    lengths: Tensor

    @property
    def present(self) -> Tensor:
        """Which utterances have any row, as indices into the batch, on the rows' device."""
        return self.lengths.nonzero().squeeze(1).to(self.rows.device)

    def pack(self) -> PackedSequence:
        """Utterances with rows only, step by step, as torch's recurrent layers take them.

        Their rows are reordered in one gather; torch's own `pack_sequence` pads them first.
        """
        lengths = self.lengths[self.lengths > 0]
        order = lengths.argsort(descending=True, stable=True)
        start = (lengths.cumsum(0) - lengths)[order]
        step = torch.arange(int(lengths.max()))[:, None]
        running = step < lengths[order]  # (T, P): which utterances still have a row at each step
        index = (start + step)[running].to(self.rows.device)
        return PackedSequence(
            self.rows.index_select(0, index),
            running.sum(1),
            order.to(self.rows.device),
            order.argsort().to(self.rows.device),
        )


class Padding:
    """Where the rows of P utterances, each with at least one, go in a (P, T) rectangle."""

    def __init__(self, lengths: Tensor, device: torch.device) -> None:
        self.P, self.T = len(lengths), int(lengths.max())
        step = torch.arange(self.T)
        mask = step < lengths[:, None]
        self.mask = mask.to(device)  # (P, T), True where there is a row
        self.step = step.expand(self.P, -1)[mask].to(device)  # (N,), a row's number in its own
        self._place = mask.flatten().nonzero().squeeze(1).to(device)  # (N,)

    def pad(self, rows: Tensor) -> Tensor:
        """(N, D) -> (P, T, D), zeros where there is no row."""
        flat = rows.new_zeros(self.P * self.T, rows.shape[1])
        return flat.index_copy(0, self._place, rows).view(self.P, self.T, -1)

    def unpad(self, padded: Tensor) -> Tensor:
        """(P, T, D) -> (N, D)."""
        return padded.flatten(0, 1).index_select(0, self._place)
