"""`clipmsa demo`: the whole way in one command, on clips that it makes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipmsa.terminal import note

from . import extract, report, train

_SMALL = {"d": 64, "d_ff": 128, "epochs": 40, "patience": 12, "batch_size": 8}


def demo(
    clips: Annotated[int, typer.Option(min=12, help="How many clips to make.")] = 48,
    out: Annotated[Path, typer.Option(help="A folder for all it writes.")] = Path("demo"),
) -> None:
    """Make small real clips, extract them with the tiny profile, train, and write a report.

    The encoders are untrained and the clips are made so that a label can be learnt from each
    modality: this shows the way, and says nothing about the method.

    Example: clipmsa demo --clips 48 --out demo
    """
    from clipmsa.extract.datasets.demo import write_demo_dataset
    from clipmsa.judging import write_report
    from clipmsa.workflows import extract_features
    from clipmsa.workflows import train as run

    note("1/4 writing {} clips to {}", clips, out / "clips")
    write_demo_dataset(out / "clips", clips)
    store = out / "features.h5"
    note("2/4 extracting features with profile 'tiny' to {}", store)
    extract.show(
        extract_features(
            "demo", store, root=out / "clips", profile="tiny", weights="random", overwrite=True
        )
    )
    note("3/4 training three seeds")
    train.show(run(store, out / "run", settings=_SMALL, device="cpu", overwrite=True))
    note("4/4 writing a report")
    report.show(write_report(out / "run", out / "report.html", clips=out / "clips"))
