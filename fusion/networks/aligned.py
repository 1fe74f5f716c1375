"""All modalities on the same steps, as MFN, MFM and MAG take them: one step a row of the text.

Their papers cut sound and picture into the words' intervals. A store knows no word's time, so an
utterance's rows are averaged into as many bins as its text has rows, which are spread evenly over
them (adaptive averaging). That is this project's choice; MMSA's port repeats the last row until the
padded length divides, so that there what an utterance is given depends on the batch.

Text of one row (a pooled stream) leaves one step, and nothing to be recurrent over: token states,
which `extract --sequences` stores, are what these networks are meant for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .network import roles_by_modality
from .ragged import Ragged


class Aligned(nn.Module):
    """Streams by role -> one sequence a modality, (N, width), of the same lengths for all.

    A modality's row is those of its own and its CLIP stream side by side. The steps are the rows of
    the first modality that has streams (text, unless it is left out), of the longer of its two;
    every utterance has one at least. Where a stream has no rows, every step has a learned vector.
    """

    def __init__(self, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.roles = roles_by_modality(streams)
        self.missing = nn.ParameterDict({role: torch.zeros(s.dim) for role, s in streams.items()})
        self.widths = {m: sum(streams[r].dim for r in roles) for m, roles in self.roles.items()}

    def forward(self, streams: Mapping[str, Ragged]) -> dict[str, Ragged]:
        """Rows (N, width) by modality, where N is the sum of all utterances' steps."""
        leading = next(iter(self.roles.values()))
        steps = torch.stack([streams[role].lengths for role in leading]).amax(0).clamp(min=1)
        return {
            modality: Ragged(
                torch.cat([self._on(steps, role, streams[role]) for role in roles], dim=-1), steps
            )
            for modality, roles in self.roles.items()
        }

    def _on(self, steps: Tensor, role: str, stream: Ragged) -> Tensor:
        there = stream.lengths > 0
        if there.all():
            return averaged(stream, steps)
        missing = self.missing[role].to(stream.rows.dtype)
        if not there.any():
            return missing.expand(int(steps.sum()), -1)
        there_by_step = there.repeat_interleave(steps)[:, None].to(stream.rows.device)
        return torch.where(there_by_step, averaged(stream, steps), missing)


def averaged(stream: Ragged, steps: Tensor) -> Tensor:
    """Each utterance's rows averaged into `steps` (B,) bins: (sum of steps, D).

    Bin i of T, over R rows, is the mean of rows floor(i R / T) to ceil((i + 1) R / T) - 1, as in
    torch's adaptive_avg_pool1d. An utterance without rows gives zeros.
    """
    if torch.equal(stream.lengths, steps):
        return stream.rows
    R, T = stream.lengths.repeat_interleave(steps), steps.repeat_interleave(steps)
    i = torch.arange(len(T)) - (steps.cumsum(0) - steps).repeat_interleave(steps)
    first = (i * R).div(T, rounding_mode="floor")
    count = ((i + 1) * R + T - 1).div(T, rounding_mode="floor") - first
    first += (stream.lengths.cumsum(0) - stream.lengths).repeat_interleave(steps)
    bags = count.cumsum(0) - count
    rows = (first - bags).repeat_interleave(count)
    rows += torch.arange(len(rows))
    device = stream.rows.device
    return F.embedding_bag(rows.to(device), stream.rows, bags.to(device), mode="mean")
