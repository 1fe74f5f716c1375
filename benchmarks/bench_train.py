"""How fast training is, against two plain implementations and against the machine.

    python benchmarks/bench_train.py [--batches 6] [--table2] [--seeds 3]

Everything is measured in one run, in turns, on one synthetic store of the size of CMU-MOSI (1284,
229 and 686 utterances of 3 to 24 frames, the real widths). Prints JSON:

- `seconds_per_epoch`: 1,284 utterances in batches of 32, forward, backward and step. `clipmsa` is
  one seed on one thread; `clipmsa, a seed a core` is what an epoch takes where as many seeds as
  there are cores train side by side, which is how `train` and `ablate` run them; the plain ones
  (`plain_model.py`) have all cores to themselves, as torch gives them.
- `ratio`: of a plain one to `clipmsa, a seed a core`, and to `clipmsa` on its one thread.
- `loss_difference`: the largest relative difference of the losses of all batches that were timed.
- `of_peak`: arithmetic per second over that of a large matrix product on all cores. Counted are
  the products as torch counts them and, for a CT unit's attention in its collapsed form, what it
  has to compute for each pair of tokens: 5 operations forward and 8 backward, exponentials as 1.
- with `--table2`: minutes of `ablate` over all nine rows of Table 2.
"""

from __future__ import annotations

import clipmsa.environment  # noqa: F401 first: torch reads it when it is loaded

# isort: split
import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from mosi import COUNTS, STREAMS
from plain_model import Attention, PlainClipMSA, Utterances, collate, weights_from
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from clipmsa.cache import FeatureStore, StreamColumn, StreamSpec, Utterance, write_store
from clipmsa.fusion import ClipMSA
from clipmsa.fusion.experiments.ablations import ablate, choose_variants
from clipmsa.fusion.experiments.jobs import Resources
from clipmsa.fusion.networks.clip_msa import ClipMSAConfig
from clipmsa.fusion.training.config import RunConfig, TrainingConfig
from clipmsa.fusion.training.data import FeatureData, streams_by_role

FRAMES = (3, 24)
MODEL = ClipMSAConfig(dropout=0.0, feature_dropout=0.0)
NO_DROPOUT = RunConfig(model=MODEL, training=TrainingConfig(batch_size=32))
PAIR_OPERATIONS = 5 + 8


def write_planted(path: Path) -> None:
    """A store in which every stream carries its own sixth of the label, under noise."""
    generator = np.random.default_rng(0)
    n = sum(COUNTS.values())
    hidden = generator.standard_normal((n, len(STREAMS)))
    label = 1.1 * hidden.sum(1) / 6**0.5 + 0.5 * generator.standard_normal(n)
    splits = [split for split, count in COUNTS.items() for _ in range(count)]
    frames = generator.integers(FRAMES[0], FRAMES[1] + 1, n)
    columns = []
    for index, (name, (modality, branch, level, dim)) in enumerate(STREAMS.items()):
        lengths = frames.copy() if level == "sequence" else np.ones(n, np.int64)
        if name == "face_vgg":
            lengths[generator.random(n) < 0.05] = 0
        direction = generator.standard_normal(dim)
        direction *= 6 / np.linalg.norm(direction)

        def rows(
            lengths: np.ndarray = lengths, direction: np.ndarray = direction, index: int = index
        ) -> Iterator[np.ndarray]:
            for row, length in enumerate(lengths):
                noise = generator.standard_normal((length, len(direction)))
                yield (noise + hidden[row, index] * direction).astype(np.float32)

        columns.append(
            StreamColumn(StreamSpec(name, modality, branch, level, dim), lengths, rows())
        )
    write_store(
        path,
        dataset="planted",
        profile="none",
        utterances=[
            Utterance(f"v{i // 8}", str(i % 8), splits[i], float(np.clip(label[i], -3, 3)), "words")
            for i in range(n)
        ],
        streams=columns,
    )


class Trainee:
    """A model that is trained a batch at a time, in turns with others."""

    def __init__(
        self, model: nn.Module, batches: Iterator[tuple[object, Tensor]], threads: int, fused: bool
    ) -> None:
        training = NO_DROPOUT.training
        self.model, self.batches, self.threads = model.train(), batches, threads
        self.clip = training.clip_grad_norm
        self.optimiser = torch.optim.AdamW(
            model.parameters(),
            training.learning_rate,
            weight_decay=training.weight_decay,
            fused=fused,
        )
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def step(self) -> None:
        with threads(self.threads):
            start = time.perf_counter()
            batch, labels = next(self.batches)
            loss = F.smooth_l1_loss(self.model(batch), labels)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimiser.step()
            self.seconds.append(time.perf_counter() - start)
        self.losses.append(float(loss.detach()))

    @property
    def epoch(self) -> float:
        """Seconds, from the median of what was timed after the first two batches."""
        return median(self.seconds[2:]) * COUNTS["train"] / NO_DROPOUT.training.batch_size


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def order(path: Path) -> list[list[int]]:
    rows = torch.arange(COUNTS["train"])
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return [part.tolist() for part in shuffled.split(NO_DROPOUT.training.batch_size)]


def ours(path: Path) -> Trainee:
    store = FeatureStore(path)
    data = FeatureData(store, streams_by_role(store, MODEL), torch.device("cpu"))
    torch.manual_seed(0)
    model = ClipMSA(MODEL, data.roles)
    batches = (data.batch(torch.tensor(rows)) for rows in order(path) * 100)
    return Trainee(model, ((b.streams, b.labels) for b in batches), 1, fused=True)


def plain(path: Path, attention: Attention) -> Trainee:
    torch.manual_seed(0)
    store = FeatureStore(path)
    state = ClipMSA(MODEL, streams_by_role(store, MODEL)).state_dict()
    dims = {name: dim for name, (*_, dim) in STREAMS.items()}
    model = PlainClipMSA(MODEL, dims, attention)
    model.load_state_dict(weights_from(state))
    loader = DataLoader(Utterances(path), batch_sampler=order(path) * 100, collate_fn=collate)
    return Trainee(model, ((b, b["label"]) for b in loader), torch.get_num_threads(), fused=False)


def _side_by_side(path: Path, batches: int) -> list[float]:
    trainee = ours(path)
    for _ in range(batches):
        trainee.step()
    return trainee.seconds


def side_by_side(path: Path, batches: int, cores: int) -> float:
    """Seconds an epoch where each core trains a seed of its own."""
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        runs = list(pool.map(_side_by_side, [path] * cores, [batches] * cores))
    # The slower half overlaps for sure; starting up takes the processes about as long.
    slowest = max(median(seconds[2:]) for seconds in runs)
    return slowest * COUNTS["train"] / NO_DROPOUT.training.batch_size / cores


def matmul_rate() -> float:
    """Operations a second of a large product of matrices, on all cores."""
    a = torch.randn(2048, 2048)
    a @ a
    best = min(_seconds(lambda: a @ a) for _ in range(5))
    return 2 * 2048**3 / best


def operations_per_batch(path: Path) -> float:
    """What a training step of our model computes, for an average batch of the order."""
    trainee = ours(path)
    counter = FlopCounterMode(display=False)
    batches = 4
    with counter:
        for _ in range(batches):
            trainee.step()
    products = sum(
        count
        for name, count in counter.get_flop_counts()["Global"].items()
        if "attention" not in str(name)
    )
    pairs = 4 * NO_DROPOUT.training.batch_size * MODEL.heads * MODEL.d**2
    return products / batches + pairs * PAIR_OPERATIONS


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=8, help="timed of each; two more come first")
    parser.add_argument("--table2", action="store_true", help="time the whole of Table 2, too")
    parser.add_argument("--seeds", type=int, default=3, help="of Table 2")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.h5"
        write_planted(path)
        trainees = {
            "clipmsa": ours(path),
            "plain, fused attention": plain(path, "fused"),
            "plain, as printed": plain(path, "printed"),
        }
        rates = [matmul_rate()]
        apart = [side_by_side(path, arguments.batches + 2, cores)]
        for _ in range(arguments.batches + 2):
            for trainee in trainees.values():
                trainee.step()
        rates.append(matmul_rate())
        apart.append(side_by_side(path, arguments.batches + 2, cores))
        losses = np.array([trainee.losses for trainee in trainees.values()])
        epochs = {name: trainee.epoch for name, trainee in trainees.items()}
        together = "clipmsa, a seed a core"
        epochs[together] = median(apart)
        operations = operations_per_batch(path) * COUNTS["train"] / NO_DROPOUT.training.batch_size
        report = {
            "seconds_per_epoch": {name: round(value, 2) for name, value in epochs.items()},
            "ratio": {
                name: {"a seed a core": round(value / epochs[together], 1),
                       "one thread": round(value / epochs["clipmsa"], 1)}
                for name, value in epochs.items() if name.startswith("plain")
            },
            "loss_difference": float((np.ptp(losses, axis=0) / losses.mean(0)).max()),
            "operations_per_epoch": float(f"{operations:.3g}"),
            "matmul_operations_per_second": float(f"{max(rates):.3g}"),
            "of_peak": round(operations / epochs[together] / max(rates), 2),
            "cores": cores,
            "threads_of_plain": torch.get_num_threads(),
            "torch": torch.__version__,
        }  # fmt: skip
        if arguments.table2:
            store, seeds = FeatureStore(path), list(range(1111, 1111 + arguments.seeds))
            out = Path(folder) / "table2"
            variants = choose_variants("table2")
            minutes = (
                _seconds(
                    lambda: ablate(
                        store, variants, out, seeds=seeds, resources=Resources(workers=cores)
                    )
                )
                / 60
            )
            report["table2"] = {"seeds": arguments.seeds, "minutes": round(minutes, 1)}
            print((out / "table.md").read_text())
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
