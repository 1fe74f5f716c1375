"""A Ray cluster, for the engines of `extract` and `fusion`: connected to, or refused in seconds."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from .errors import ClipmsaError

_PATIENCE = 5.0  # seconds for a machine to take a connection; Ray itself tries on for minutes


def connect(address: str | None = None) -> Any:
    """The module `ray`, connected to a cluster: at an address as ray.init takes it; None is one
    that RAY_ADDRESS names or that is found here, or else is started here.

    Raises:
        ClipmsaError: Ray is not installed, or cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise ClipmsaError(
            "`engine='ray'` needs Ray, which is not installed: pip install 'clipmsa[ray]'"
        ) from None
    if not ray.is_initialized():
        try:
            _refuse_silence(address or os.environ.get("RAY_ADDRESS", ""))
            ray.init(
                address=address,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            where = address or os.environ.get("RAY_ADDRESS") or "auto"
            raise ClipmsaError(f"Ray cannot be reached at {where}: {reason}") from None
    return ray


def _refuse_silence(address: str) -> None:
    """Raise OSError if nobody listens at `[ray://]host:port`; other addresses have no port."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE):
            pass
