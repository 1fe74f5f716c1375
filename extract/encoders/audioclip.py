"""Sound through AudioCLIP's ESResNeXt, trained jointly with CLIP (paper, Sec. 2.2.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipmsa.cache.errors import ProfileError, WeightsError
from clipmsa.extract.weights.tensors import load_strictly, read_state

from .encoder import WINDOW_SECONDS, Encoder, Setup, seeded
from .esresnext import ESResNeXt, audio_state_dict
from .fast_layers import for_inference


class AudioClipSound(Encoder):
    """The `audio.*` part of an AudioCLIP checkpoint; one vector, not L2-normalised.

    Clips run one at a time: the network pools over all frames without a mask, so padding a batch
    would change its features. What is longer than two minutes runs in windows of one length; the
    vector is their mean.
    """

    modality = "audio"
    consumes = "waveform"
    level = "utterance"
    sample_rate = 44100

    def __init__(
        self,
        setup: Setup,
        *,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            with seeded(setup.stream):
                model = ESResNeXt(**(architecture or {}))
        except ValueError as error:
            raise ProfileError(f"stream '{setup.stream}': architecture: {error}") from None
        if setup.checkpoint is not None:
            full = read_state(setup.checkpoint)
            try:
                audio = audio_state_dict(full)
            except WeightsError as error:
                raise WeightsError(f"{setup.checkpoint}: {error}") from None
            load_strictly(model, audio, setup.checkpoint)
        super().__init__(setup, for_inference(model))
        self.dim = model.fc.out_features

    def _encode(self, items: Sequence[NDArray[np.float32]]) -> list[Tensor]:
        return [self._vector(torch.from_numpy(item)[None].to(self.device)) for item in items]

    def _vector(self, waveform: Tensor) -> Tensor:
        """(1, samples) -> (1, dim)."""
        count = math.ceil(waveform.shape[1] / self.sample_rate / WINDOW_SECONDS)
        if count <= 1:
            vector: Tensor = self.module(waveform)
            return vector
        windows = waveform.tensor_split(count, dim=1)
        return torch.stack([self.module(window) for window in windows]).mean(dim=0)
