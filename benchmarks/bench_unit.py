"""How fast the CT unit is in its collapsed form, against the equations as printed.

    python benchmarks/bench_unit.py

Prints JSON: milliseconds of forward and backward at B = 32, d = 128, m = 8, and their ratio.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from clipmsa.fusion import CoAttentionUnit

B, D, HEADS, REPEATS = 32, 128, 8, 20


def as_printed(unit: CoAttentionUnit, x1: Tensor, x2: Tensor) -> Tensor:
    """h of the paper's equations, line by line: (B, d), (B, d) -> (B, d)."""
    d_h = unit.W_Q.shape[1]
    heads = []
    for W_Q, W_K, W_V in zip(unit.W_Q, unit.W_K, unit.W_V, strict=True):
        Q, K, V = x1[..., None] * W_Q, x2[..., None] * W_K, x2[..., None] * W_V
        heads.append(torch.softmax(Q @ K.transpose(1, 2) / d_h**0.5, dim=-1) @ V)
    return torch.cat(heads, dim=-1) @ unit.W_O.reshape(-1)


def milliseconds(step: Callable[[], None]) -> float:
    step()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def main() -> None:
    torch.manual_seed(0)
    unit = CoAttentionUnit(D, HEADS, 2 * D)
    x1 = torch.randn(B, D, requires_grad=True)
    x2 = torch.randn(B, D, requires_grad=True)
    printed = milliseconds(lambda: as_printed(unit, x1, x2).square().sum().backward())
    collapsed = milliseconds(lambda: unit.attention(x1, x2).square().sum().backward())
    print(
        json.dumps(
            {
                "as_printed_ms": round(printed, 2),
                "collapsed_ms": round(collapsed, 2),
                "ratio": round(printed / collapsed, 1),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
