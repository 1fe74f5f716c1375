"""Small pictures of a clip: from where in time, how large, and of what there is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipmsa.cache.errors import MediaError
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.media.thumbnails import thumbnails


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Four seconds at ten pictures a second, whose brightness is 6 a picture: 0 to 234."""
    path = tmp_path_factory.mktemp("clips") / "rising.mp4"
    pictures = [np.full((180, 320, 3), 6 * n, np.uint8) for n in range(40)]
    write_clip(path, pictures, 10, None, 16000)
    return path


def seconds(picture: bytes) -> float:
    """When in the clip a picture is from, by its brightness."""
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "JPEG"
        return float(np.asarray(image.convert("L")).mean()) / 60


@pytest.mark.parametrize(
    ("count", "start", "end", "times"),
    [
        (1, 0, None, [2.0]),
        (4, 0, None, [0.5, 1.5, 2.5, 3.5]),
        (1, 1.0, 2.0, [1.5]),
        (2, 2.0, None, [2.5, 3.5]),
    ],
)
def test_pictures_are_spread_evenly_over_the_clip(clip, count, start, end, times):
    shown = [seconds(picture) for picture in thumbnails(clip, count, start, end)]
    assert shown == pytest.approx(times, abs=0.11)


@pytest.mark.parametrize(("width", "size"), [(160, (160, 90)), (1000, (320, 180))])
def test_pictures_are_made_smaller_and_never_larger(clip, width, size):
    [picture] = thumbnails(clip, 1, width=width)
    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == size


def test_sound_alone_has_no_picture(tmp_path):
    write_clip(tmp_path / "a.mp4", [], 10, np.zeros(16000, np.float32), 16000)
    assert thumbnails(tmp_path / "a.mp4", 3) == []


def test_a_broken_clip_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no clip")
    with pytest.raises(MediaError, match="cannot be decoded"):
        thumbnails(tmp_path / "a.mp4", 1)
