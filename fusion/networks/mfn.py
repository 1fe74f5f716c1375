"""MFN: an LSTM for each modality, and a memory of what changes between them from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from clipmsa.cache import StreamSpec

from .aligned import Aligned
from .network import CHECKED, Dropout, Network, NetworkConfig, Width
from .ragged import Ragged


@dataclass(frozen=True, config=CHECKED)
class MemoryConfig(NetworkConfig):
    """Sizes of the LSTMs and the memory, and rates of the dropouts within their networks."""

    text_width: Width = 256  # of the modality's LSTM
    audio_width: Width = 32
    vision_width: Width = 256
    memory: Width = 400  # of u
    attention_hidden: Width = 32  # of D_a
    attention_dropout: Dropout = 0.2
    proposal_hidden: Width = 64  # of D_u
    proposal_dropout: Dropout = 0.0
    keep_hidden: Width = 256  # of D_1
    keep_dropout: Dropout = 0.7
    write_hidden: Width = 32  # of D_2
    write_dropout: Dropout = 0.5


@dataclass(frozen=True, config=CHECKED)
class MFNConfig(MemoryConfig):
    """Memory Fusion Network; sizes and rates of MMSA's configuration for MOSI."""

    network: str = "mfn"
    out_hidden: Width = 128  # of the predictor
    out_dropout: Dropout = 0.0


class MFN(Network):
    """Memory Fusion Network (Zadeh et al., AAAI 2018).

        y' = Linear(ReLU(Linear([h_t^T; h_a^T; h_v^T; u^T])))

    of the last states of the modalities' LSTMs and of the memory, which are a `MultiViewMemory`'s.
    Sequences are aligned to the text's rows, as `aligned.py` has it. Padding is masked: states are
    those of an utterance's own last step. In the authors' code, and in MMSA's port, they are those
    after the padding.
    """

    Config = MFNConfig

    def __init__(self, config: MFNConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.aligned = Aligned(streams)
        self.memory = MultiViewMemory(config, self.aligned.widths)
        self.out = mlp(self.memory.out_dim, config.out_hidden, 1, config.out_dropout)

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        score: Tensor = self.out(self.memory(self.aligned(streams)))
        return score.squeeze(-1)


class MultiViewMemory(nn.Module):
    """The Delta-memory Attention Network and the Multi-view Gated Memory (MFN, Sec. 3).

    At step s, with c the cell states of all modalities' LSTMs side by side, of width H in all:

        C = [c^{s-1}; c^s]    C_hat = softmax(D_a(C)) * C    u_hat = tanh(D_u(C_hat))
        g_1 = sigma(D_1([C_hat; u^{s-1}]))    g_2 = sigma(D_2([C_hat; u^{s-1}]))
        u^s = g_1 * u^{s-1} + g_2 * u_hat

    u, h and c start as 0. The softmax is over all 2 H entries. Each D is two layers with a ReLU and
    dropout between. That the gates see u as well as C_hat is the authors' code.
    """

    def __init__(self, config: MemoryConfig, widths: Mapping[str, int]) -> None:
        super().__init__()
        hidden = {
            "text": config.text_width,
            "audio": config.audio_width,
            "vision": config.vision_width,
        }
        self.cells = nn.ModuleDict({m: SteppedLSTM(dim, hidden[m]) for m, dim in widths.items()})
        H, M = sum(hidden[modality] for modality in widths), config.memory
        self.attention = mlp(2 * H, config.attention_hidden, 2 * H, config.attention_dropout)
        self.proposal = mlp(2 * H, config.proposal_hidden, M, config.proposal_dropout)
        self.keep = mlp(2 * H + M, config.keep_hidden, M, config.keep_dropout)
        self.write = mlp(2 * H + M, config.write_hidden, M, config.write_dropout)
        self.width, self.out_dim = M, H + M

    def forward(self, aligned: Mapping[str, Ragged]) -> Tensor:
        """Rows by modality, of the same lengths -> [h; u] after the own last one (B, H + M)."""
        return self.intermediates(aligned)[0]

    def intermediates(
        self, aligned: Mapping[str, Ragged]
    ) -> tuple[Tensor, dict[str, PackedSequence]]:
        """[h; u] (B, H + M), and every step's quantities by name.

        h.* and c.* of each modality, attention, u_hat, keep (g_1), write (g_2) and memory (u).
        """
        packed = {modality: rows.pack() for modality, rows in aligned.items()}
        runs = {modality: self.cells[modality](packed[modality]) for modality in self.cells}
        C = torch.cat(
            [run.c_before for run in runs.values()] + [run.c for run in runs.values()], dim=-1
        )
        attention = self.attention(C).softmax(-1)
        C_hat = attention * C
        u_hat = self.proposal(C_hat).tanh()

        first = next(iter(packed.values()))
        sizes = first.batch_sizes.tolist()
        u = C.new_zeros(sizes[0], self.width)
        steps: dict[str, list[Tensor]] = {"keep": [], "write": [], "memory": []}
        for C_s, u_s in zip(C_hat.split(sizes), u_hat.split(sizes), strict=True):
            n = len(C_s)
            seen = torch.cat([C_s, u[:n]], dim=-1)
            keep, write = self.keep(seen).sigmoid(), self.write(seen).sigmoid()
            new = keep * u[:n] + write * u_s
            u = torch.cat([new, u[n:]])
            for name, value in (("keep", keep), ("write", write), ("memory", new)):
                steps[name].append(value)
        rows = {
            **{f"h.{modality}": run.h for modality, run in runs.items()},
            **{f"c.{modality}": run.c for modality, run in runs.items()},
            "attention": attention,
            "u_hat": u_hat,
            **{name: torch.cat(values) for name, values in steps.items()},
        }
        assert first.unsorted_indices is not None
        last = torch.cat([run.h_last for run in runs.values()] + [u], dim=-1)
        return last.index_select(0, first.unsorted_indices), {
            name: first._replace(data=value) for name, value in rows.items()
        }


class Run(NamedTuple):
    """Of an LSTM over packed rows: h and c after each of them, and c before."""

    h: Tensor  # (N, width)
    c: Tensor
    c_before: Tensor
    h_last: Tensor  # (P, width) after each utterance's last row, in the order of the packing


class SteppedLSTM(nn.LSTMCell):
    """An LSTM of one layer that gives every step's cell state, which torch's keeps to itself."""

    def forward(self, packed: PackedSequence) -> Run:  # type: ignore[override]
        """Rows (N, in_dim) of P utterances, step by step."""
        sizes = packed.batch_sizes.tolist()
        driven = F.linear(packed.data, self.weight_ih, self.bias_ih)
        h = c = driven.new_zeros(sizes[0], self.hidden_size)
        hs, cs, before = [], [], []
        for driven_s in driven.split(sizes):
            n = len(driven_s)
            before.append(c[:n])
            i, f, g, o = (driven_s + F.linear(h[:n], self.weight_hh, self.bias_hh)).chunk(4, dim=1)
            cs.append(f.sigmoid() * c[:n] + i.sigmoid() * g.tanh())
            hs.append(o.sigmoid() * cs[-1].tanh())
            h, c = torch.cat([hs[-1], h[n:]]), torch.cat([cs[-1], c[n:]])
        return Run(torch.cat(hs), torch.cat(cs), torch.cat(before), h)


def mlp(in_dim: int, hidden: int, out_dim: int, dropout: float) -> nn.Sequential:
    """Two layers with a ReLU, and dropout after it, between."""
    return nn.Sequential(
        nn.Linear(in_dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out_dim)
    )
