"""Which module a configuration stands for: CLIP-MSA or a baseline, all over the same streams."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from clipmsa.cache import StreamSpec

from .baselines import LMF, TFN, MulT
from .config import LMFConfig, ModelConfig, MulTConfig, NetworkConfig, TFNConfig
from .model import ClipMSA


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
    raise AssertionError(f"no module for {config}")
