"""MAG: text states shifted by the sound and the picture that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .aligned import Aligned
from .branches import TransformerLayer
from .network import CHECKED, Dropout, Heads, Layers, Network, NetworkConfig, Width, check_heads
from .ragged import Padding, Ragged


@dataclass(frozen=True, config=CHECKED)
class MAGConfig(NetworkConfig):
    """Multimodal Adaptation Gate: beta and dropout of MMSA's configuration for MOSI; sizes ours."""

    network: str = "mag"
    d: Width = 128  # width that the text is projected to before the gate
    beta: Annotated[float, Field(gt=0, le=1_000)] = 1.0  # bound of the shift's share of the text
    gate_dropout: Dropout = 0.3
    layers: Layers = 1  # of the Transformer behind the gate
    heads: Heads = 4
    d_ff: Width = 256
    dropout: Dropout = 0.1  # of the Transformer and the predictor

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.d, self.heads)


class MAG(Network):
    """Multimodal Adaptation Gate (Rahman et al., ACL 2020), on frozen text.

    The original puts the gate under the first layer of a BERT that is tuned. Here the encoder of
    the text is frozen, and the gate is behind it: text states are projected to d, shifted by a
    `Gate`, and read by Transformer layers that are learned. The score is

        y' = Linear(Dropout(tanh(Linear(mean over an utterance's steps))))

    (BERT's pooler has the first token instead; not every encoder has one such.) Sound and picture
    are aligned to the text's rows (`aligned.py`), and padding is masked. Where text is left out,
    the first modality that is there takes its place.
    """

    Config = MAGConfig

    def __init__(self, config: MAGConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        d = config.d
        self.aligned = Aligned(streams)
        self.leading, *others = self.aligned.widths
        self.project = nn.Linear(self.aligned.widths[self.leading], d)
        widths = {modality: self.aligned.widths[modality] for modality in others}
        self.gate = Gate(d, widths, config.beta, config.gate_dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(d, config.heads, config.d_ff, config.dropout)
            for _ in range(config.layers)
        )
        self.out = nn.Sequential(
            nn.Linear(d, d), nn.Tanh(), nn.Dropout(config.dropout), nn.Linear(d, 1)
        )

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        aligned = self.aligned(streams)
        text, lengths = aligned[self.leading]
        x = self.gate(self.project(text), {m: aligned[m].rows for m in self.gate.shift})
        padding = Padding(lengths, x.device)
        for layer in self.layers:
            x = layer(x, padding)
        mean = padding.pad(x).sum(dim=1) / lengths[:, None].to(x.device)
        score: Tensor = self.out(mean)
        return score.squeeze(-1)


class Gate(nn.Module):
    """The gate itself, a row at a time, as the authors' code has it.

        g_m = ReLU(W_gm [m; t] + b_gm)    h = sum over m of g_m * (W_m m + b_m)
        alpha = min(beta ||t|| / ||h||, 1)    out = Dropout(LayerNorm(t + alpha h))

    for m = vision, audio. The paper adds one bias to h, outside of the gates.
    """

    def __init__(self, d: int, widths: Mapping[str, int], beta: float, dropout: float) -> None:
        super().__init__()
        self.beta = beta
        self.gates = nn.ModuleDict({m: nn.Linear(dim + d, d) for m, dim in widths.items()})
        self.shift = nn.ModuleDict({m: nn.Linear(dim, d) for m, dim in widths.items()})
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        """(..., d) and the same steps of the others, by modality -> (..., d)."""
        return self.intermediates(text, others)["out"]

    def intermediates(self, text: Tensor, others: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """g_* of each modality, h, norm_text, norm_h, alpha and out, by name."""
        g = {m: self.gates[m](torch.cat([x, text], dim=-1)).relu() for m, x in others.items()}
        h = torch.zeros_like(text)
        for m, x in others.items():
            h = h + g[m] * self.shift[m](x)
        norm_text = torch.linalg.vector_norm(text, dim=-1)
        norm_h = torch.linalg.vector_norm(h, dim=-1)
        norm_h = torch.where(norm_h == 0, 1.0, norm_h)
        alpha = (self.beta * norm_text / (norm_h + 1e-6)).clamp(max=1.0)
        out = self.dropout(self.norm(text + alpha[..., None] * h))
        return {
            **{f"g_{m}": value for m, value in g.items()},
            "h": h,
            "norm_text": norm_text,
            "norm_h": norm_h,
            "alpha": alpha,
            "out": out,
        }
