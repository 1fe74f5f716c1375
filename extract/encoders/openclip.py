"""CLIP's text and image encoders through open_clip (paper, Sec. 2.2.1 and 2.2.3)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import Compose, Normalize
from transformers import dynamic_module_utils

from clipmsa.cache.errors import ProfileError, WeightsError
from clipmsa.extract.weights.tensors import load_strictly, read_state

from .encoder import Encoder, Setup, in_batches, seeded, sizes_of
from .fast_layers import OneQueryAttention, for_inference, with_winograd

_TEXT_BATCH = 64
_IMAGE_BATCH = 64
_CPU_IMAGE_BATCH = 8  # as much as stays in its cache


class OpenClipText(Encoder):
    """CLIP's text tower: the vector at the end token, projected, not L2-normalised.

    Texts longer than the context (77 tokens) are cut by CLIP's tokenizer.
    """

    modality = "text"
    consumes = "text"
    level = "utterance"

    def __init__(
        self,
        setup: Setup,
        *,
        architecture: str | Mapping[str, Any],
    ) -> None:
        model = _clip(setup, architecture)
        model.visual = nn.Identity()  # half the weights; this stream has no use for them
        super().__init__(setup, model)
        name = architecture if isinstance(architecture, str) else "RN50"
        with _quiet():
            self.tokenizer = open_clip.get_tokenizer(name, context_length=model.context_length)
        self.dim = self._embed([""]).shape[-1]

    def _encode(self, items: Sequence[str]) -> list[Tensor]:
        return [
            vector[None]
            for texts in in_batches(items, _TEXT_BATCH)
            for vector in self._embed(list(texts))
        ]

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> Tensor:
        model: Any = self.module
        vectors: Tensor = model.encode_text(self.tokenizer(texts).to(self.device))
        return vectors


class OpenClipImage(Encoder):
    """CLIP's image tower over whole frames: one vector a frame, not L2-normalised.

    `preprocess` is what a checkpoint's open_clip_config.json has as its preprocess_cfg, where that
    is not OpenAI's: mean, std, interpolation, resize_mode.
    """

    modality = "vision"
    consumes = "frames"
    level = "sequence"

    def __init__(
        self,
        setup: Setup,
        *,
        architecture: str | Mapping[str, Any],
        preprocess: Mapping[str, Any] | None = None,
    ) -> None:
        model = _clip(setup, architecture)
        tower = model.visual
        # Other towers may use a batch norm otherwise than after a convolution.
        if isinstance(tower, ModifiedResNet):
            tower = for_inference(tower)
            tower.attnpool = OneQueryAttention(tower.attnpool)
            if setup.device.type == "cpu" and setup.precision == "fp32":
                tower = with_winograd(tower)
        super().__init__(setup, tower.to(memory_format=torch.channels_last))
        chosen = {**open_clip.get_model_preprocess_cfg(model), **(preprocess or {})}
        settings = PreprocessCfg(**chosen)
        steps = image_transform_v2(settings, is_train=False).transforms
        if not isinstance(steps[-1], Normalize):
            raise ProfileError(
                f"stream '{setup.stream}': open_clip's preprocessing has changed its form"
            )
        # Resized pixels are kept as bytes; to floats and normalised only on the device.
        self._resize = Compose(steps[:-2])
        self._mean = torch.tensor(settings.mean, device=self.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(settings.std, device=self.device).view(1, 3, 1, 1) * 255
        size = settings.size if isinstance(settings.size, int) else settings.size[0]
        self.dim = self._embed([np.zeros((size, size, 3), np.uint8)]).shape[-1]

    def prepare(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) -> (size, size, 3): CLIP's own resizing and centre crop."""
        return np.asarray(self._resize(Image.fromarray(frame)))

    def _encode(self, items: Sequence[Sequence[NDArray[np.uint8]]]) -> list[Tensor]:
        frames = [frame for item in items for frame in item]
        if not frames:
            return [torch.empty(0, self.dim) for _ in items]
        size = _CPU_IMAGE_BATCH if self.device.type == "cpu" else _IMAGE_BATCH
        rows = torch.cat([self._embed(batch) for batch in in_batches(frames, size)])
        return list(torch.split(rows, [len(item) for item in items]))

    @torch.inference_mode()
    def _embed(self, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
        pixels = torch.from_numpy(np.stack(frames)).to(self.device).permute(0, 3, 1, 2)
        # NHWC bytes permuted to NCHW are channels_last already.
        vectors: Tensor = self.module((pixels.float() - self._mean) / self._std)
        return vectors


def _clip(setup: Setup, architecture: str | Mapping[str, Any]) -> Any:
    """An open_clip model in eval mode: by its name in open_clip, or from a table of sizes."""
    stream, checkpoint = setup.stream, setup.checkpoint
    with seeded(stream):
        if isinstance(architecture, str):
            if architecture not in open_clip.list_models():
                raise ProfileError(f"stream '{stream}': open_clip has no model '{architecture}'")
            with _quiet():
                model = open_clip.create_model(architecture, load_weights=False)
        else:
            model = open_clip.CLIP(**sizes_of(stream, architecture))
    if checkpoint is not None:
        state = read_state(checkpoint)
        _check_activation(checkpoint, state, architecture)
        load_strictly(model, clip_state_dict(state), checkpoint)
    return model.eval()


def _check_activation(
    checkpoint: Path, state: Mapping[str, Tensor], architecture: str | Mapping[str, Any]
) -> None:
    """Refuse weights trained with QuickGELU in a network with GELU, and the reverse.

    They fit key for key, and their features would be silently wrong. open_clip warns of it, though
    only where it loads the weights itself.
    """
    trained = _trained_with_quick_gelu(checkpoint, state)
    if isinstance(architecture, str):
        chosen: Mapping[str, Any] = open_clip.get_model_config(architecture)
        what = f"architecture '{architecture}'"
        other = f"{architecture}-quickgelu" if trained else architecture.removesuffix("-quickgelu")
        remedy = f"take '{other}'" if other in open_clip.list_models() else "take another"
    else:
        chosen, what = architecture, "the architecture"
        remedy = f"set quick_gelu = {str(trained).lower()}"
    built = bool(chosen.get("quick_gelu", False))
    if trained is None or trained == built:
        return
    names = {True: "QuickGELU", False: "GELU"}
    raise WeightsError(
        f"{checkpoint}: was trained with {names[trained]}, and {what} has {names[built]}: its "
        f"features would be silently wrong; {remedy}"
    )


def _trained_with_quick_gelu(checkpoint: Path, state: Mapping[str, Tensor]) -> bool | None:
    """Whether it was, by what lies beside the file, by its name, or by what it holds; None unknown.

    Names are those of open_clip's own list of checkpoints, and of folders and caches of the hub.
    """
    if any(key.startswith("audio.") for key in state):
        return True  # AudioCLIP, which began as OpenAI's
    with suppress(OSError, ValueError, AttributeError):
        beside = checkpoint.with_name("open_clip_config.json")
        said = json.loads(beside.read_text(encoding="utf-8")).get("model_cfg", {})
        return bool(said.get("quick_gelu", False))
    hub = next((part for part in checkpoint.parts if part.startswith("models--")), "")
    names = {checkpoint.name, checkpoint.parent.name, hub.rpartition("--")[2]}
    if any(name.endswith(".openai") or "quickgelu" in name for name in names):
        return True
    known = {_activations()[name] for name in names if name in _activations()}
    return known.pop() if len(known) == 1 else None


@cache
def _activations() -> Mapping[str, bool]:
    """Whether QuickGELU was trained with, by the repositories and files that open_clip lists."""
    found = {}
    for model, tag in open_clip.list_pretrained():
        listed = open_clip.get_pretrained_cfg(model, tag)
        for place in filter(None, (listed.get("hf_hub"), listed.get("url"))):
            found[place.rstrip("/").rpartition("/")[2]] = bool(listed.get("quick_gelu", False))
    return found


def clip_state_dict(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """CLIP's part of an AudioCLIP state dict, where its keys stand as in CLIP; others as they are.

    AudioCLIP's own entries are the audio tower and the scales of its two pairs. Nothing else is
    left out, so that a strict load still refuses what does not belong to CLIP.
    """
    if not any(key.startswith("audio.") for key in state):
        return state
    own = ("audio.", "logit_scale_ai", "logit_scale_at")
    return {key: value for key, value in state.items() if not key.startswith(own)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's log: it warns of random weights, which were asked for or are replaced.

    Some of its text towers and tokenizers come from the hub, through transformers: that does not
    get to ask whether a repository's code may run.
    """
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, [logging.NullHandler()]
    patience = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # seconds for the answer: it does not ask then
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = patience
        root.handlers = handlers
