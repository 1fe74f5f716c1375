"""Small real clips with known answers, for `clipmsa demo` and the tests.

How a demo clip is made. Its label y in [-3, 3] gives each modality a mood y / 3 plus noise of its
own (sd 0.3, cut to [-1, 1]), so that each of the three tells the label, none tells it perfectly
and together they tell more. The mood m shows so plainly that encoders with random weights keep it:

* text: a film review with (1 + m) / 2 of its opinion words good and the rest bad;
* sound: syllables that rise in pitch (120 to 480 Hz), grow louder and lose their hiss with m;
* pictures: a face before stripes; with m the scene turns from dim and blue to bright and warm, the
  face with it, and both move faster.

The face is matplotlib's sample photograph of Grace Hopper, which is in the public domain.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH, FPS, RATE = 120, 160, 10, 22050  # pixels, pictures a second, Hz
CLIPS_A_VIDEO = 4
GOOD_WORDS = ("wonderful", "brilliant", "charming", "moving", "funny", "great")
BAD_WORDS = ("terrible", "boring", "clumsy", "awful", "dull", "weak")
_REVIEWS = (
    "i thought the story was {} and {} , the acting {} , the music {} and the ending {}",
    "the film has {} actors , its plot is {} , the jokes are {} , the sets {} and the score {}",
    "so the camera is {} , the dialogue {} and {} , the first hour is {} and the last one {}",
)
_MOOD_NOISE = 0.3
_HEAD = (130, 15, 400, 375)  # left, top, right, bottom of the head in the photograph, pixels


def write_clip(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float,
    waveform: NDArray[np.float32] | None,
    rate: int,
    *,
    crf: int = 18,
    keyframe_every: int = 12,
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    faststart: bool = False,
) -> None:
    """Write an MP4 file of H.264 pictures and AAC sound; the same input gives the same bytes.

    Args:
        frames: (H, W, 3) RGB, all of one size, even unless `pixel_format` is yuv444p; none at all
            for a file without a video stream.
        fps: pictures a second.
        waveform: (samples,) in [-1, 1]; None for a file without an audio stream.
        rate: samples a second, one that AAC knows (8000 to 96000 Hz).
        crf: 0 (lossless) to 51 (poor).
        keyframe_every: pictures from one keyframe to the next.
        rotation: degrees counterclockwise that players turn the pictures by.
        faststart: put the index before the data, as files made for the web have it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = iter(frames)
    first = next(frames, None)
    if first is None and waveform is None:
        raise ValueError(f"{path}: neither pictures nor sound to write")
    flags = {"movflags": "+faststart"} if faststart else {}
    with av.open(f"file:{path}", "w", format="mp4", container_options=flags) as container:
        # All streams have to be there before the first packet.
        if first is not None:
            exact = Fraction(fps).limit_denominator(1001)
            options = {"crf": str(crf), "preset": "veryfast", "g": str(keyframe_every)}
            video = container.add_stream("libx264", rate=exact, options=options)
            video.height, video.width = first.shape[:2]
            video.pix_fmt = pixel_format
            video.thread_count = 1
            if rotation:
                video.set_display_rotation(rotation)
        if waveform is not None:
            audio = container.add_stream("aac", rate=rate)
            audio.layout = "mono"
        if first is not None:
            for number, pixels in enumerate(itertools.chain([first], frames)):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                picture.pts, picture.time_base = number, 1 / exact
                container.mux(video.encode(picture))
            container.mux(video.encode(None))
        if waveform is not None:
            samples = np.ascontiguousarray(waveform, dtype=np.float32)[None]
            sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = rate, 0, Fraction(1, rate)
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))


def write_demo_dataset(root: Path, clips: int = 48, seed: int = 0) -> Path:
    """Write a labelled data set in the layout that MMSA uses.

    `root/label.csv` has the columns video_id, clip_id, text, label, annotation and mode, and the
    clips are `root/Raw/<video_id>/<clip_id>.mp4`: 1.5 to 2.5 s each, 160 x 120 at 10 pictures a
    second, mono sound at 22.05 kHz. A video's clips are all in one split; train, valid and test
    get about 60, 15 and 25 % of the videos. From 24 clips on, the training split begins with
    what real data has too: two clips without a face, one without sound, one without words.

    Returns:
        The path of `label.csv`.
    """
    if clips < 6:
        raise ValueError(f"clips = {clips}: three splits of two clips take at least 6")
    root.mkdir(parents=True, exist_ok=True)
    videos = max(3, round(clips / CLIPS_A_VIDEO))
    valid, test = max(1, round(0.15 * videos)), max(1, round(0.25 * videos))
    modes = ["train"] * (videos - valid - test) + ["valid"] * valid + ["test"] * test
    dealt = _deal_labels(clips, videos, np.random.default_rng(seed))
    table = root / "label.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["video_id", "clip_id", "text", "label", "annotation", "mode"])
        for video, (labels, mode) in enumerate(zip(dealt, modes, strict=True)):
            for clip, label in enumerate(labels):
                rng = np.random.default_rng([seed, video, clip])
                moods = np.clip(label / 3 + rng.normal(0, _MOOD_NOISE, 3), -1, 1).tolist()
                seconds = float(rng.uniform(1.5, 2.5))
                review = _review(moods[0], rng)
                voice = _voice(moods[1], seconds, rng)
                hole = clip if video == 0 and clips >= 24 else None
                scene = _scene(moods[2], seconds, rng, face=hole not in (0, 1))
                path = root / "Raw" / f"demo{video:02d}" / f"{clip}.mp4"
                write_clip(path, scene, FPS, None if hole == 2 else voice, RATE)
                text = "" if hole == 3 else review
                sign = "Negative" if label < 0 else "Positive" if label > 0 else "Neutral"
                writer.writerow([path.parent.name, path.stem, text, label, sign, mode])
    return table


def _deal_labels(clips: int, videos: int, rng: np.random.Generator) -> list[list[float]]:
    """Labels evenly spread over [-3, 3], a list a video; each list goes over the whole range."""
    labels = np.linspace(-3, 3, clips).round(1)
    labels[np.abs(labels) < 0.2] = 0
    for block in np.split(labels, range(videos, clips, videos)):  # views, shuffled in place
        rng.shuffle(block)
    return [rng.permutation(labels[video::videos]).tolist() for video in range(videos)]


def _review(mood: float, rng: np.random.Generator) -> str:
    """A sentence of film review, five of its words good or bad as the mood says."""
    review = _REVIEWS[rng.integers(len(_REVIEWS))]
    slots = review.count("{}")
    good = round(slots * (1 + mood) / 2)
    words = [*rng.choice(GOOD_WORDS, good), *rng.choice(BAD_WORDS, slots - good)]
    return review.format(*rng.permutation(words))


def _voice(mood: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(samples,) syllables at RATE: high, loud and clear for a mood of 1, the reverse for -1."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 240 * 2 ** (mood + 0.05 * np.sin(2 * np.pi * rng.uniform(1, 3) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = np.sin(phase) + np.sin(2 * phase) / 2 + np.sin(3 * phase) / 4
    hiss = rng.normal(0, 1, time.size)
    syllables = 0.2 + 0.8 * np.sin(np.pi * rng.uniform(3, 5) * time) ** 2
    clarity, loudness = 0.7 + 0.25 * mood, 0.2 * 2**mood
    voice = loudness * syllables * (clarity * tone / 1.75 + (1 - clarity) * hiss / 2)
    return voice.clip(-1, 1).astype(np.float32)


def _scene(
    mood: float, seconds: float, rng: np.random.Generator, face: bool
) -> Iterator[NDArray[np.uint8]]:
    """(HEIGHT, WIDTH, 3) pictures: bright, warm and lively for a mood of 1, the reverse for -1."""
    tint = np.array([1 + 0.25 * mood, 1, 1 - 0.25 * mood])
    wall = (115 + 65 * mood) * tint
    x, y = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    start, tilt, gait = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5), rng.uniform(0.8, 1.2)
    pixels, mask = _head()
    lit = pixels * (0.95 + 0.3 * mood) * tint
    height, width = mask.shape[:2]
    for number in range(round(seconds * FPS)):
        swing = start + number / FPS * 2 * np.pi * gait * (0.8 + 0.5 * mood)
        stripes = 0.15 * np.sin(2 * np.pi * (x + tilt * y) / 40 + 2 * swing)
        picture = wall * (1 + stripes[..., None]) + rng.normal(0, 3, (HEIGHT, WIDTH, 1))
        if face:
            top = (HEIGHT - height) // 2 + round(4 * np.sin(2 * swing))
            left = (WIDTH - width) // 2 + round(12 * np.sin(swing))
            behind = picture[top : top + height, left : left + width]
            behind += mask * (lit - behind)
        yield picture.clip(0, 255).astype(np.uint8)


@cache
def _head() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The head of the photograph, (96, 72, 3) RGB, and the (96, 72, 1) oval that shows it."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photograph:
        small = photograph.convert("RGB").resize((72, 96), Image.Resampling.LANCZOS, box=_HEAD)
    y, x = np.ogrid[-1:1:96j, -1:1:72j]
    oval = np.clip((1 - np.hypot(x, y)) * 6, 0, 1)
    return np.asarray(small, dtype=np.float64), oval[..., None]
