"""What an encoder is: one frozen network with its own preprocessing.

To add one, write a class like those beside this file; a profile then names it, by the name that
`registry.py` has for it or as `package.module:Class` (docs/extending.md).
"""

from __future__ import annotations

import hashlib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipmsa.cache.errors import ProfileError

Precision = Literal["fp32", "bf16", "fp16"]
# Longer sound goes through an encoder in windows: its first convolutions take 27 MB a second.
# No clip of MOSI or MOSEI is that long.
WINDOW_SECONDS = 120.0
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setup:
    """What every encoder is made with, whatever options it has of its own."""

    stream: str  # its name, on which random weights depend
    checkpoint: Path | None  # a file or a folder; None for random weights, or where it needs none
    device: torch.device
    precision: Precision


class Encoder(ABC):
    """A frozen encoder: items of one kind in, rows of features out.

    `consumes` says what an item is: a `text` (str), a `waveform` ((samples,) float32 in [-1, 1] at
    `sample_rate`), or the `frames` of a clip (a list of arrays, each made by `prepare` from one
    (H, W, 3) uint8 RGB frame). Features of an item do not depend on the others in its batch.

    A constructor takes a `Setup`, and keywords for the options that a profile may set; it gives its
    network to this one, and sets `dim`.
    """

    modality: ClassVar[Literal["text", "audio", "vision"]]
    consumes: ClassVar[Literal["text", "waveform", "frames"]]
    level: Literal["utterance", "sequence"]
    version: ClassVar[int] = 1  # raised when what it does to an item changes its features
    faces: ClassVar[bool] = False  # whether rows are faces, of those frames that have one
    weightless: ClassVar[bool] = False  # whether it needs no checkpoint, and is never untrained
    sample_rate: int = 0  # Hz, of encoders that consume a waveform
    dim: int

    def __init__(self, setup: Setup, module: nn.Module) -> None:
        self.module = module.to(setup.device).eval().requires_grad_(False)
        self.device, self.precision = setup.device, setup.precision
        # Held while it encodes for one lane of several: tokenizers are not made for two threads.
        self.alone: AbstractContextManager[Any] = (
            threading.Lock() if self.consumes == "text" else nullcontext()
        )

    def prepare(self, frame: NDArray[np.uint8]) -> NDArray[Any]:
        """What to keep of a full-size frame; called as clips are decoded, to bound memory."""
        return frame

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.float32]]:
        """(T, dim) rows for every item; (1, dim) at utterance level; T may be 0.

        Raises:
            ValueError: `_encode` has not given that.
        """
        with torch.inference_mode(), self._autocast():
            encoded = [rows.float().cpu().numpy() for rows in self._encode(items)]
        if len(encoded) != len(items):
            raise ValueError(f"gave features of {len(encoded)} items for {len(items)}")
        for rows in encoded:
            one = self.level == "utterance" and len(rows) != 1
            if rows.ndim != 2 or rows.shape[1] != self.dim or one:
                wanted = f"({'1' if self.level == 'utterance' else 'T'}, {self.dim})"
                raise ValueError(f"gave features of shape {rows.shape}, must be {wanted}")
        return encoded

    @abstractmethod
    def _encode(self, items: Sequence[Any]) -> list[Tensor]:
        """The rows of every item, on any device; `encode` brings them home."""

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        if self.precision == "fp32":
            yield
        else:
            with torch.autocast(self.device.type, _AUTOCAST[self.precision]):
                yield

    def weights_digest(self) -> str:
        """SHA-256 of the parameters and buffers, for those that no file vouches for; "" of none."""
        tensors = sorted(self.module.state_dict().items())
        digest = hashlib.sha256()
        for key, value in tensors:
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest() if tensors else ""


class StatesEncoder(Encoder):
    """An encoder of a sequence, whose rows are read off the states of its last layer.

    They are one vector, or with `pooling = "none"` the states themselves.
    """

    states: ClassVar[str]  # what states are called: tokens, frames
    poolings: ClassVar[tuple[str, ...]]

    def __init__(self, setup: Setup, module: nn.Module) -> None:
        super().__init__(setup, module)
        self._last: threading.local | None = None

    def read(self, stream: str, pooling: str) -> None:
        """Set what rows are.

        Raises:
            ProfileError: the encoder has no such pooling.
        """
        if pooling not in self.poolings:
            *others, last = self.poolings
            raise ProfileError(
                f"stream '{stream}': pooling is '{pooling}', must be {', '.join(others)} or {last}"
            )
        self.pooling = pooling
        self.level = "sequence" if pooling == "none" else "utterance"

    def sharing(self) -> Self:
        """Another encoder of the same network, to be read in another way.

        Of a batch that both are given, the network runs once.
        """
        self._last = self._last or threading.local()
        return copy(self)

    def _encode(self, items: Sequence[Any]) -> list[Tensor]:
        if self._last is None:
            return [self._rows(states) for states in self._states(items)]
        # Kept for each lane by itself: the items, compared by identity, and their states.
        known, states = getattr(self._last, "batch", ((), []))
        if len(known) != len(items) or any(a is not b for a, b in zip(known, items, strict=True)):
            states = self._states(items)
            self._last.batch = (tuple(items), states)
        return [self._rows(of_item) for of_item in states]

    @abstractmethod
    def _states(self, items: Sequence[Any]) -> list[Tensor]:
        """(T, dim) of every item."""

    @abstractmethod
    def _rows(self, states: Tensor) -> Tensor:
        """(T, dim) -> (1, dim), or the states that are kept."""


def states_name(stream: str, states: str) -> str:
    """What the stream of an encoder's states is called, beside that of its vectors."""
    return f"{stream}_{states}"


# Under such keys the libraries that build an encoder look up a model, its weights or code for it.
_PLACES = re.compile(r"^_|^hf_|^timm_|_implementation$|backbone|pretrained")
_WORD = re.compile(r"[\w.+-]*")  # "gelu"; no path, no address, no name of a repository


def sizes_of(stream: str, architecture: object) -> dict[str, Any]:
    """A copy of an `architecture` table that holds sizes and words, and nothing to go and get.

    Such a table may come out of a model's file, which anybody may have written.

    Raises:
        ProfileError: it is no table, or names a thing elsewhere.
    """
    if not isinstance(architecture, Mapping):
        raise ProfileError(f"stream '{stream}': architecture must be a table of sizes")
    for key, value in architecture.items():
        values = value if isinstance(value, list | tuple) else [value]
        words = [word for word in values if isinstance(word, str)]
        if _PLACES.search(key) or not all(map(_WORD.fullmatch, words)):
            raise ProfileError(
                f"stream '{stream}': architecture has {key} = {value!r}; a table is of sizes, and "
                f"nothing is fetched that it names"
            )
    return {
        key: sizes_of(stream, value) if isinstance(value, Mapping) else value
        for key, value in architecture.items()
    }


@contextmanager
def seeded(stream: str) -> Iterator[None]:
    """Draw random weights from a seed that depends on the stream's name alone."""
    seed = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:4], "big")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def in_batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
