"""What moved a score: co-attention maps, and scores with a modality or a frame withheld.

Withholding is what a missing modality is to the model: no rows in its streams, for which it has a
learned vector each. A contribution is the score minus the score without, so that contributions of
0.5 from text and -0.2 from vision read: the words made it more positive, the picture less.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipmsa.fusion.networks.clip_msa import ClipMSA
from clipmsa.fusion.networks.coattention import (
    CoAttentionStage,
    CoAttentionUnit,
    HierarchicalFusion,
)
from clipmsa.fusion.networks.network import roles_by_modality
from clipmsa.fusion.networks.ragged import Ragged
from clipmsa.fusion.networks.registry import Trainable
from clipmsa.fusion.training.data import FeatureData
from clipmsa.fusion.training.trainer import predict

Floats = NDArray[np.float64]
_FRAMES = 32  # copies of one utterance at once, each without another frame


@dataclass(frozen=True)
class CoAttentionMap:
    """One CT unit at one utterance: how the elements of x_1 attend to those of x_2 (Sec. 2.3.1).

    `weights` is softmax_q(a_i x_1p x_2q) of head i: its rows p, the elements of the modality that
    asks, sum to 1 over q, the elements of the one that is asked. `scales` is b_i of each head, so
    that h_p = sum_i scales_i sum_q weights_ipq x_2q.
    """

    asking: str  # x_1, such as "audio", or "audio+vision" for F_av
    asked: str  # x_2
    x_1: Tensor  # (d,)
    x_2: Tensor  # (d,)
    weights: Tensor  # (m, d, d)
    scales: Tensor  # (m,)


@torch.inference_mode()
def co_attention_maps(model: nn.Module, streams: Mapping[str, Ragged]) -> list[CoAttentionMap]:
    """The maps of every CT unit at one utterance, in the order they are computed.

    Four of them with three modalities: in the paper's order A<-V, V<-A, AV<-T and T<-AV. None for
    a model without co-attention (the paper's "w/o Co-Attn", and the baselines).

    Args:
        model: in eval mode.
        streams: of a batch of one utterance, by role.
    """
    sizes = {len(stream.lengths) for stream in streams.values()}
    if sizes != {1}:
        raise ValueError(f"streams hold {sorted(sizes)} utterances, must hold one")
    if isinstance(model, Trainable):
        streams = model.standardised(streams)
        model = model.network
    if not isinstance(model, ClipMSA) or not isinstance(model.fusion, HierarchicalFusion):
        return []
    fusion = model.fusion
    out = model.intermediates(streams)
    modalities = {modality: out[f"F_{modality}"] for modality in fusion.order}
    name, fused = fusion.order[0], modalities[fusion.order[0]]
    maps = []
    for stage, modality in zip(fusion.stages, fusion.order[1:], strict=True):
        assert isinstance(stage, CoAttentionStage)
        other = modalities[modality]
        maps.append(_map(stage.unit_12, name, modality, fused, other))
        maps.append(_map(stage.unit_21, modality, name, other, fused))
        name, fused = f"{name}+{modality}", stage(fused, other)
    return maps


def without(streams: Mapping[str, Ragged], modality: str) -> dict[str, Ragged]:
    """The streams of a batch by role, with no row left in those of one modality."""
    return {
        role: Ragged(stream.rows[:0], torch.zeros_like(stream.lengths))
        if role.startswith(f"{modality}/")
        else stream
        for role, stream in streams.items()
    }


def modality_contributions(
    models: Sequence[nn.Module],
    data: FeatureData,
    rows: Tensor,
    on_pass: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Floats]:
    """By modality, the score minus the score with that modality withheld: (models, n) each.

    `on_pass` is told after each pass over the rows how many are done, of how many.
    """
    modalities = list(roles_by_modality(data.roles))
    passes = [(), *((modality,) for modality in modalities)]
    total = len(passes) * len(models)
    scores = []
    for number, (withheld, model) in enumerate(itertools.product(passes, models), 1):
        scores.append(predict(model, data, rows, withheld))
        on_pass(number, total)
    whole, *without = np.split(np.stack(scores), len(passes))
    return {m: whole - less for m, less in zip(modalities, without, strict=True)}


@torch.inference_mode()
def frame_contributions(model: nn.Module, streams: Mapping[str, Ragged], role: str) -> Floats:
    """The score minus the score with one frame withheld, (T,), for each row of a stream.

    Args:
        model: in eval mode.
        streams: of a batch of one utterance, by role.
        role: the stream whose rows are withheld, such as "vision/clip".
    """
    T = int(streams[role].lengths.sum())
    whole = model(streams).double().cpu()
    changes = []
    for frames in torch.arange(T).split(_FRAMES):
        n = len(frames)
        copies = {
            key: Ragged(stream.rows.repeat(n, 1), stream.lengths.repeat(n))
            for key, stream in streams.items()
            if key != role
        }
        kept = (torch.arange(T) != frames[:, None]).nonzero()[:, 1]  # of each copy, all but one
        left = streams[role].rows[kept.to(streams[role].rows.device)]
        copies[role] = Ragged(left, torch.full((n,), T - 1))
        changes.append(whole - model(copies).double().cpu())
    out: Floats = torch.cat(changes).numpy() if changes else np.zeros(0)
    return out


def _map(
    unit: CoAttentionUnit, asking: str, asked: str, x_1: Tensor, x_2: Tensor
) -> CoAttentionMap:
    """As printed in the paper: width-1 tokens, so a head's logits are a_i x_1p x_2q."""
    a = (unit.W_Q * unit.W_K).sum(-1) * unit.W_Q.shape[1] ** -0.5
    b = (unit.W_V * unit.W_O).sum(-1)
    p, q = x_1[0], x_2[0]
    weights = torch.softmax(a[:, None, None] * p[:, None] * q, dim=-1)
    return CoAttentionMap(asking, asked, p.cpu(), q.cpu(), weights.cpu(), b.cpu())
