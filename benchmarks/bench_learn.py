"""What training recovers of what is planted in the features: every network, ridge and the oracle.

    python benchmarks/bench_learn.py [--rows linear,trend] [--networks full,tfn] [--seeds 3]
                                     [--set key=value ...] [--json FILE]

Writes stores whose labels are a known function of what their features hold (`PLANTED`), trains on
them with the defaults of `clipmsa train`, and prints Corr and MAE on the test split as Markdown,
mean and deviation over seeds, or with --json everything, the validation split too. Beside each row:

- `oracle`: what the planted signal itself gets, so the most that can be had: labels have noise.
- `ridge`, `constant`: as in every run's metrics.json.

Stores are of the size of CMU-MOSI: 1,284, 229 and 686 utterances, the widths of profile `paper`.
Their sequences have 3 to 8 frames, so that the whole takes hours and not days on two cores.
"""

from __future__ import annotations

import clipmsa.environment  # noqa: F401 first: torch reads it when it is loaded

# isort: split
import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mosi import COUNTS, STREAMS
from numpy.typing import NDArray

from clipmsa.cache import FeatureStore, StreamColumn, StreamSpec, Utterance, write_store
from clipmsa.fusion import regression_metrics
from clipmsa.fusion.experiments.jobs import Resources
from clipmsa.fusion.experiments.reference import reference_scores
from clipmsa.fusion.experiments.runs import SEEDS, run
from clipmsa.fusion.experiments.variants import find_variant
from clipmsa.fusion.training.config import RunConfig, configured
from clipmsa.fusion.training.data import FeatureData, streams_by_role

Floats = NDArray[np.float64]
FRAMES = (3, 8)
NETWORKS = ("full", "no-coattn", "tfn", "lmf", "mult", "misa", "mmim", "tpmsa", "hycon", "wscl-cl")
LATENT = 4  # numbers that a row of a stream stands for, the first of which the label depends on
SHARE = 0.5  # of a stream's variance that the latents make; the rest is noise in every dimension


@dataclass(frozen=True)
class Planted:
    """A store to plant: how the label comes from the latents, and what the features look like."""

    what: str
    signal: str = "linear"  # or "trend", "agreement"
    noise: float = 0.25  # deviation of what is added to labels of deviation 1
    sizes: tuple[int, ...] = tuple(COUNTS.values())  # of train, valid and test
    missing: float = 0.0  # share of utterances that lack a modality, for each of the three
    look: Callable[[Floats], Floats] = lambda x: x  # how rows (T, D) of latents and noise look


PLANTED = {
    "linear": Planted("a sum over six streams"),
    "trend": Planted("how sequences change over time", "trend"),
    "agreement": Planted("the product of sound and picture", "agreement"),
    "offset": Planted("linear; 50 deviations from 0", look=lambda x: x + 50),
    "tiny": Planted("linear; 0.02, varying by 1e-4", look=lambda x: 0.02 + 1e-4 * x / 2),
    "sparse": Planted("linear; positive and sparse", look=lambda x: np.maximum(x - 1, 0)),
    "few": Planted("linear; 150 utterances", sizes=(150, 50, 686)),
    "missing": Planted("linear; half lack a modality", missing=0.5),
    "noise": Planted("linear; labels half noise", noise=1.0),
}


def plant(path: Path, planted: Planted, seed: int = 0) -> Floats:
    """Write a store; gives the planted signal (n,) of every utterance."""
    generator = np.random.default_rng(seed)
    n = sum(planted.sizes)
    splits = np.repeat(["train", "valid", "test"], planted.sizes)
    frames = generator.integers(FRAMES[0], FRAMES[1] + 1, n)
    there = {m: generator.random(n) >= planted.missing for m in ("text", "audio", "vision")}
    there["text"] |= ~(there["audio"] | there["vision"])
    # Streams share nothing but what the label of trend and agreement depends on.
    latents = {name: generator.uniform(-(3**0.5), 3**0.5, (n, LATENT)) for name in STREAMS}
    if planted.signal == "agreement":
        latents["esresnext"][:, 0] = latents["wav2vec2"][:, 0]
        latents["face_vgg"][:, 0] = latents["clip_image"][:, 0]
        signal = latents["wav2vec2"][:, 0] * latents["clip_image"][:, 0]
    elif planted.signal == "trend":
        latents["face_vgg"][:, 0] = latents["clip_image"][:, 0]
        signal = latents["clip_image"][:, 0]
    else:
        parts = [latents[name][:, 0] * there[STREAMS[name][0]] for name in STREAMS]
        signal = np.sum(parts, axis=0) / len(parts) ** 0.5
    labels = np.clip(signal + planted.noise * generator.standard_normal(n), -3, 3)

    def rows(name: str, lengths: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        strength = (SHARE / (1 - SHARE) / LATENT) ** 0.5
        directions = strength * generator.standard_normal((LATENT, STREAMS[name][3]))
        for utterance, length in enumerate(lengths):
            latent = np.tile(latents[name][utterance], (length, 1))
            if planted.signal == "trend":  # a rise or fall around a level that says nothing
                latent *= np.linspace(-1, 1, length)[:, None] if length > 1 else 0
                latent += generator.standard_normal(LATENT) / 2
            elif STREAMS[name][2] == "sequence":
                jitter = generator.standard_normal(latent.shape)
                latent += jitter - jitter.mean(0)  # the mean over frames is what was planted
            noise = generator.standard_normal((length, directions.shape[1]))
            yield planted.look(latent @ directions + noise).astype(np.float32)

    columns = []
    for name, (modality, branch, level, dim) in STREAMS.items():
        lengths = np.where(there[modality], frames if level == "sequence" else 1, 0)
        spec = StreamSpec(name, modality, branch, level, dim)
        columns.append(StreamColumn(spec, lengths, rows(name, lengths)))
    write_store(
        path,
        dataset="planted",
        profile="none",
        utterances=[
            Utterance(f"v{i // 8}", str(i % 8), str(splits[i]), float(labels[i]), "words")
            for i in range(n)
        ],
        streams=columns,
    )
    return signal


def measured(
    path: Path,
    signal: Floats,
    networks: list[str],
    seeds: list[int],
    settings: list[str],
    workers: int,
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """By network, split and metric, each seed's figure; of the references one figure."""
    store = FeatureStore(path)
    data = FeatureData(store, streams_by_role(store, RunConfig().model), torch.device("cpu"))
    scores = reference_scores(data, ("valid", "test"))
    rows = {split: data.labelled_rows(split).numpy() for split in ("valid", "test")}
    scores["oracle"] = {split: signal[of] for split, of in rows.items()}
    found = {
        name: {
            split: {
                key: [value]
                for key, value in regression_metrics(p, store.labels[rows[split]]).items()
            }
            for split, p in of.items()
        }
        for name, of in scores.items()
    }
    for name in networks:
        start = time.monotonic()
        config = configured(find_variant(name).applied(RunConfig()), settings=settings)
        with tempfile.TemporaryDirectory() as folder:
            done = run(store, config, Path(folder), seeds, Resources(workers=workers))
        found[name] = {
            split: {key: value["per_seed"] for key, value in done.metrics[split].items()}
            for split in ("valid", "test")
        }
        found[name]["training"] = {
            "best_epoch": [o.best_epoch for o in done.outcomes],
            "epochs": [len(o.history) for o in done.outcomes],
            "seconds": [time.monotonic() - start],
        }
        print(name, json.dumps(found[name]["training"]), cell(found[name]["test"]), file=sys.stderr)
    return found


def cell(metrics: dict[str, list[float]]) -> str:
    """Corr and MAE, mean and deviation over seeds."""
    parts = []
    for key in ("corr", "mae"):
        mean, std = np.mean(metrics[key]), np.std(metrics[key])
        parts.append("-" if np.isnan(mean) else f"{mean:.3f}" + (f" ± {std:.3f}" if std else ""))
    return f"{parts[0]} ({parts[1]})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default=",".join(PLANTED))
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    networks = chosen.networks.split(",")
    seeds = [SEEDS[0] + i for i in range(chosen.seeds)]
    found = {}
    columns = ["constant", "ridge", *networks, "oracle"]
    print(f"| planted | {' | '.join(columns)} |\n|---{'|---:' * len(columns)}|")
    for row in chosen.rows.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "planted.h5"
            signal = plant(path, PLANTED[row])
            found[row] = measured(path, signal, networks, seeds, chosen.set, chosen.workers)
        cells = [cell(found[row][name]["test"]) for name in columns]
        print(f"| {PLANTED[row].what} | {' | '.join(cells)} |", flush=True)
        if chosen.json:
            chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
