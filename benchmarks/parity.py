"""Whether the networks compute what their authors' code computes, to the last digits.

    python benchmarks/parity.py tests/data/baselines

FOLDER holds `recipe.py`, which makes weights and inputs from formulas and is run, so it is code
that you trust, and for each model an .npz of what the original modules gave: scores, intermediate
values, every term of the loss, gradients, and what changes from step to step. Each of our modules
is filled with the recipe's weights, in float64, and the worst difference of every quantity is
printed. Exit status 1 where one is above its bound, or where a model's file is not there.

A further model is a file in `parity_checks/` with a function that takes a `Golden` and yields
`Compared`, and a line in CHECKS.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from parity_checks import mag, mfm, mfn, mmim, self_mm, tpmsa
from parity_checks.golden import Compared, Golden

BOUND = 1e-9
BOUNDS: Mapping[str, float] = {"tpmsa": 2e-7}  # of models that cannot come as near
CHECKS: Mapping[str, Callable[[Golden], Iterator[Compared]]] = {
    "mfn": mfn.check,
    "mfm": mfm.check,
    "mag": mag.check,
    "self_mm": self_mm.check,
    "mmim": mmim.check,
    "tpmsa": tpmsa.check,
    "tpmsa1": tpmsa.check_first,
}


def parity(folder: Path) -> bool:
    """Print every quantity's worst difference; whether all are within their bounds."""
    within = True
    for model, check in CHECKS.items():
        if not (folder / f"{model}.npz").is_file():
            print(f"{model}: no {folder / model}.npz")
            within = False
            continue
        golden = Golden(folder, model)
        worst: dict[str, float] = {}
        for quantity, ours, theirs in check(golden):
            worst[quantity] = max(worst.get(quantity, 0.0), difference(ours, theirs))
        bound = BOUNDS.get(model, BOUND)
        for quantity, value in worst.items():
            print(f"{model:8} {quantity:40} {value:.1e}{'' if value <= bound else '  ABOVE'}")
        for name in golden.unread:
            print(f"{model:8} {name:40} not compared")
        within &= bool(worst) and all(value <= bound for value in worst.values())
    return within


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference of two tensors' elements; infinity where one is not comparable."""
    if ours.shape != theirs.shape:
        return float("inf")
    apart = (ours.detach().double() - theirs.double()).abs()
    return float(apart.max()) if apart.isfinite().all() else float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of recipe.py, which is run, and the .npz files")
    return 0 if parity(parser.parse_args().folder) else 1


if __name__ == "__main__":
    sys.exit(main())
