"""`clipmsa demo`: the whole way in one command, on clips that it makes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipmsa.cli.console import note

from .extract import run_extract
from .report import write_report
from .train import run_train


def demo(
    clips: Annotated[int, typer.Option(min=12, help="How many clips to make.")] = 48,
    out: Annotated[Path, typer.Option(help="A folder for all it writes.")] = Path("demo"),
) -> None:
    """Make small real clips, extract them with the tiny profile, train, and write a report.

    The encoders are untrained and the clips are made so that a label can be learnt from each
    modality: this shows the way, and says nothing about the method.

    Example: clipmsa demo --clips 48 --out demo
    """
    from clipmsa.cache import FeatureStore
    from clipmsa.extract.datasets.demo import write_demo_dataset
    from clipmsa.extract.datasets.read import read_dataset
    from clipmsa.extract.engine.plan import Settings
    from clipmsa.extract.profiles.profile import load_profile
    from clipmsa.fusion.training.config import RunConfig, configured

    note("1/4 writing {} clips to {}", clips, out / "clips")
    write_demo_dataset(out / "clips", clips)
    manifest = read_dataset("demo", out / "clips")
    store = out / "features.h5"
    note("2/4 extracting features with profile 'tiny' to {}", store)
    settings = Settings(load_profile("tiny"), weights="random")
    run_extract(manifest, store, settings, overwrite=True)
    note("3/4 training three seeds")
    config = configured(
        RunConfig(), settings=["d=64", "d_ff=128", "epochs=40", "patience=12", "batch_size=8"]
    )
    seeds = [1111, 1112, 1113]
    run_train(FeatureStore(store), config, out / "run", seeds, "cpu", overwrite=True)
    note("4/4 writing a report")
    write_report([out / "run"], out / "report.html", clips=out / "clips")
