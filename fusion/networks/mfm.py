"""MFM: one code for what all modalities say together and one for each, and sequences from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .aligned import Aligned
from .mfn import MemoryConfig, MultiViewMemory, mlp
from .network import CHECKED, Batch, Dropout, Losses, Network, Weight, Width
from .ragged import Padding, Ragged


@dataclass(frozen=True, config=CHECKED)
class MFMConfig(MemoryConfig):
    """Multimodal Factorization Model; sizes, rates and weights of MMSA's configuration for MOSI."""

    network: str = "mfm"
    text_width: Width = 128  # of the LSTMs under the memory
    audio_width: Width = 32
    vision_width: Width = 128
    memory: Width = 64
    attention_hidden: Width = 32
    attention_dropout: Dropout = 0.7
    proposal_hidden: Width = 64
    proposal_dropout: Dropout = 0.0
    keep_hidden: Width = 32
    keep_dropout: Dropout = 0.0
    write_hidden: Width = 64
    write_dropout: Dropout = 0.5
    z_y: Width = 80  # code of all modalities
    z_text: Width = 64  # code of the modality, and width of the LSTM that it comes from
    z_audio: Width = 80
    z_vision: Width = 80
    f_y: Width = 64  # factor of all modalities, which the score is made from
    f_text: Width = 32  # factor of the modality
    f_audio: Width = 16
    f_vision: Width = 64
    f_y_dropout: Dropout = 0.5  # between the two layers from the code to the factor
    f_text_dropout: Dropout = 0.5
    f_audio_dropout: Dropout = 0.7
    f_vision_dropout: Dropout = 0.5
    out_dropout: Dropout = 0.0  # of the predictor
    mmd: Weight = 100.0  # of the codes' discrepancy from a normal distribution, in the loss
    text_reconstruction: Weight = 0.5
    audio_reconstruction: Weight = 0.01
    vision_reconstruction: Weight = 0.5


class Factors(NamedTuple):
    """Of a batch, by modality and "y": codes z and factors f, (B, width) each."""

    z: dict[str, Tensor]
    f: dict[str, Tensor]


class MFM(Network):
    """Multimodal Factorization Model (Tsai et al., ICLR 2019).

        z_m = Linear(h_m)    z_y = Linear(MFN's [h; u])    f_k = ReLU(Linear(ReLU(Linear(z_k))))
        y' = MLP(f_y)        x'_m = decoder_m([f_y; f_m])

    where h_m is an LSTM's last state. Training adds `own_losses`: a decoder must give a modality's
    rows again, and every code be normally distributed. It draws a normal sample in each step;
    prediction draws nothing. The paper asks for one discrepancy, of all codes together; the
    authors' code, and this, sum one for each.

    Sequences are aligned as MFN's are (`aligned.py`), and padding takes no part: an encoder stops
    at an utterance's own last step, and rows that are not there need not be given again. In the
    authors' code a decoder learns the zeros of the padding.
    """

    Config = MFMConfig

    def __init__(self, config: MFMConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.aligned = Aligned(streams)
        widths = self.aligned.widths
        z = {"text": config.z_text, "audio": config.z_audio, "vision": config.z_vision}
        f = {"text": config.f_text, "audio": config.f_audio, "vision": config.f_vision}
        dropout = {
            "text": config.f_text_dropout,
            "audio": config.f_audio_dropout,
            "vision": config.f_vision_dropout,
        }
        self.mmd = config.mmd
        self.reconstruction = {
            "text": config.text_reconstruction,
            "audio": config.audio_reconstruction,
            "vision": config.vision_reconstruction,
        }
        self.memory = MultiViewMemory(config, widths)
        self.encoders = nn.ModuleDict({m: nn.LSTM(dim, z[m]) for m, dim in widths.items()})
        self.codes = nn.ModuleDict({m: nn.Linear(z[m], z[m]) for m in widths})
        self.codes["y"] = nn.Linear(self.memory.out_dim, config.z_y)
        self.factors = nn.ModuleDict({m: mlp(z[m], f[m], f[m], dropout[m]) for m in widths})
        self.factors["y"] = mlp(config.z_y, config.f_y, config.f_y, config.f_y_dropout)
        self.decoders = nn.ModuleDict(
            {m: Decoder(config.f_y + f[m], dim) for m, dim in widths.items()}
        )
        self.out = mlp(config.f_y, config.f_y, 1, config.out_dropout)

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        z_y = self.codes["y"](self.memory(self.aligned(streams)))
        return self._scores(self.factors["y"](z_y).relu())

    def losses(self, batch: Batch) -> Losses:
        """SmoothL1 (the original has L1), and MFM's own terms with their weights."""
        aligned = self.aligned(batch.streams)
        of = self.intermediates(aligned)
        task = F.smooth_l1_loss(self._scores(of.f["y"]), batch.labels)
        normal = {k: torch.randn_like(z) for k, z in of.z.items()}
        discrepancies = [discrepancy(z, normal[k]) for k, z in of.z.items()]
        errors = self.errors(batch.streams, aligned, self.decoded(of, aligned))
        reconstruction = [self.reconstruction[m] * error for m, error in errors.items()]
        return {
            "task": task,
            "reconstruction": torch.stack(reconstruction).sum(),
            "mmd": self.mmd * torch.stack(discrepancies).sum(),
        }

    def intermediates(self, aligned: Mapping[str, Ragged]) -> Factors:
        """Rows by modality, of the same lengths -> codes and factors."""
        z = {m: self.codes[m](self._last(m, rows)) for m, rows in aligned.items()}
        z["y"] = self.codes["y"](self.memory(aligned))
        return Factors(z, {k: self.factors[k](code).relu() for k, code in z.items()})

    def decoded(self, of: Factors, aligned: Mapping[str, Ragged]) -> dict[str, Tensor]:
        """x' by modality, (N, width), for as many steps as each utterance has."""
        return {
            m: self.decoders[m](torch.cat([of.f["y"], of.f[m]], dim=-1), rows.lengths)
            for m, rows in aligned.items()
        }

    def errors(
        self,
        streams: Mapping[str, Ragged],
        aligned: Mapping[str, Ragged],
        decoded: Mapping[str, Tensor],
    ) -> Losses:
        """By modality, the mean square of x' - x over the rows and columns that are not missing."""
        out = {}
        for modality, roles in self.aligned.roles.items():
            x, steps = aligned[modality]
            total, count, column = x.new_zeros(()), 0, 0
            for role in roles:
                columns = slice(column, column := column + self.aligned.missing[role].shape[0])
                there = (streams[role].lengths > 0).repeat_interleave(steps)
                rows = there.nonzero().squeeze(1).to(x.device)
                apart = (decoded[modality][:, columns] - x[:, columns]).index_select(0, rows)
                total, count = total + apart.square().sum(), count + apart.numel()
            out[modality] = total / max(1, count)
        return out

    def _last(self, modality: str, rows: Ragged) -> Tensor:
        _, (h_n, _) = self.encoders[modality](rows.pack())
        last: Tensor = h_n.squeeze(0)
        return last

    def _scores(self, f_y: Tensor) -> Tensor:
        score: Tensor = self.out(f_y)
        return score.squeeze(-1)


class Decoder(nn.Module):
    """A modality's rows from the factors: an LSTM that is fed what it gave last."""

    def __init__(self, width: int, out_dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(width, width)
        self.out = nn.Linear(width, out_dim)

    def forward(self, factors: Tensor, lengths: Tensor) -> Tensor:
        """[f_y; f_m] (B, width) -> rows (N, out_dim), of each utterance as `lengths` says."""
        padding = Padding(lengths, factors.device)
        given = factors
        state = (torch.zeros_like(factors), torch.zeros_like(factors))
        steps = []
        for _ in range(padding.T):
            state = self.lstm(given, state)
            given = state[0]
            steps.append(given)
        rows: Tensor = self.out(padding.unpad(torch.stack(steps, dim=1)))
        return rows


def discrepancy(z: Tensor, normal: Tensor) -> Tensor:
    """MMD of a batch of codes (B, n) and as many draws of N(0, 1), over all pairs."""
    return kernel(normal, normal) + kernel(z, z) - 2 * kernel(normal, z)


def kernel(p: Tensor, q: Tensor) -> Tensor:
    """The mean over pairs of exp(-||p_i - q_j||^2 / n^2), n the width: so the authors' code has it.

    A row is paired with itself too where p is q.
    """
    squares = p.square().sum(1)[:, None] + q.square().sum(1) - 2 * p @ q.T
    return torch.exp(-squares / p.shape[1] ** 2).mean()
