"""Many variants over one store, each a run of its own, and the table of them (Tables 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ConfigError
from clipmsa.cache.files import publish_text, sole_writer
from clipmsa.fusion.metrics.bootstrap import paired_differences
from clipmsa.fusion.training.config import RunConfig, configured
from clipmsa.fusion.training.data import FeatureData, streams_by_role
from clipmsa.fusion.training.outcome import Epoch

from .paper import beside, csv_beside, markdown_beside, published
from .runs import Run, run_many
from .tables import BASELINE, Differences, csv_comparison, csv_table, latex_table, markdown_table
from .variants import Variant, find_variant, table1, table2

_TABLES = {"table1": table1, "table2": table2}


def choose_variants(text: str) -> list[Variant]:
    """`table2` for all nine rows, `table1` for baselines and `full`, or names and files by commas.

    Raises:
        ConfigError: an unknown variant, or one named twice.
    """
    if text in _TABLES:
        return _TABLES[text]()
    chosen = [find_variant(name) for name in text.split(",")]
    names = [variant.name for variant in chosen]
    if len(set(names)) < len(names):
        raise ConfigError(f"--variants {text}: a variant is named twice")
    return chosen


def ablate(
    store: FeatureStore,
    variants: Sequence[Variant],
    out: Path,
    *,
    seeds: Sequence[int],
    config: Path | None = None,
    settings: Sequence[str] = (),
    device: torch.device | str = "cpu",
    engine: str = "local",
    workers: int = 1,
    overwrite: bool = False,
    paper: str | None = None,
    on_variant: Callable[[Variant, Run], None] = lambda variant, run: None,
    on_epoch: Callable[[Variant, Epoch], None] = lambda variant, epoch: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> list[tuple[Variant, Run]]:
    """Run every variant, all seeds of all of them side by side, and write the tables.

    Seeds that were finished before are not trained again. Writes table.md, table.csv, table.tex
    and, where `full` is among the variants, comparison.csv: each other one less `full`, by a paired
    bootstrap over utterances and seeds. `paper`, mosi or mosei, puts the paper's figures for that
    data set beside them, in paper.md and paper.csv. `run_many` says the rest.
    """
    base = configured(RunConfig(), config, settings)
    if paper is not None:
        published(paper)  # refuses another data set before anything is trained
    folders = {out / variant.name: variant for variant in variants}
    finished: dict[str, Run] = {}

    def on_run(run: Run) -> None:
        variant = folders[run.path]
        finished[variant.name] = run
        on_variant(variant, run)

    with sole_writer(out):
        run_many(
            store,
            [(variant.applied(base), folder) for folder, variant in folders.items()],
            seeds,
            device,
            engine=engine,
            workers=workers,
            overwrite=overwrite,
            on_epoch=lambda folder, epoch: on_epoch(folders[folder], epoch),
            on_run=on_run,
            on_note=on_note,
        )
        results = [(variant, finished[variant.name]) for variant in variants]
        rows = [(variant, run.metrics) for variant, run in results]
        differences = compare(store, results)
        publish_text(out / "table.csv", csv_table(rows))
        publish_text(out / "table.md", markdown_table(rows, differences))
        publish_text(out / "table.tex", latex_table(rows))
        if differences:
            publish_text(out / "comparison.csv", csv_comparison(differences))
        if paper is not None:
            found = beside({v.name: of for v, of in rows}, paper, store.profile)
            publish_text(out / "paper.md", markdown_beside(found, paper))
            publish_text(out / "paper.csv", csv_beside(found))
    return results


def compare(store: FeatureStore, results: Sequence[tuple[Variant, Run]]) -> Differences:
    """Every variant against `full`, on the test split; nothing where `full` is not among them."""
    runs = {variant.name: run for variant, run in results}
    if BASELINE not in runs:
        return {}
    roles = streams_by_role(store, RunConfig().model)
    data = FeatureData(store, roles, torch.device("cpu"))
    truth = data.labels[data.labelled_rows("test")].double().numpy()
    scores = {
        name: np.stack([outcome.predictions["test"] for outcome in run.outcomes])
        for name, run in runs.items()
    }
    return {
        name: paired_differences(preds, scores[BASELINE], truth)
        for name, preds in scores.items()
        if name != BASELINE
    }
