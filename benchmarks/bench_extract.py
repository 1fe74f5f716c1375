"""How well `extract` uses its encoders, and how much faster it is than a plain script.

    python benchmarks/bench_extract.py [--clips 8] [--profile paper]

All figures come from one run on the same clips (640 x 360, 4 s, one talking head) with the same
encoders at random weights. Prints JSON:

- `efficiency`: seconds that the encoders alone need on ready input, over those of `extract`;
- `speedup`: seconds of a plain script over those of `extract`. The plain script takes one clip at
  a time, detects faces frame by frame at full resolution with MTCNN's own settings, and leaves
  networks in torch's default memory format;
- `difference`: the largest relative difference between the two, over the streams that do not
  depend on how faces were detected; `faces`: how many frames had a face for either.
"""

from __future__ import annotations

import json
import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does

import argparse
import tempfile
import time
from collections.abc import Callable
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
from clipmsa.extract.decode import decode
from clipmsa.extract.encoder import Encoder
from clipmsa.extract.faces import MtcnnFaces
from clipmsa.extract.manifest import Clip, Manifest
from clipmsa.extract.pipeline import extract
from clipmsa.extract.plan import Settings, StreamPlan, plan_streams
from clipmsa.extract.profiles import load_profile
from clipmsa.extract.synthetic import write_clip

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
    sampling, detector, faces = settings.profile.media, MTCNN(), 0
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
                    faces += 1
        features.append(rows)
    return features, faces


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def contiguous(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--profile", default="paper")
    arguments = parser.parse_args()
    settings = Settings(load_profile(arguments.profile), "random", workers=os.cpu_count() or 1)
    encoders = {name: plan.build() for name, plan in plan_streams(settings).items()}
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_clips(Path(folder), arguments.clips)
        ready = [decode(clip, encoders, settings.profile.media) for clip in manifest.clips]
        alone, _ = seconds(
            lambda: [e.encode([clip.items[name] for clip in ready]) for name, e in encoders.items()]
        )
        # Loading is the same for all and grows with nothing, so it is left out.
        with patch.object(StreamPlan, "build", lambda plan: encoders[plan.recipe.name]):
            out = Path(folder) / "store.h5"
            wall, _ = seconds(lambda: extract(manifest, out, settings))
        for encoder in encoders.values():
            encoder.module.to(memory_format=torch.contiguous_format)
            if encoder.consumes == "frames":
                encoder.module.register_forward_pre_hook(contiguous)
        plain, (features, faces) = seconds(lambda: plain_script(encoders, manifest.clips, settings))
        streams = FeatureStore(out).streams
        differences = [
            np.abs(rows[name] - streams[name][i]).max() / np.abs(rows[name]).max()
            for i, rows in enumerate(features)
            for name in rows
        ]
        report = {
            "clips": arguments.clips,
            "frames": len(streams["clip_image"].values),
            "faces": {"extract": len(streams["face_vgg"].values), "plain": faces},
            "encoders_alone_s": round(alone, 2),
            "extract_s": round(wall, 2),
            "plain_s": round(plain, 2),
            "efficiency": round(alone / wall, 3),
            "speedup": round(plain / wall, 2),
            "difference": float(max(differences)),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
