"""Set-up that must come before torch is loaded, and what several test files make or bound."""

from __future__ import annotations

import os

# Two threads that wait for one another crawl on a machine that is busy with something else.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test may reach for a hub: what is not there must fail at once, here as on a machine offline.
os.environ["HF_HUB_OFFLINE"] = "1"

import faulthandler
import resource
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import h5py
import numpy as np
import pytest

ROLES = {
    "albert": ("text", "own", "utterance", 24),
    "clip_text": ("text", "clip", "utterance", 32),
    "wav2vec2": ("audio", "own", "utterance", 24),
    "esresnext": ("audio", "clip", "utterance", 32),
    "clip_image": ("vision", "clip", "sequence", 32),
    "face_vgg": ("vision", "own", "sequence", 48),
}


def write_planted_store(
    path: Path,
    counts: Sequence[int] = (120, 40, 60),
    share: Mapping[str, float] | None = None,
    widths: Mapping[str, int] | None = None,
    frames: int = 5,
    faceless: float = 0.1,
    seed: int = 0,
) -> float:
    """Write a store with h5py alone, whose labels are planted in its streams.

    Every stream carries a hidden number of its own along one direction of its rows, under
    Gaussian noise; the label is their sum weighted by `share` (1 each by default), plus noise of
    0.4 of its deviation. Gives the oracle's test correlation: that of the sum with the label.
    """
    generator = np.random.default_rng(seed)
    n = sum(counts)
    share = dict.fromkeys(ROLES, 1.0) if share is None else share
    hidden = {name: generator.standard_normal(n) for name in ROLES}
    signal = np.sum([share.get(name, 0.0) * hidden[name] for name in ROLES], axis=0)
    signal /= np.std(signal)
    label = 1.2 * (np.sqrt(1 - 0.4**2) * signal + 0.4 * generator.standard_normal(n))
    strings = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["version"] = "clipmsa-features", 1
        for key in ("dataset", "created", "clipmsa_version", "profile"):
            file.attrs[key] = "planted"
        table = file.create_group("utterances")
        videos, clips = [f"v{i // 8:04d}" for i in range(n)], [str(i % 8) for i in range(n)]
        ids = [f"{video}$_${clip}" for video, clip in zip(videos, clips, strict=True)]
        splits = [
            s for s, k in zip(("train", "valid", "test"), counts, strict=True) for _ in range(k)
        ]
        for key, column in (("id", ids), ("video_id", videos), ("clip_id", clips)):
            table.create_dataset(key, data=column, dtype=strings)
        table.create_dataset("split", data=splits, dtype=strings)
        table.create_dataset("text", data=["words"] * n, dtype=strings)
        table["label"] = label.astype(np.float32)
        table["duration"] = np.ones(n, np.float32)
        for name, (modality, branch, level, width) in ROLES.items():
            width = (widths or {}).get(name, width)
            lengths = np.ones(n, int)
            if level == "sequence":
                lengths = generator.integers(1, frames + 1, n)
            if name == "face_vgg":
                lengths[generator.random(n) < faceless] = 0
            direction = generator.standard_normal(width)
            direction *= 6 / np.linalg.norm(direction)
            values = generator.standard_normal((lengths.sum(), width))
            values += np.repeat(hidden[name], lengths)[:, None] * direction
            group = file.create_group(f"streams/{name}")
            group["values"] = values.astype(np.float16 if level == "sequence" else np.float32)
            group["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            group.attrs["modality"], group.attrs["branch"] = modality, branch
            group.attrs["level"], group.attrs["encoder"] = level, "planted"
            group.attrs["weights"], group.attrs["weights_sha256"] = "none", ""
            group.attrs["fingerprint"], group.attrs["config"] = f"planted-{name}", "{}"
    test = slice(n - counts[-1], n)
    return float(np.corrcoef(signal[test], label[test])[0, 1])


# What a page must show as text: each of these ends or opens something where it is not escaped.
HOSTILE = (
    "<script>window.broken = 1</script>",
    "</script><script>window.broken = 2</script>",
    "<img src=x onerror='window.broken = 3'>",
    '"><b>bold</b> & {{ 7 * 7 }} ${7 * 7} <!-- ',
)


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory) -> Path:
    """A folder with store.h5, whose test texts and one id are hostile, and a run on it, `run`."""
    from clipmsa.cache import FeatureStore
    from clipmsa.fusion.experiments.runs import run
    from clipmsa.fusion.training.config import RunConfig, configured

    folder = tmp_path_factory.mktemp("hostile")
    path = folder / "store.h5"
    write_planted_store(path, counts=(40, 12, 24))
    with h5py.File(path, "r+") as file:
        table = file["utterances"]
        for n in range(24):
            table["text"][52 + n] = f"{HOSTILE[n % 4]} number {n}"
        table["video_id"][52], table["id"][52] = HOSTILE[0], f"{HOSTILE[0]}$_$4"
    small = ["d=16", "heads=4", "d_ff=32", "transformer_ff=32", "epochs=4", "learning_rate=0.002"]
    run(FeatureStore(path), configured(RunConfig(), settings=small), folder / "run", [1, 2])
    return folder


@pytest.fixture(scope="session")
def plant() -> Callable[..., float]:
    """`write_planted_store`, for test files, which cannot import one another."""
    return write_planted_store


# ---- What a damaged or hostile file may cost.

SECONDS = 3  # computed, so that a busy machine changes nothing
MEMORY = 1 << 30


class Outcome(NamedTuple):
    """`told` is the message of the error that refused; for what ended the process, its stack."""

    how: Literal["done", "refused", "ended"]
    told: str = ""


def done_apart(work: Callable[[], object], refusal: type[Exception]) -> Outcome:
    """Do a piece of work in a fork, which a hostile file may end, hang or fill.

    The fork computes for at most `SECONDS`, and takes at most `MEMORY` more than there is: then a
    signal ends it. Any exception but `refusal` fails the test, with the fork's traceback.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        _do(work, refusal, writer)  # does not return
    os.close(writer)
    with os.fdopen(reader, errors="replace") as pipe:
        how, _, told = pipe.read().partition("\n")
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return Outcome("ended", f"{signal.Signals(os.WTERMSIG(status)).name}: {how}\n{told}")
    assert how in ("done", "refused"), told
    return Outcome("done" if how == "done" else "refused", told)


def _do(work: Callable[[], object], refusal: type[Exception], writer: int) -> None:
    said = "failed\nneither an error nor an end"
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        faulthandler.enable(writer, all_threads=False)
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
            faulthandler.register(number, writer, all_threads=False, chain=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(20 * SECONDS)  # for what waits rather than computes
        work()
        said = "done"
    except refusal as error:
        said = f"refused\n{error}"
    except BaseException:
        said = f"failed\n{traceback.format_exc()[-4000:]}"
    finally:
        os.write(writer, said.encode(errors="replace"))
        os._exit(0)


@pytest.fixture(scope="session")
def apart() -> Callable[[Callable[[], object], type[Exception]], Outcome]:
    """`done_apart`, for test files."""
    return done_apart
