"""Which module a configuration stands for: CLIP-MSA or a baseline, all over the same inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from clipmsa.cache import StreamSpec

from .clip_msa import ClipMSA, ModelConfig
from .misa import MISA, MISAConfig
from .mult import MulT, MulTConfig
from .network import NetworkConfig
from .ragged import Ragged
from .standardise import Standardise
from .tfn_lmf import LMF, TFN, LMFConfig, TFNConfig


class Trainable(nn.Module):
    """A network and, before it, the standardisation of its inputs.

    Whatever scores or explains goes through it, so that training, `predict`, `evaluate` and the
    report give every network, CLIP-MSA or baseline, the same inputs.
    """

    def __init__(self, config: NetworkConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.inputs = Standardise(streams) if config.normalise == "standard" else None
        self.network = build_network(config, streams)

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch, as the store has them -> scores (B,)."""
        score: Tensor = self.network(self.standardised(streams))
        return score

    def loss(self, streams: Mapping[str, Ragged], labels: Tensor) -> Tensor:
        """What training makes smaller: SmoothL1 (Sec. 2.4) and, of MISA, its own terms."""
        return training_loss(self.network, self.standardised(streams), labels)

    def standardised(self, streams: Mapping[str, Ragged]) -> Mapping[str, Ragged]:
        """What the network is given of a batch's streams."""
        return streams if self.inputs is None else self.inputs.forward(streams)


def build_network(config: NetworkConfig, streams: Mapping[str, StreamSpec]) -> nn.Module:
    """The network that a configuration names, not trained yet, over the streams by role.

    Every network takes a batch's streams by role (`Ragged`) and gives scores (B,).
    """
    match config:
        case ModelConfig():
            return ClipMSA(config, streams)
        case TFNConfig():
            return TFN(config, streams)
        case LMFConfig():
            return LMF(config, streams)
        case MulTConfig():
            return MulT(config, streams)
        case MISAConfig():
            return MISA(config, streams)
    raise AssertionError(f"no module for {config}")


def training_loss(network: nn.Module, streams: Mapping[str, Ragged], labels: Tensor) -> Tensor:
    """SmoothL1 of the scores (Sec. 2.4), for every network, and MISA's own terms."""
    if isinstance(network, MISA):
        scores, own = network.scores_and_own_loss(streams)
        return F.smooth_l1_loss(scores, labels) + own
    return F.smooth_l1_loss(network(streams), labels)
