"""TPMSA: text is learnt first and then stays; sound and picture attend to it, in two phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .branches import TransformerLayer, sinusoidal_positions
from .network import (
    CHECKED,
    Batch,
    Dropout,
    Heads,
    Layers,
    Losses,
    Network,
    NetworkConfig,
    Pass,
    Schedule,
    Steps,
    Weight,
    Width,
    adamw,
    check_heads,
    roles_by_modality,
)
from .ragged import Padding, Ragged

_ORDER = ("text", "vision", "audio")  # of [p_t; p_v; p_a]


@dataclass(frozen=True, config=CHECKED)
class TPMSAConfig(NetworkConfig):
    """Two-phase training; sizes, rates and weights of its authors' code."""

    network: str = "tpmsa"
    d: Width = 256  # of x_t, x_v and x_a, and of the encoders' feed-forward networks
    heads: Heads = 4  # of an interaction; an encoder has one
    d_ff: Width = 1024  # of an interaction
    interactions: Layers = 3  # k, all of them with the same weights
    dropout: Dropout = 0.1
    text_epochs: Steps = 10  # of phase 1; there up to 100 that tune BERT, and patience decides
    text_weight: Weight = 1.0  # w_t, of its own score's error in the loss
    vision_weight: Weight = 0.01  # w_v
    audio_weight: Weight = 0.05  # w_a

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.d, self.heads)


class Rows(NamedTuple):
    """Rows of a modality side by side: T of each utterance, of which some may be padding."""

    x: Tensor  # (B, T, d)
    padding: Tensor  # (B, T) bool, True where there is no row
    share: Tensor  # (B, T), of a row in the mean; 0 where there is none

    def mean(self) -> Tensor:
        """(B, d)."""
        return (self.share[..., None] * self.x).sum(1)


class TPMSA(Network):
    """Two-phase Multi-task Sentiment Analysis (Yang et al., IEEE/ACM TASLP 2022), by its code.

        x_t = Linear(text's rows)     x_m = Linear(TransformerLayer(rows + positions))   m = v, a
        k times, m = v, a:            x_m <- Interaction_m(x_m, x_t)
        p = mean of x over its rows   y_m = Linear_m(p_m)      y' = Linear([p_t; p_v; p_a])

    Phase 1, the first `text_epochs` epochs or half of a shorter schedule, trains text's Linear
    under a head of its own, which is of no use after it; no such epoch is judged. In phase 2 that
    Linear stays as it is, and the loss is y's error and, by their weights, those of y_t, y_v, y_a.

    What is ours. Text is frozen ("TPMSA (frozen text)"): phase 1 there tunes BERT, which is the
    larger part of its result, over as many epochs as help. The weights are constants. There they
    are parameters of a sum of errors, which only fall: w_v could turn negative and train its head
    away from the labels. y' is what predicts; there the code tests y_v, and whether the paper's
    table is of y_v or of y' cannot be told. Batches are any utterances (there one video's), errors
    SmoothL1 as every network's (there L1), the rate is the schedule's, which does not decay.
    Padding is masked in attention and means, where there it keeps weight. Dropout is on the sums of
    the encoders' layers, not within them. A stream wider than d is projected to d before its
    encoder, whose attention is as wide as the stream: published for widths of 74 at most.

    A modality's rows are those of its own stream and then those of its CLIP stream, each by layers
    of its own; a mean is over either stream's rows and then over the two. What is learned for a
    stream without rows is one row of x. Without text nothing is attended to, and there is no
    phase 1.
    """

    Config = TPMSAConfig

    def __init__(self, config: TPMSAConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        d, self.config = config.d, config
        self.roles = roles_by_modality(streams)
        self.encoders = nn.ModuleDict({r: Encoder(spec, config) for r, spec in streams.items()})
        self.interact = nn.ModuleDict(
            {m: Interaction(config) for m in self.roles if m != "text" and "text" in self.roles}
        )
        self.heads = nn.ModuleDict({m: nn.Linear(d, 1) for m in self.roles})
        self.out = nn.Linear(d * len(self.roles), 1)
        self.first_head = nn.Linear(d, 1) if "text" in self.roles else None
        self.text_epochs = config.text_epochs if "text" in self.roles else 0
        weights = {
            "text": config.text_weight,
            "vision": config.vision_weight,
            "audio": config.audio_weight,
        }
        self.weights = {modality: weights[modality] for modality in self.roles}

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores y' (B,)."""
        return self.intermediates(streams)["y"]

    def intermediates(self, streams: Mapping[str, Ragged]) -> dict[str, Tensor]:
        """x and, after each interaction k, crossK of each modality (B, T, d); y of each, and y."""
        rows = {modality: self._rows(modality, streams) for modality in self.roles}
        out = {f"x.{modality}": found.x for modality, found in rows.items()}
        for modality, interaction in self.interact.items():
            for k in range(1, self.config.interactions + 1):
                x = interaction(rows[modality], rows["text"])
                rows[modality] = rows[modality]._replace(x=x)
                out[f"cross{k}.{modality}"] = x
        p = {modality: rows[modality].mean() for modality in _ORDER if modality in rows}
        for modality, p_m in p.items():
            out[f"y.{modality}"] = self.heads[modality](p_m).squeeze(-1)
        out["y"] = self.out(torch.cat([*p.values()], dim=-1)).squeeze(-1)
        return out

    def first_score(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Of phase 1, by text alone: (B,)."""
        assert self.first_head is not None
        score: Tensor = self.first_head(self._rows("text", streams).mean())
        return score.squeeze(-1)

    def first(self, batch: Batch) -> Losses:
        """Of phase 1."""
        return {"text": F.smooth_l1_loss(self.first_score(batch.streams), batch.labels)}

    def losses(
        self, batch: Batch, error: Callable[[Tensor, Tensor], Tensor] = F.smooth_l1_loss
    ) -> Losses:
        """Of phase 2, each with its weight."""
        found = self.intermediates(batch.streams)
        own = {m: w * error(found[f"y.{m}"], batch.labels) for m, w in self.weights.items()}
        return {"task": error(found["y"], batch.labels), **own}

    def optimisers(self, schedule: Schedule) -> Sequence[torch.optim.Optimizer]:
        """One of phase 2 and, where there is text, one of phase 1.

        Phase 1 takes half of a short schedule at most. Of one epoch it takes none, and text's
        layers are trained with the rest.
        """
        self.text_epochs = min(self.text_epochs, schedule.epochs // 2)
        if self.text_epochs == 0:
            return [adamw(self.parameters(), schedule)]
        text = [p for module in self._text() for p in module.parameters()]
        first = {id(p) for p in text}
        rest = [p for p in self.parameters() if id(p) not in first]
        return [adamw(group, schedule) for group in (rest, text) if group]

    def epoch(self, number: int) -> Sequence[Pass]:
        """Phase 1's pass or phase 2's, in which text's layers are as phase 1 left them."""
        of_text = number <= self.text_epochs
        for module in self._text():
            module.requires_grad_(of_text or self.text_epochs == 0)
        return [Pass(self.first, 1) if of_text else Pass(self.losses)]

    def judged(self, number: int) -> bool:
        return number > self.text_epochs

    def _text(self) -> list[nn.Module]:
        """What phase 1 trains."""
        encoders = [self.encoders[role] for role in self.roles.get("text", ())]
        return encoders if self.first_head is None else [*encoders, self.first_head]

    def _rows(self, modality: str, streams: Mapping[str, Ragged]) -> Rows:
        """The rows of a modality's streams, one after the other."""
        parts = [self.encoders[role](streams[role]) for role in self.roles[modality]]
        x, padding, share = (torch.cat(of, dim=1) for of in zip(*parts, strict=True))
        return Rows(x, padding, share / len(parts))


class Encoder(nn.Module):
    """x of a stream: text's rows are projected, sound's and picture's read by a Transformer first.

    The Transformer layer is as wide as the stream, or d where that is less, and has one head.
    """

    def __init__(self, stream: StreamSpec, config: TPMSAConfig) -> None:
        super().__init__()
        d, width = config.d, stream.dim
        self.narrow: nn.Module = nn.Identity()
        self.layer: TransformerLayer | None = None
        if stream.modality != "text":
            if width > d:
                self.narrow, width = nn.Linear(width, d), d
            self.layer = TransformerLayer(width, 1, d, config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(width, d)
        self.missing = nn.Parameter(torch.zeros(d))

    def forward(self, stream: Ragged) -> Rows:
        """An utterance without rows has one, which is learned."""
        lengths = stream.lengths.clamp(min=1)
        padding = Padding(lengths, stream.rows.device)
        there = (stream.lengths > 0).repeat_interleave(lengths).nonzero().squeeze(1)
        x = self.missing.expand(int(lengths.sum()), -1)
        if len(there):
            x = x.index_put((there.to(x.device),), self.encode(stream))
        share = padding.mask.to(x.dtype) / lengths[:, None].to(x.device)
        return Rows(padding.pad(x), ~padding.mask, share)

    def encode(self, stream: Ragged) -> Tensor:
        """(N, dim) -> (N, d), of a batch with any rows."""
        x: Tensor = self.narrow(stream.rows)
        if self.layer is not None:
            padding = Padding(stream.lengths[stream.lengths > 0], x.device)
            positions = sinusoidal_positions(padding.T, x.shape[1], x.device, x.dtype)
            x = self.layer(self.dropout(x + positions.index_select(0, padding.step)), padding)
        out: Tensor = self.linear(x)
        return out


class Interaction(nn.Module):
    """A layer in which a modality attends to text, normalised after each part.

    z = Norm(x + MultiHead(x, x_t, x_t))        Norm'(z + FFN(z))
    """

    def __init__(self, config: TPMSAConfig) -> None:
        super().__init__()
        d = config.d
        self.attention = nn.MultiheadAttention(d, config.heads, batch_first=True)
        self.norm = nn.LayerNorm(d)
        self.ffn = nn.Sequential(nn.Linear(d, config.d_ff), nn.ReLU(), nn.Linear(config.d_ff, d))
        self.norm_ffn = nn.LayerNorm(d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, rows: Rows, text: Rows) -> Tensor:
        """-> (B, T, d) of the modality's rows."""
        h, _ = self.attention(
            rows.x, text.x, text.x, key_padding_mask=text.padding, need_weights=False
        )
        z = self.norm(rows.x + self.dropout(h))
        out: Tensor = self.norm_ffn(z + self.dropout(self.ffn(z)))
        return out
