"""MMIM: a fusion that keeps what its modalities share and what each of them says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .branches import Branch, MeanBranch, VectorBranch
from .network import (
    CHECKED,
    Batch,
    Dropout,
    Losses,
    Network,
    NetworkConfig,
    Pass,
    Schedule,
    Weight,
    Width,
    adamw,
)
from .ragged import Ragged
from .vectors import ModalityVectors

_COLUMNS = 4  # of h_m, to one of the projection that H is estimated in
BoundedWidth = Annotated[int, Field(ge=_COLUMNS, le=16_384)]


@dataclass(frozen=True, config=CHECKED)
class MMIMConfig(NetworkConfig):
    """MultiModal InfoMax; sizes and weights of its authors' code, which are MMSA's too."""

    network: str = "mmim"
    audio_width: BoundedWidth = 16  # of h_a
    vision_width: BoundedWidth = 16  # of h_v
    audio_hidden: Width = 16  # of the LSTM
    vision_hidden: Width = 16
    bidirectional: bool = True  # MMSA's; the authors' published command has one direction
    z: Width = 128  # width of Z, and of the layers of the fusion
    dropout: Dropout = 0.1  # of [h_t; h_a; h_v]
    alpha: Weight = 0.1  # of L_CPC in the loss
    beta: Weight = 0.1  # of L_BA


@plain_dataclass
class Memory:
    """Of one pass: how many batches it has seen, and the last one's E+ and E- by modality."""

    batches: int = 0
    classes: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class MMIM(Network):
    """MultiModal InfoMax (Han, Chen, Poria, EMNLP 2021).

        h_t = text's vector     h_m = Linear([last states of an LSTM])   for m = a, v
        Z = tanh(W_2 tanh(W_1 [h_t; h_a; h_v]))      y' = W_3 Z
        loss = L_task + alpha L_CPC + beta L_BA

    L_BA is less a lower bound on the information that text has of sound and of pictures (`Bound`),
    L_CPC how badly Z tells each modality's vector of its utterance from those of the batch's others
    (`prediction_loss`). An epoch is two passes, each with its own optimiser: the first makes the
    bounds tight, by their mu and s alone and without labels; the second trains all else by the
    whole loss, through bounds that stay as they are. H is in the loss from a pass's third batch on.
    That the first pass is over half of MOSEI's batches in the authors' code is not done.

    What is ours. Text is frozen ("MMIM (frozen text)"), its vector the mean of each of its streams:
    there BERT is tuned, here the bound only draws h_a and h_v towards text. The task's loss is
    SmoothL1, as every network's (there L1), the optimisers are AdamW by the schedule's rate, which
    no plateau halves. The projection that H is estimated in stays as it starts. So it is in the
    authors' code, where no optimiser ever has a gradient for it, but that under their torch weight
    decay shrinks it in every step, so that log det falls without end: a slip, not taken over. A
    class with too few rows for its covariance to be regular has log det -inf: H is then left out
    for that batch. Bounds and predictions are of utterances that have the modalities they are of.
    """

    Config = MMIMConfig

    def __init__(self, config: MMIMConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.config = config
        self.vectors = ModalityVectors(streams, partial(_branch, config))
        of = {"audio": config.audio_width, "vision": config.vision_width}
        widths = {m: of.get(m, width) for m, width in self.vectors.widths.items()}
        self.project = nn.ModuleDict(
            {m: nn.Linear(self.vectors.widths[m], of[m]) for m in widths if m in of}
        )
        self.bounds = nn.ModuleDict(
            {m: Bound(widths["text"], of[m]) for m in self.project if "text" in widths}
        )
        self.predict = nn.ModuleDict({m: nn.Linear(config.z, w) for m, w in widths.items()})
        self.dropout = nn.Dropout(config.dropout)
        self.fuse = nn.Sequential(
            nn.Linear(sum(widths.values()), config.z),
            nn.Tanh(),
            nn.Linear(config.z, config.z),
            nn.Tanh(),
        )
        self.out = nn.Linear(config.z, 1)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch -> scores (B,)."""
        return self.intermediates(streams)["y"]

    def intermediates(self, streams: Mapping[str, Ragged]) -> dict[str, Tensor]:
        """h by modality (B, width), Z (B, z) and y (B,)."""
        h = {
            modality: self.project[modality](x) if modality in self.project else x
            for modality, x in self.vectors(streams).items()
        }
        z = self.fuse(self.dropout(torch.cat([*h.values()], dim=-1)))
        return {**h, "Z": z, "y": self.out(z).squeeze(-1)}

    def losses(self, batch: Batch) -> Losses:
        """The terms of the second pass, as of its first batch."""
        return self.second(batch, Memory())

    def epoch(self, number: int) -> Sequence[Pass]:
        """First the bounds, where there are any, then the rest; the memory starts empty."""
        second = Pass(partial(self.second, memory=Memory()))
        return [Pass(self.first, 1), second] if self.bounds else [second]

    def optimisers(self, schedule: Schedule) -> Sequence[torch.optim.Optimizer]:
        """One of all but the bounds; one of the bounds' mu and s."""
        tight = [p for bound in self.bounds.values() for p in _bound(bound).tightened()]
        bounds = {id(p) for p in self.bounds.parameters()}
        rest = [p for p in self.parameters() if id(p) not in bounds]
        return [adamw(group, schedule) for group in (rest, tight) if group]

    def first(self, batch: Batch) -> Losses:
        """Of the first pass: less the likelihood of h_a and h_v given text."""
        found = self.intermediates(batch.streams)
        return {"likelihood": -self._likelihood(found, self._both(batch))}

    def second(
        self,
        batch: Batch,
        memory: Memory,
        error: Callable[[Tensor, Tensor], Tensor] = F.smooth_l1_loss,
    ) -> Losses:
        """Of the second pass, each with its weight; `memory` then holds this batch's classes."""
        alpha, beta = self.config.alpha, self.config.beta
        found, both = self.intermediates(batch.streams), self._both(batch)
        terms = {"task": error(found["y"], batch.labels)}
        terms["prediction"] = alpha * self._prediction(found, batch)
        if self.bounds:
            terms["bound"] = -beta * self._likelihood(found, both)
            entropy = self._entropy(found, both, batch.labels, memory)
            if memory.batches > 1 and entropy is not None:
                terms["entropy"] = -beta * entropy
        memory.batches += 1
        return terms

    def _both(self, batch: Batch) -> dict[str, Tensor]:
        """By modality of a bound: the utterances that have it and text, as indices."""
        present = self.vectors.present(batch.streams)
        return {m: _rows(present["text"] & present[m], batch.labels.device) for m in self.bounds}

    def _likelihood(self, found: Mapping[str, Tensor], both: Mapping[str, Tensor]) -> Tensor:
        of = [
            _bound(bound).likelihood(found["text"][both[m]], found[m][both[m]])
            for m, bound in self.bounds.items()
        ]
        return torch.stack(of).sum()

    def _prediction(self, found: Mapping[str, Tensor], batch: Batch) -> Tensor:
        total = found["y"].new_zeros(())
        for modality, mask in self.vectors.present(batch.streams).items():
            rows = _rows(mask, total.device)
            if len(rows):
                g = self.predict[modality](found["Z"][rows])
                total = total + prediction_loss(found[modality][rows], g)
        return total

    def _entropy(
        self,
        found: Mapping[str, Tensor],
        both: Mapping[str, Tensor],
        labels: Tensor,
        memory: Memory,
    ) -> Tensor | None:
        """The sum of H over the bounds, those that can be estimated; None where none can."""
        of = []
        for modality, bound in self.bounds.items():
            e = _bound(bound).project(found[modality][both[modality]])
            y = labels[both[modality]]
            classes = (e[y > 0], e[y < 0])
            earlier = memory.classes.get(modality)
            memory.classes[modality] = (classes[0].detach(), classes[1].detach())
            if earlier is not None:
                pairs = zip(earlier, classes, strict=True)
                entropy = entropy_of([torch.cat(pair) for pair in pairs])
                of += [] if entropy is None else [entropy]
        return torch.stack(of).sum() if of else None


class Bound(nn.Module):
    """Barber and Agakov's lower bound on the information that x has of y (MMIM, Sec. 3.3).

        I(x; y) >= H(y) + E log q(y | x),     q = Normal(mu(x), exp(s(x)))

    With the authors' code, log q is without its log-variance and its constant, and H is of what
    `project` makes of y, a Gaussian in each class of labels.
    """

    def __init__(self, x: int, y: int) -> None:
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(x, y), nn.ReLU(), nn.Linear(y, y))
        self.s = nn.Sequential(nn.Linear(x, y), nn.ReLU(), nn.Linear(y, y))
        self.project = nn.Sequential(nn.Linear(y, y // _COLUMNS), nn.Tanh())

    def likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """Of (n, |x|) and (n, |y|), the mean over n; 0 where n is."""
        each = -((self.mu(x) - y) ** 2) / (2 * self.s(x).exp())
        mean: Tensor = each.sum() / max(1, len(x))
        return mean

    def tightened(self) -> list[nn.Parameter]:
        """What the first pass trains."""
        return [*self.mu.parameters(), *self.s.parameters()]


def entropy_of(classes: Sequence[Tensor]) -> Tensor | None:
    """H = mean over the two classes of 1/2 log det of their covariance (MMIM, Sec. 3.3).

    Without a Gaussian's constants. The covariances, of rows (n, k) each, are divided by n; None
    where one is singular, as it is in a class of no more than k rows.
    """
    halves = []
    for rows in classes:
        if len(rows) <= rows.shape[1]:
            return None
        centred = rows - rows.mean(0)
        halves.append(torch.logdet(centred.T @ centred / len(rows)) / 2)
    entropy = torch.stack(halves).mean()
    return entropy if entropy.isfinite() else None


def prediction_loss(h: Tensor, g: Tensor) -> Tensor:
    """Contrastive predictive coding: which prediction g (n, d) is of which vector h (n, d).

    Both of length 1, no temperature. For an h, the sum runs over the g of all utterances, as in the
    authors' code.
    """
    scores = F.normalize(h, dim=-1) @ F.normalize(g, dim=-1).T
    return F.cross_entropy(scores, torch.arange(len(h), device=h.device))


class LastStates(Branch):
    """A sequence's last state of an LSTM, with two directions [forward; backward]."""

    def __init__(self, in_dim: int, hidden: int, bidirectional: bool) -> None:
        super().__init__((2 if bidirectional else 1) * hidden)
        self.lstm = nn.LSTM(in_dim, hidden, bidirectional=bidirectional)

    def encode(self, stream: Ragged) -> Tensor:
        _, (h_n, _) = self.lstm(stream.pack())
        last: Tensor = h_n.transpose(0, 1).flatten(1)
        return last


def _branch(config: MMIMConfig, stream: StreamSpec) -> Branch:
    if stream.modality == "text":
        return MeanBranch(stream.dim)
    if stream.level == "utterance":
        return VectorBranch(stream.dim)
    audio = stream.modality == "audio"
    hidden = config.audio_hidden if audio else config.vision_hidden
    return LastStates(stream.dim, hidden, config.bidirectional)


def _bound(module: nn.Module) -> Bound:
    assert isinstance(module, Bound)
    return module


def _rows(mask: Tensor, device: torch.device) -> Tensor:
    return mask.nonzero().squeeze(1).to(device)
