"""Device placement of every encoder, checked without a GPU.

Fake tensors carry a device and no data: an operation that mixes a stray CPU tensor with "cuda"
ones raises, as it would on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from clipmsa.extract.encoders.encoder import Encoder
from clipmsa.extract.engine.plan import Settings, plan_streams
from clipmsa.extract.profiles.profile import load_profile

pytestmark = pytest.mark.slow
PLANS = plan_streams(Settings(load_profile("tiny"), "random"))


def items_for(encoder: Encoder) -> list:
    if encoder.consumes == "text":
        return ["a fine film", "dull"]
    if encoder.consumes == "waveform":
        return [np.zeros(encoder.sample_rate, np.float32)] * 2
    frame = encoder.prepare(np.zeros((90, 120, 3), np.uint8))
    return [[frame, frame], [frame]]


def on_cuda(encoder: Encoder) -> None:
    """Move an encoder as its constructor would have put it on a GPU."""
    encoder.module.to("cuda")
    encoder.device = torch.device("cuda")
    for name, value in vars(encoder).items():
        if isinstance(value, torch.Tensor):
            setattr(encoder, name, value.to("cuda"))


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_no_tensor_of_an_encoder_stays_on_the_cpu(name, monkeypatch):
    encoder = PLANS[name].build()
    items = items_for(encoder)
    if hasattr(encoder, "_largest_faces"):  # MTCNN leaves torch for NumPy on the way
        box = np.array([10, 10, 60, 60], np.float32)
        monkeypatch.setattr(encoder, "_largest_faces", lambda frames: [box] * len(frames))
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_cuda(encoder)
        with torch.inference_mode():
            rows = encoder._encode(items)
    assert [row.device.type for row in rows] == ["cuda", "cuda"]
    assert all(row.shape[-1] == encoder.dim for row in rows)


def test_a_stray_cpu_tensor_would_be_noticed():
    encoder = PLANS["clip_image"].build()
    items = items_for(encoder)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_cuda(encoder)
        encoder._mean = encoder._mean.to("cpu")  # type: ignore[attr-defined]
        with torch.inference_mode(), pytest.raises(RuntimeError, match="same device"):
            encoder._encode(items)
