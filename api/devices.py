"""Which device to compute on, and how many processes to train with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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


def default_workers(device: str) -> int:
    """A core for each seed; on a GPU one seed at a time, since it may not hold two stores."""
    on_cpu = pick_device(device).type == "cpu"
    return len(os.sched_getaffinity(0)) if on_cpu and hasattr(os, "sched_getaffinity") else 1
