"""What an encoder is: one frozen network with its own preprocessing, and the list of those here.

To add one, write a class like those in `text.py`, `speech.py`, `clip.py`, `audioclip.py` or
`faces.py` and enter it in `_ENCODERS`; a profile then names it.
"""

from __future__ import annotations

import hashlib
import re
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipmsa.cache.errors import ProfileError, WeightsError

Precision = Literal["fp32", "bf16", "fp16"]
# Longer sound goes through an encoder in windows: its first convolutions take 27 MB a second.
# No clip of MOSI or MOSEI is that long.
WINDOW_SECONDS = 120.0
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

_ENCODERS = {
    "transformers-text": "text:TransformersText",
    "transformers-speech": "speech:TransformersSpeech",
    "open-clip-text": "clip:OpenClipText",
    "open-clip-image": "clip:OpenClipImage",
    "esresnext": "audioclip:AudioClipSound",
    "mtcnn-vgg": "faces:MtcnnVgg",
    "mtcnn-inception-resnet": "faces:MtcnnInceptionResnet",
}


class Encoder(ABC):
    """A frozen encoder: items of one kind in, rows of features out.

    `consumes` says what an item is: a `text` (str), a `waveform` ((samples,) float32 in [-1, 1] at
    `sample_rate`), or the `frames` of a clip (a list of arrays, each made by `prepare` from one
    (H, W, 3) uint8 RGB frame). Features of an item do not depend on the others in its batch.
    """

    modality: ClassVar[Literal["text", "audio", "vision"]]
    consumes: ClassVar[Literal["text", "waveform", "frames"]]
    level: Literal["utterance", "sequence"]
    sample_rate: int = 0  # Hz, of encoders that consume a waveform
    dim: int

    def __init__(self, module: nn.Module, device: torch.device, precision: Precision) -> None:
        self.module = module.to(device).eval().requires_grad_(False)
        self.device, self.precision = device, precision
        # Held while it encodes for one lane of several: tokenizers are not made for two threads.
        self.alone: AbstractContextManager[Any] = (
            threading.Lock() if self.consumes == "text" else nullcontext()
        )

    def prepare(self, frame: NDArray[np.uint8]) -> NDArray[Any]:
        """What to keep of a full-size frame; called as clips are decoded, to bound memory."""
        return frame

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.float32]]:
        """(T, dim) rows for every item; (1, dim) at utterance level; T may be 0."""
        with torch.inference_mode(), self._autocast():
            return [rows.float().cpu().numpy() for rows in self._encode(items)]

    @abstractmethod
    def _encode(self, items: Sequence[Any]) -> list[Tensor]: ...

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        if self.precision == "fp32":
            yield
        else:
            with torch.autocast(self.device.type, _AUTOCAST[self.precision]):
                yield

    def weights_digest(self) -> str:
        """SHA-256 of the parameters and buffers, for random weights, which no file vouches for."""
        digest = hashlib.sha256()
        for key, value in sorted(self.module.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class StatesEncoder(Encoder):
    """An encoder of a sequence, whose rows are read off the states of its last layer.

    They are one vector, or with `pooling = "none"` the states themselves.
    """

    states: ClassVar[str]  # what states are called: tokens, frames
    poolings: ClassVar[tuple[str, ...]]

    def __init__(self, module: nn.Module, device: torch.device, precision: Precision) -> None:
        super().__init__(module, device, precision)
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


def encoder_class(name: str) -> type[Encoder]:
    """An encoder's class by its name in a profile.

    Raises:
        ProfileError: no such encoder.
    """
    if name not in _ENCODERS:
        raise ProfileError(f"no encoder '{name}'; there are {', '.join(_ENCODERS)}")
    module, _, attribute = _ENCODERS[name].partition(":")
    found: type[Encoder] = getattr(import_module(f"clipmsa.extract.{module}"), attribute)
    return found


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


def read_state(path: Path) -> Mapping[str, Tensor]:
    """A checkpoint's tensors, from safetensors or torch's format; nothing in it is executed.

    Raises:
        WeightsError: not such a file.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # Mapped, only what an encoder takes is read: one AudioCLIP file serves three of them.
        mapped = zipfile.is_zipfile(path)  # torch's old format cannot be
        if mapped and _is_torchscript(path):
            raise WeightsError(
                f"{path}: a TorchScript archive, which is a program and not run here; OpenAI's own "
                f"CLIP files are such: take open_clip_model.safetensors of the same model from "
                f"Hugging Face, for RN50.pt timm/resnet50_clip.openai"
            )
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except WeightsError:
        raise
    except Exception as error:  # each format raises its own kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "weights only" in reason.lower() or "weights_only" in reason:
            reason = "it is damaged, or holds code"  # torch's text advises on how to run that
        raise WeightsError(f"{path}: not a checkpoint of plain tensors ({reason})") from None
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path}: holds a {type(state).__name__}, expected a state dict")
    return state


def _is_torchscript(archive: Path) -> bool:
    with zipfile.ZipFile(archive) as names:
        return any(name.endswith("/constants.pkl") for name in names.namelist())


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put a checkpoint's tensors into a module that must match it key for key.

    Raises:
        WeightsError: a key is missing or unknown, or a shape differs; names the file.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise WeightsError(f"{path}: does not fit the encoder: {' '.join(lines[1:3])}") from None


def in_batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
