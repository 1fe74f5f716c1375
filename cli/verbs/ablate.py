"""`clipmsa ablate`: many variants, or baselines, over one store -> one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipmsa.cli.console import warn_drawn, warn_empty, warn_untrained
from clipmsa.cli.options import (
    SEEDS,
    Config,
    Device,
    Features,
    Replace,
    Seeds,
    Settings,
    Trainers,
    Trust,
    parse_seeds,
)
from clipmsa.terminal import note
from clipmsa.terminal import out as stdout


def ablate(
    features: Features,
    variants: Annotated[
        str, typer.Option(help="table2, table1, or names and TOML files separated by commas.")
    ] = "table2",
    seeds: Seeds = SEEDS,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the runs go.", show_default="runs/NAME-ablate or -table1"),
    ] = None,
    config: Config = None,
    settings: Settings = None,
    device: Device = "auto",
    engine: Annotated[
        str, typer.Option(help="local, or ray: a cluster, on CPUs unless --device says cuda.")
    ] = "local",
    workers: Trainers = None,
    overwrite: Replace = False,
    paper: Annotated[
        str | None,
        typer.Option(help="mosi or mosei: also write the paper's figures beside these, paper.md."),
    ] = None,
    trust: Trust = None,
) -> None:
    """Train many variants, by default the nine rows of the paper's Table 2, and print the table.

    table1 is the systems of the paper's Table 1 on the same features (tfn, lmf, mult, misa, mfn,
    mfm, mag, self-mm, mmim, tpmsa, hycon, wscl-cl) and full.
    Settings of [training] hold for all; those of [model] for CLIP-MSA and not for the baselines.
    Runs that are finished are not run again. Writes table.md, table.csv, table.tex and every run.

    Example: clipmsa ablate --features cache/mosi.h5 --variants full,no-clip,order-atv
    """
    from clipmsa.workflows import ablate as run_all

    runs = run_all(
        features,
        out,
        variants=variants,
        config=config,
        settings=settings or (),
        seeds=parse_seeds(seeds),
        device=device,
        engine=engine,
        workers=workers,
        overwrite=overwrite,
        paper=paper,
        trust=trust or (),
    )
    stdout.print((runs.path / "table.md").read_text(encoding="utf-8"), highlight=False)
    of = [run.results["features"] for run in runs]
    warn_untrained(sorted({name for run in runs for name in run.untrained}))
    warn_empty(sorted({name for features in of for name in features["empty_in_train"]}))
    warn_drawn(of[0]["splits_from"])
    note("{}: table.md, table.csv, table.tex, and a folder for each run", runs.path)
