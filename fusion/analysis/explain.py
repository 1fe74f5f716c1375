"""What moved a score: co-attention maps, and scores with a modality or a frame withheld.

Withholding is what a missing modality is to the model: no rows in its streams, for which it has a
learned vector each. A contribution is the score minus the score without, so that contributions of
0.5 from text and -0.2 from vision read: the words made it more positive, the picture less.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipmsa.fusion.networks.coattention import CoAttentionMap
from clipmsa.fusion.networks.network import Network, roles_by_modality
from clipmsa.fusion.networks.ragged import Ragged
from clipmsa.fusion.networks.registry import Trainable
from clipmsa.fusion.training.data import FeatureData
from clipmsa.fusion.training.trainer import predict

Floats = NDArray[np.float64]
_FRAMES = 32  # copies of one utterance at once, each without another frame


@torch.inference_mode()
def attention_maps(
    model: Trainable | Network, streams: Mapping[str, Ragged]
) -> list[CoAttentionMap]:
    """What attended to what at one utterance, in the order it is computed; of CLIP-MSA its CT
    units. None for a network that has no such maps.

    Args:
        model: in eval mode.
        streams: of a batch of one utterance, by role.
    """
    sizes = {len(stream.lengths) for stream in streams.values()}
    if sizes != {1}:
        raise ValueError(f"streams hold {sorted(sizes)} utterances, must hold one")
    return model.attention_maps(streams)


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
