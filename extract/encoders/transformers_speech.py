"""Speech through a transformers encoder: wav2vec 2.0, mean over time (paper, Sec. 2.2.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Wav2Vec2FeatureExtractor

from clipmsa.cache.errors import ProfileError

from .encoder import WINDOW_SECONDS, Setup, StatesEncoder
from .transformers_models import (
    load_features,
    load_pretrained,
    random_model,
    receptive_field,
    vectors_of,
)


class TransformersSpeech(StatesEncoder):
    """Any transformers speech encoder over raw waveforms; one vector, the mean over its frames.

    With `pooling = "none"` a sequence: the frames themselves, or the means of those in each
    1 / `rate` seconds. Clips run one at a time: wav2vec 2.0 base normalises over time in its first
    layer, so that padding a batch would change its features even under an attention mask. What is
    longer than two minutes runs in windows of one length, whose frames are put together.
    """

    modality = "audio"
    consumes = "waveform"
    states = "frames"
    poolings = ("mean", "none")

    def __init__(
        self,
        setup: Setup,
        *,
        pooling: Literal["mean", "none"] = "mean",
        rate: float | None = None,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        self.read(setup.stream, pooling, rate)
        if setup.checkpoint is None:
            model = random_model(vectors_of(setup.stream, self.states, pooling), architecture)
            self.features = Wav2Vec2FeatureExtractor()
        else:
            model = load_pretrained(setup.checkpoint)
            self.features = load_features(setup.checkpoint)
        if not hasattr(model.config, "conv_kernel"):
            raise ProfileError(
                f"stream '{setup.stream}': {type(model).__name__} does not take waveforms as "
                f"wav2vec 2.0"
            )
        super().__init__(setup, model)
        self.sample_rate = int(self.features.sampling_rate)
        self.dim = int(model.config.hidden_size)
        self.shortest = receptive_field(model.config.conv_kernel, model.config.conv_stride)
        self.step = math.prod(model.config.conv_stride)  # samples from one frame to the next

    def read(self, stream: str, pooling: str, rate: float | None = None) -> None:
        if rate is not None and (pooling != "none" or not rate > 0):
            raise ProfileError(
                f"stream '{stream}': rate is {rate}; it must be above 0, and goes with pooling none"
            )
        super().read(stream, pooling)
        self.rate = rate

    def _states(self, items: Sequence[NDArray[np.float32]]) -> list[Tensor]:
        return [self._frames(waveform) for waveform in items]

    def _frames(self, waveform: NDArray[np.float32]) -> Tensor:
        """(samples,) -> (T, dim)."""
        # Shorter than one frame: the convolutions would have nothing to give.
        waveform = np.pad(waveform, (0, max(0, self.shortest - len(waveform))))
        values = self.features(waveform, sampling_rate=self.sample_rate, return_tensors="pt")
        values = values["input_values"].to(self.device)
        windows = windows_of(len(waveform), self.shortest, self.step, self.sample_rate)
        states = [self.module(values[:, window]).last_hidden_state[0] for window in windows]
        return states[0] if len(states) == 1 else torch.cat(states)

    def _rows(self, states: Tensor) -> Tensor:
        if self.pooling == "mean":
            return states.mean(dim=0, keepdim=True)
        if self.rate is None:
            return states
        middles = np.arange(len(states)) * self.step + self.shortest / 2
        windows = np.floor(middles / self.sample_rate * self.rate)
        _, counts = np.unique(windows, return_counts=True)
        parts = torch.split(states, counts.tolist())
        return torch.stack([part.mean(dim=0) for part in parts])


def windows_of(samples: int, shortest: int, step: int, rate: int) -> list[slice]:
    """Where to cut a waveform that is too long for one run, so that each frame is in one window.

    Args:
        shortest, step: samples that a frame sees, and from one frame to the next.

    >>> windows_of(16000, 400, 320, 16000)
    [slice(0, None, None)]
    >>> windows_of(200 * 16000, 400, 320, 16000)
    [slice(0, 1599760, None), slice(1599680, None, None)]
    """
    frames = (samples - shortest) // step + 1
    count = max(1, math.ceil(samples / rate / WINDOW_SECONDS))
    edges = [frames * number // count for number in range(count + 1)]
    windows = [slice(a * step, (b - 1) * step + shortest) for a, b in pairwise(edges)]
    return [*windows[:-1], slice(windows[-1].start, None)]
