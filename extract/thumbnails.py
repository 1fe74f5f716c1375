"""Small pictures of a clip, for people to look at."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from .media import probe, read_frames


def thumbnails(path: Path, count: int, width: int = 160, quality: int = 80) -> list[bytes]:
    """JPEG pictures of a clip at `count` times spread evenly over it, one in its middle for 1.

    A clip with fewer pictures gives as many as it has times for, one without pictures none. No
    picture is wider than `width` pixels.

    Raises:
        MediaError: the clip cannot be decoded.
    """
    info = probe(path)
    if not info.has_video or not info.duration:
        return []
    step = info.duration / count
    frames = read_frames(path, 1 / step, count, start=step / 2)
    return [_jpeg(Image.fromarray(pixels), width, quality) for _, pixels in frames]


def _jpeg(picture: Image.Image, width: int, quality: int) -> bytes:
    picture.thumbnail((width, 10 * width))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()
