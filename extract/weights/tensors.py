"""Weights from a file into a module: read without running anything, and every one of them used."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from clipmsa.cache.errors import WeightsError


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
