"""What real folders hold: each clip gives features or one row in /failures, and no run ends early.

One run over all of it with the real encoders at toy sizes. `tests/extract/media/test_media.py` and
`tests/extract/datasets/test_read.py` look at each kind of file and table more closely.
"""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray
from PIL import Image

from clipmsa.cache import FeatureStore
from clipmsa.cli.main import main
from clipmsa.extract.datasets.demo import write_clip

pytestmark = pytest.mark.slow

RATE = 16000
SAID = "it was a fine film"
VECTORS = ("albert", "clip_text", "wav2vec2", "esresnext")


def sine(seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    return (0.4 * np.sin(np.arange(round(seconds * rate)) / 9)).astype(np.float32)


def scene(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """A face that fills the picture."""
    photograph = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False))
    return np.asarray(photograph.crop((90, 0, 440, 375)).resize((width, height)).convert("RGB"))


def write_surround(path: Path) -> None:
    """Sound in 5.1 without pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "5.1"
        samples = np.stack([sine(1, 48000)] * 6)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="5.1")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_varying(path: Path) -> None:
    """Ten pictures in a second and then three."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 120, 160, "yuv420p"
        for time in [*range(0, 1000, 100), 1300, 1600, 1900]:
            picture = av.VideoFrame.from_ndarray(scene(), format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


# (video_id, clip_id): text, rows of (albert, clip_text, wav2vec2, esresnext), has frames, has faces
GOOD = {
    ("plain", "1"): (SAID, "1111", True, True),
    ("no-sound", "1"): (SAID, "1100", True, True),
    ("no-picture", "1"): (SAID, "1111", False, False),
    ("surround", "1"): (SAID, "1111", False, False),
    ("silence", "1"): (SAID, "1111", True, True),
    ("phone", "1"): (SAID, "1111", True, True),  # 8 kHz
    ("40-ms", "1"): (SAID, "1111", True, True),
    ("100-s", "1"): (SAID, "1111", True, True),
    ("varying", "1"): (SAID, "1100", True, True),
    ("rotated", "1"): (SAID, "1111", True, True),
    ("odd", "1"): (SAID, "1111", True, True),  # 161 x 119 pixels
    ("tiny", "1"): (SAID, "1111", True, False),  # 6 x 2 pixels
    ("thin", "1"): (SAID, "1111", True, False),  # 600 x 4 pixels
    ("no-words", "1"): ("", "0011", True, True),
    ("blank", "1"): (" \t ", "0011", True, True),
    ("long-words", "1"): ("on and on " * 3000, "1111", True, True),
    ("one-word", "1"): ("x" * 20000, "1111", True, True),
    ("emoji", "1"): ("🎬👩‍👩‍👧 é ¿ 映画 \u202e", "1111", True, True),
    ("-starts-with-a-dash", "-1"): (SAID, "1111", True, True),
    ("0007", "0042"): (SAID, "1111", True, True),
    ("a___b", "c___d"): (SAID, "1111", True, True),
    ("🎬 with blanks", "é 1"): (SAID, "1111", True, True),
}
BAD = {
    ("empty", "1"): "the file is empty",
    ("missing", "1"): "no such file",
    ("text", "1"): "cannot be decoded",
    ("cut-off", "1"): "cannot be decoded",
    ("cut-in-the-data", "1"): "damaged|cut off",
    ("folder", "1"): "no such file",
}


def write_media(raw: Path) -> None:
    sound = sine(0.6)
    pictures = [scene()] * 6
    for video, clip in [*GOOD, ("empty", "1"), ("cut-off", "1")]:
        write_clip(raw / video / f"{clip}.mp4", pictures, 10, sound, RATE)
    write_clip(raw / "no-sound" / "1.mp4", pictures, 10, None, RATE)
    write_clip(raw / "no-picture" / "1.mp4", [], 10, sound, RATE)
    write_surround(raw / "surround" / "1.mp4")
    write_clip(raw / "silence" / "1.mp4", pictures, 10, np.zeros(9600, np.float32), RATE)
    write_clip(raw / "phone" / "1.mp4", pictures, 10, sine(0.6, 8000), 8000)
    write_clip(raw / "40-ms" / "1.mp4", [scene()], 25, sine(0.04), RATE)
    write_clip(raw / "100-s" / "1.mp4", [scene()] * 200, 2, sine(100), RATE)
    write_varying(raw / "varying" / "1.mp4")
    sideways = [np.rot90(scene()).copy()] * 6
    write_clip(raw / "rotated" / "1.mp4", sideways, 10, sound, RATE, rotation=270)
    odd = [scene(119, 161)] * 6
    write_clip(raw / "odd" / "1.mp4", odd, 10, sound, RATE, pixel_format="yuv444p")
    write_clip(raw / "tiny" / "1.mp4", [scene(2, 6)] * 6, 10, sound, RATE)
    write_clip(raw / "thin" / "1.mp4", [scene(4, 600)] * 6, 10, sound, RATE)
    (raw / "empty" / "1.mp4").write_bytes(b"")
    whole = (raw / "cut-off" / "1.mp4").read_bytes()
    (raw / "cut-off" / "1.mp4").write_bytes(whole[: len(whole) // 2])
    web = raw / "cut-in-the-data" / "1.mp4"
    write_clip(web, [scene()] * 40, 10, sine(4), RATE, faststart=True)
    web.write_bytes(web.read_bytes()[: web.stat().st_size * 2 // 3])
    (raw / "text").mkdir()
    (raw / "text" / "1.mp4").write_text("this is no clip\n" * 100)
    (raw / "folder" / "1.mp4").mkdir(parents=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root = tmp_path_factory.mktemp("bad") / "d"
    write_media(root / "Raw")
    texts = {id_: said for id_, (said, *_) in GOOD.items()} | dict.fromkeys(BAD, SAID)
    with (root / "label.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["video_id", "clip_id", "text", "label", "mode"])
        table.writerows([*id_, text, 0.5, "train"] for id_, text in texts.items())
    line = ["extract", "--dataset", str(root), "--out", str(root / "s.h5"), "--profile", "tiny"]
    assert main([*line, "--device", "cpu"]) == 0
    return FeatureStore(root / "s.h5")


def test_every_clip_has_features_or_a_reason(store: FeatureStore) -> None:
    assert store.ids == [f"{video}$_${clip}" for video, clip in GOOD]
    assert [failure.id for failure in store.failed] == [f"{v}$_${c}" for v, c in BAD]
    assert {failure.stage for failure in store.failed} == {"media"}


@pytest.mark.parametrize("id_", BAD, ids="_".join)
def test_a_reason_names_the_file(store: FeatureStore, id_: tuple[str, str]) -> None:
    video, clip = id_
    (reason,) = [f.error for f in store.failed if f.id == f"{video}$_${clip}"]
    assert any(words in reason for words in BAD[id_].split("|")), reason
    assert f"{video}/{clip}.mp4" in reason


@pytest.mark.parametrize("id_", GOOD, ids="_".join)
def test_what_is_there_is_encoded_and_what_is_not_has_no_rows(
    store: FeatureStore, id_: tuple[str, str]
) -> None:
    text, vectors, frames, faces = GOOD[id_]
    row = store.index["$_$".join(id_)]
    assert store.texts[row] == text
    assert "".join(str(len(store.streams[name][row])) for name in VECTORS) == vectors
    assert (len(store.streams["clip_image"][row]) > 0) == frames
    assert (len(store.streams["face_vgg"][row]) > 0) == faces
    for stream in store.streams.values():
        assert np.isfinite(stream[row]).all()


def test_durations_are_those_of_the_clips(store: FeatureStore) -> None:
    seconds = {video: store.durations[store.index[f"{video}$_$1"]] for video in ("40-ms", "100-s")}
    assert seconds["40-ms"] == pytest.approx(0.04, abs=0.1)
    assert seconds["100-s"] == pytest.approx(100, abs=0.2)
    assert len(store.streams["clip_image"][store.index["100-s$_$1"]]) == 16  # the profile's limit
