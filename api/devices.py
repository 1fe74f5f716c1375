"""Which device to compute on, and how many processes to train with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from clipmsa.fusion.experiments.jobs import Resources


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU; other names are torch's own.

    Raises:
        DeviceError: no such device on this machine.
    """
    import torch

    from clipmsa.cache.errors import DeviceError

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"`device={name!r}`: not on this machine ({reason})") from None
    return device


def resources(device: str, engine: str = "local", workers: int | None = None) -> Resources:
    """What to train with: by default a seed a core on a CPU, and one at a time on a GPU or a
    cluster, since a GPU may not hold two stores. On a cluster GPUs have to be asked for: what this
    machine has says nothing about others.

    Raises:
        DeviceError: no such device on this machine.
        ConfigError: no such engine.
    """
    from clipmsa.fusion.experiments.jobs import Resources

    if engine != "local":
        return Resources("cpu" if device == "auto" else device, engine, workers or 1)
    chosen = pick_device(device)
    many = chosen.type == "cpu" and hasattr(os, "sched_getaffinity")
    return Resources(str(chosen), engine, workers or (len(os.sched_getaffinity(0)) if many else 1))
