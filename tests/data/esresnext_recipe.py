"""Weights and waveforms of the ESResNeXt golden data, made from formulas instead of stored.

Random numbers come from `RandomState.random_sample`, numpy's frozen legacy generator, and go
through exactly rounded float64 arithmetic before one cast to float32, so they are the same bit for
bit everywhere. The casts also hide what sines and cosines may differ in the last bit.

`esresnext_golden.npz` holds what AudioCLIP's own encoder (commit 45327aa, torch 2.13.0, CPU) makes
of them: per variant, case and step a `.shape`, a `.sample` of 64 elements, `.mean` and `.std`, and
for some steps the `.full` tensor.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 44100
BINS = 1025
# "init" has the front end as training starts; "pert" moves it off the plain Fourier transform.
VARIANTS = ("init", "pert")

Array = NDArray[Any]


def uniform(name: str, shape: Sequence[int]) -> Array:
    """Float64 numbers in [-1, 1), seeded with the CRC-32 of `name`."""
    state = np.random.RandomState(zlib.crc32(name.encode()))
    return 2.0 * state.random_sample(tuple(shape)) - 1.0


def blackman_harris(n: int) -> Array:
    """Periodic 4-term Blackman-Harris window, float32."""
    phase = 2.0 * np.pi * np.arange(n, dtype=np.float64) / n
    rise = 0.35875 - 0.48829 * np.cos(phase)
    window = rise + 0.14128 * np.cos(2.0 * phase) - 0.01168 * np.cos(3.0 * phase)
    return window.astype(np.float32)


def fbsp_parameter(name: str, variant: str) -> Array:
    """The front end's `m`, `fb` or `fc`: all kinds of spline orders m in variant "pert"."""
    k = np.arange(BINS, dtype=np.float64)
    u = uniform("fbsp." + name, (BINS,)) * (variant == "pert")
    if name == "fb":
        value = 1.0 + 0.25 * u
    elif name == "fc":
        value = k + 0.3 * u
    elif variant == "init":
        value = np.zeros(BINS)
    else:
        kind = np.arange(BINS) % 8
        value = np.select(
            [kind == 1, kind == 3, kind == 5, kind == 7],
            [0.02 * u, -0.15 + 0.1 * u, 0.2 + 0.15 * u, 2.5 + u],
            default=np.where(kind % 4 == 0, 0.9 + 0.7 * u, 0.0),
        )
    return value.astype(np.float32)


def fill(key: str, shape: Sequence[int], variant: str) -> Array:
    """The value of one entry of the encoder's state dict."""
    leaf = key.rsplit(".", 1)[-1]
    if key == "window":
        return blackman_harris(shape[0])
    if key == "fbsp.bias":
        return np.zeros(shape, np.float32)
    if key.startswith("fbsp."):
        return fbsp_parameter(leaf, variant)
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)

    u = uniform(key, shape)
    stem = key.startswith("bn1.")
    if leaf == "weight" and len(shape) > 1:
        fan_in = float(np.prod(shape[1:]))
        variance = 1.0 if key == "fc.weight" else 2.0
        if len(shape) == 4 and shape[2] == shape[3] > 1:  # nearly blind to a constant image
            u = (u - 0.9 * u[:, :, ::-1, ::-1]) / np.sqrt(1.81)
        value: Array = u * np.sqrt(3.0 * variance / fan_in)
    elif leaf == "weight":
        value = (0.5 if key.endswith("bn3.weight") else 1.0) * (1.0 + 0.2 * u)
    elif leaf == "bias":
        value = 0.2 * u
        if key.startswith("att") and key.endswith("bn.bias"):
            value = value + 0.5
    elif leaf == "running_mean":
        value = (2.0 if stem else 0.1) * u
    elif leaf == "running_var":
        value = (100.0 if stem else 1.0) * (1.25 + 0.25 * u)
    else:
        raise KeyError(f"no rule for {key!r}")
    return value.astype(np.float32)


def fill_all(shapes: Mapping[str, Sequence[int]], variant: str) -> dict[str, Array]:
    """A whole state dict."""
    return {key: fill(key, shape, variant) for key, shape in shapes.items()}


def weights_sha256(arrays: Mapping[str, Array]) -> bytes:
    """Digest over the sorted keys: each key, then its array's little-endian bytes."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(key.encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.digest()


def _noise(seed: int, n: int) -> Array:
    return 2.0 * np.random.RandomState(seed).random_sample(n) - 1.0


def _chirp() -> Array:
    n = SAMPLE_RATE
    t = np.arange(n, dtype=np.float64) / SAMPLE_RATE
    phase = 2.0 * np.pi * (60.0 * t + 0.5 * (16000.0 - 60.0) * t * t)
    return np.rint(12000.0 * np.sin(phase) + 600.0 * _noise(101, n)).astype(np.float32)


def _noise_burst() -> Array:
    n = SAMPLE_RATE * 5 // 2
    i = np.arange(n, dtype=np.float64)
    ramp = 1.0 - np.abs(2.0 * ((i % 22050.0) / 22050.0) - 1.0)  # triangle, 2 Hz
    return (9000.0 * (0.1 + 0.9 * ramp) * _noise(202, n)).astype(np.float32)


def _sines() -> Array:
    n = SAMPLE_RATE * 5
    t = np.arange(n, dtype=np.float64) / SAMPLE_RATE
    x = 400.0 * _noise(303, n)
    for hertz, amplitude, beat in (
        (220.0, 6000.0, 0.7),
        (663.0, 4000.0, 1.1),
        (1765.0, 2500.0, 1.9),
        (5010.0, 1500.0, 2.3),
        (9333.0, 900.0, 3.1),
    ):
        swell = 0.6 + 0.4 * np.sin(2.0 * np.pi * beat * t)
        x = x + amplitude * swell * np.sin(2.0 * np.pi * hertz * t)
    return np.rint(x).astype(np.float32)


# Each makes a float32 (batch, channels, samples), int16 range, 44.1 kHz.
CASES: dict[str, Callable[[], Array]] = {
    "chirp_1s": lambda: _chirp()[None, None, :],
    "noise_2s5": lambda: _noise_burst()[None, None, :],
    "sines_5s": lambda: _sines()[None, None, :],
    "batch2_1s": lambda: np.stack([_chirp(), _noise_burst()[:SAMPLE_RATE]])[:, None, :],
    "stereo_1s": lambda: np.stack([_chirp(), _sines()[:SAMPLE_RATE]])[None, :, :],
    "short_1001": lambda: _sines()[None, None, 5000:6001],
    "floor_3000": lambda: np.full((1, 1, 3000), -0.5, np.float32),  # scales to exact zeros
}


def sample(array: Array, n: int = 64) -> Array:
    """`n` elements of the flattened array, evenly strided, first and last included."""
    flat: Array = np.asarray(array).reshape(-1)
    if flat.size <= n:
        return flat
    return flat[(np.arange(n, dtype=np.int64) * (flat.size - 1)) // (n - 1)]
