"""How well `extract` uses its encoders, how much faster it is than a plain script, its memory.

    python benchmarks/bench_extract.py [--clips 6] [--profile paper]

All times come from one run on the same clips (640 x 360, 4 s, one talking head) with the same
encoders at random weights; loading, the same for all, is left out. Prints JSON:

- `efficiency`: seconds that the encoders alone need on ready input, over those of `extract`, which
  decodes, encodes and writes. Alone they run one after the other, each at its best batch size, and
  again side by side in lanes as `extract` runs them; the quicker counts;
- `speedup`: seconds of a plain script over those of `extract`. The plain script takes one clip at
  a time, detects faces frame by frame at full resolution with MTCNN's own settings, and runs the
  networks as their libraries make them, in torch's default memory format;
- `difference`: the largest relative difference between the two, over the streams that do not
  depend on how faces were detected (frames are stored as float16, which makes most of it);
  `faces`: how many frames had a face for either;
- `cpu`: the same from seconds of CPU, which other programs on the machine disturb less, and what
  a clip takes of them at each stage;
- `peak_memory_mb`: of processes that extract so many such clips with profile tiny, whose encoders
  are small, so that what would grow with the clips would show.
"""

from __future__ import annotations

import clipmsa.environment  # noqa: F401 first: torch reads it when it is loaded

# isort: split
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from facenet_pytorch import MTCNN
from matplotlib.cbook import get_sample_data
from PIL import Image

from clipmsa.cache import FeatureStore, Utterance
from clipmsa.extract import media
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.datasets.read import Clip, Manifest
from clipmsa.extract.encoders import faces, fast_layers, openclip
from clipmsa.extract.encoders.encoder import Encoder
from clipmsa.extract.encoders.faces import MtcnnFaces
from clipmsa.extract.engine.decode import Decoded, decode
from clipmsa.extract.engine.pipeline import extract
from clipmsa.extract.engine.plan import Settings, plan_streams
from clipmsa.extract.engine.worker import Worker
from clipmsa.extract.profiles.profile import load_profile

WIDTH, HEIGHT, FPS, SECONDS, RATE = 640, 360, 15, 4, 22050


def make_clips(root: Path, count: int) -> Manifest:
    """Clips of a head that moves before noise, with a voice-like buzz."""
    photograph = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False))
    head = np.asarray(photograph.crop((130, 15, 400, 375)).resize((180, 240)))
    clips = []
    for i in range(count):
        generator = np.random.default_rng(i)
        wall = generator.integers(60, 160, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        scene = np.kron(wall, np.ones((8, 8, 1), np.uint8))
        frames = []
        for t in range(FPS * SECONDS):
            frame = scene.copy()
            left, top = 150 + int(100 * np.sin(t / 9 + i)), 60 + int(30 * np.cos(t / 7))
            frame[top : top + 240, left : left + 180] = head
            frames.append(frame)
        time_axis = np.arange(SECONDS * RATE) / RATE
        buzz = 0.2 * np.sign(np.sin(2 * np.pi * (110 + 10 * i) * time_axis))
        path = root / f"{i}.mp4"
        write_clip(path, frames, FPS, buzz.astype(np.float32), RATE)
        text = "well , it was a film with a beginning , a middle and an end"
        clips.append(Clip(Utterance("bench", str(i), "train", 0.0, text), path))
    return Manifest("bench", clips)


def plain_script(
    encoders: dict[str, Encoder], clips: list[Clip], settings: Settings
) -> tuple[list[dict[str, Any]], int]:
    """Features of each clip, and how many faces there were."""
    sampling, detector, found = settings.profile.media, MTCNN(), 0
    features = []
    for clip in clips:
        shown = media.read_frames(clip.path, sampling.fps, sampling.max_frames)
        frames = [frame for _, frame in shown]
        sound = media.read_waveform(clip.path)
        assert sound is not None
        rows: dict[str, Any] = {}
        for name, encoder in encoders.items():
            if encoder.consumes == "text":
                rows[name] = encoder.encode([clip.utterance.text])[0]
            elif encoder.consumes == "waveform":
                waveform = media.resample(*sound, encoder.sample_rate)
                rows[name] = encoder.encode([waveform])[0]
            elif not isinstance(encoder, MtcnnFaces):
                rows[name] = encoder.encode([[encoder.prepare(frame) for frame in frames]])[0]
            else:
                for frame in frames:
                    boxes, _ = detector.detect(frame)
                    if boxes is None:
                        continue
                    x1, y1, x2, y2 = boxes[0]
                    crop = Image.fromarray(frame).crop((x1, y1, x2, y2)).resize((224, 224))
                    pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None] / 255
                    with torch.inference_mode():
                        encoder.module(pixels)
                    found += 1
        features.append(rows)
    return features, found


@contextmanager
def unprepared() -> Iterator[None]:
    """Networks that are built meanwhile are left as their libraries make them."""
    with (
        patch.object(fast_layers, "_fold", lambda network: None),
        patch.object(fast_layers, "_suits", lambda conv, least_channels: False),
        patch.object(openclip, "OneQueryAttention", lambda pool: pool),
        patch.object(faces, "InPieces", lambda layers, size: layers),
    ):
        yield


def contiguous(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in inputs)


class Timer:
    """Seconds of the clock and of the CPU."""

    def __init__(self, wall: float = 0.0, cpu: float = 0.0) -> None:
        self.wall, self.cpu = wall, cpu

    def __call__(self, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall, self.cpu = time.perf_counter() - wall, time.process_time() - cpu
        return result


def at_best_batch(encoder: Encoder, items: list[Any]) -> Timer:
    """What an encoder needs for items that are ready: the least over batch sizes."""
    timers = []
    for size in sorted({1, 4, len(items)}):
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        timers.append(timer := Timer())
        timer(partial(list, map(encoder.encode, batches)))
    return Timer(min(t.wall for t in timers), min(t.cpu for t in timers))


def in_lanes(worker: Worker, ready: list[Decoded]) -> Timer:
    """What all encoders need for clips that are ready, side by side as in `extract`."""
    timers = []
    for size in (1, 2):
        batches = [ready[start : start + size] for start in range(0, len(ready), size)]
        timers.append(timer := Timer())
        timer(partial(list, worker.encode_decoded(batches, worker.encoders)))
    return min(timers, key=lambda timer: timer.wall)


def on_all_cores(profile: str) -> Settings:
    cores = os.cpu_count() or 1
    return Settings(load_profile(profile), "random", workers=cores, lanes=min(4, cores))


def peak_memory(profile: str, clips: int) -> None:
    """Extract in this process, as many clips as wanted from a few files, and print its peak."""
    settings = on_all_cores(profile)
    with tempfile.TemporaryDirectory() as folder:
        few = make_clips(Path(folder), 10).clips
        table = [
            replace(few[i % 10], utterance=Utterance("bench", str(i), "train", 0.0, f"clip {i}"))
            for i in range(clips)
        ]
        extract(Manifest("bench", table), Path(folder) / "store.h5", settings)
    # Not getrusage: what it tells of a new process begins at the size of the one that started it.
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--memory-clips", type=int, nargs="*", default=[50, 500])
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak_memory("tiny", arguments.peak)
        return
    settings = on_all_cores(arguments.profile)
    plans = plan_streams(settings)
    worker = Worker(plans, settings)
    with unprepared():
        plain_encoders = {name: plan.build() for name, plan in plans.items()}
    for encoder in plain_encoders.values():
        encoder.module.to(memory_format=torch.contiguous_format)
        if encoder.consumes == "frames":
            encoder.module.register_forward_pre_hook(contiguous)
    alone, extracting, plain = Timer(), Timer(), Timer()
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_clips(Path(folder), arguments.clips)
        decoding = Timer()
        ready = decoding(
            lambda: [decode(c, worker.encoders, settings.profile.media) for c in manifest.clips]
        )
        shares = {"decode": round(decoding.cpu / arguments.clips, 3)}
        for name, encoder in worker.encoders.items():
            best = at_best_batch(encoder, [clip.items[name] for clip in ready])
            alone.wall, alone.cpu = alone.wall + best.wall, alone.cpu + best.cpu
            shares[name] = round(best.cpu / arguments.clips, 3)
        one_by_one = alone.wall
        alone = min(alone, in_lanes(worker, ready), key=lambda timer: timer.wall)
        out = Path(folder) / "store.h5"
        extracting(lambda: extract(manifest, out, settings, engine=lambda *_: worker))
        features, found = plain(lambda: plain_script(plain_encoders, manifest.clips, settings))
        streams = FeatureStore(out).streams
        differences = [
            np.abs(rows[name] - streams[name][i]).max() / np.abs(rows[name]).max()
            for i, rows in enumerate(features)
            for name in rows
        ]
        report: dict[str, Any] = {
            "clips": arguments.clips,
            "frames": len(streams["clip_image"].values),
            "faces": {"extract": len(streams["face_vgg"].values), "plain": found},
            "encoders_alone_s": round(alone.wall, 2),
            "encoders_one_by_one_s": round(one_by_one, 2),
            "extract_s": round(extracting.wall, 2),
            "plain_s": round(plain.wall, 2),
            "efficiency": round(alone.wall / extracting.wall, 3),
            "speedup": round(plain.wall / extracting.wall, 2),
            "difference": float(max(differences)),
            "cpu": {
                "encoders_alone_s": round(alone.cpu, 2),
                "extract_s": round(extracting.cpu, 2),
                "plain_s": round(plain.cpu, 2),
                "efficiency": round(alone.cpu / extracting.cpu, 3),
                "speedup": round(plain.cpu / extracting.cpu, 2),
                "a_clip_s": shares,
            },
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    report["peak_memory_mb"] = {"profile": "tiny"} | {
        f"{count} clips": int(
            subprocess.check_output([sys.executable, __file__, "--peak", str(count)], text=True)
        )
        for count in arguments.memory_clips
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
