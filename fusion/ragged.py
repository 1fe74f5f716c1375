"""Rows of several utterances, one after another, with how many each one has.

The store keeps features this way, batches keep it, and only the Transformer pads. An
utterance-level stream is the case where every length is 1, or 0 where the modality is missing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Ragged(NamedTuple):
    """`rows` (N, D), utterances one after another; `lengths` (B,) int64 on the CPU, sum N."""

    rows: Tensor
    lengths: Tensor

    @property
    def present(self) -> Tensor:
        """Which utterances have any row, as indices into the batch, on the rows' device."""
        return self.lengths.nonzero().squeeze(1).to(self.rows.device)

    def pad(self) -> tuple[Tensor, Tensor]:
        """Utterances with rows only: (P, T, D) filled with zeros, and its mask (P, T)."""
        lengths = self.lengths[self.lengths > 0].to(self.rows.device)
        T = int(self.lengths.max())
        mask = torch.arange(T, device=self.rows.device) < lengths[:, None]
        padded = self.rows.new_zeros(len(lengths), T, self.rows.shape[1])
        padded[mask] = self.rows
        return padded, mask

    def split(self) -> tuple[Tensor, ...]:
        """One (T, D) tensor for each utterance with rows."""
        return torch.split(self.rows, self.lengths[self.lengths > 0].tolist())
