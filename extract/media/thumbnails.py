"""Small pictures of a clip, for people to look at."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from .video import probe, read_frames


def thumbnails(
    path: Path, count: int, start: float = 0.0, end: float | None = None, width: int = 160
) -> list[bytes]:
    """JPEG pictures at `count` times spread evenly over a clip, one in its middle for 1.

    The clip is `path` from `start` to `end` in seconds, None for the file's end. Without a video
    stream there are none. No picture is wider than `width` pixels.

    Raises:
        MediaError: the clip cannot be decoded.
    """
    info = probe(path)
    length = (info.duration if end is None else end) - start
    if not info.has_video or length <= 0:
        return []
    step = length / count
    frames = read_frames(path, 1 / step, count, start + step / 2, end)
    return [_jpeg(Image.fromarray(pixels), width) for _, pixels in frames]


def _jpeg(picture: Image.Image, width: int) -> bytes:
    picture.thumbnail((width, 10 * width))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80, optimize=True)
    return file.getvalue()
