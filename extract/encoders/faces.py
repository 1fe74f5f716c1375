"""Faces: MTCNN finds the largest in each frame, a network encodes its crop.

In the paper (Sec. 2.2.3) that is VGG-11; facenet-pytorch's InceptionResnetV1 is trained on faces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from facenet_pytorch import MTCNN, InceptionResnetV1
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models.vgg import VGG, cfgs, make_layers

from clipmsa.cache.errors import ProfileError
from clipmsa.extract.weights.tensors import load_strictly, read_state

from .encoder import Encoder, Setup, in_batches, seeded
from .fast_layers import InPieces, with_winograd

_DETECT_BATCH = 32
_CROP_BATCH = 32  # the two large layers at the end are read once for all of these,
_CPU_PICTURES = 2  # while the convolutions before them work best in the cache
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class MtcnnFaces(Encoder):
    """The largest face of each frame through a network; no row for a frame without a face.

    Frames are kept with a short side of at most `crop_side` pixels, from which crops are taken,
    `margin` wider on every side. Detection, which costs by the pixel, runs on copies of at most
    `detect_side`, for faces of at least `min_face` pixels there.
    MTCNN's weights are facenet-pytorch's own and always trained; only the network's can be random.
    The network takes crops of `image_size` pixels a side, as (byte - mean) / std.
    """

    modality = "vision"
    consumes = "frames"
    level = "sequence"
    faces = True

    def __init__(
        self,
        setup: Setup,
        network: nn.Module,
        *,
        crop_side: int,
        detect_side: int,
        min_face: int,
        margin: float,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        dim: int,
    ) -> None:
        if not (crop_side >= detect_side >= min_face >= 1 and margin >= 0):
            raise ProfileError(
                f"stream '{setup.stream}': needs crop_side >= detect_side >= min_face >= 1 and "
                f"margin >= 0, not {crop_side}, {detect_side}, {min_face} and {margin}"
            )
        with seeded(setup.stream):  # it draws random weights, too, before it loads its own
            detector = MTCNN(min_face_size=min_face, device=setup.device).eval()
        # torch's max pools are three times as fast so, and detection by a third.
        self.detector = detector.to(memory_format=torch.channels_last)
        super().__init__(setup, network.to(memory_format=torch.channels_last))
        self.crop_side, self.detect_side = crop_side, detect_side
        self.min_face, self.margin = min_face, margin
        self.image_size, self.dim = image_size, dim
        self._mean = torch.tensor(mean, device=setup.device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=setup.device).view(1, 3, 1, 1)

    def prepare(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) -> the same picture with a short side of at most `crop_side` pixels."""
        height, width = shrunk(frame.shape, self.crop_side)
        if (height, width) == frame.shape[:2]:
            return frame
        return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))

    def _encode(self, items: Sequence[Sequence[NDArray[np.uint8]]]) -> list[Tensor]:
        frames = [frame for item in items for frame in item]
        boxes = self._largest_faces(frames)
        seen = zip(frames, boxes, strict=True)
        crops = [self._crop(frame, box) for frame, box in seen if box is not None]
        rows = [self._embed(batch) for batch in in_batches(crops, _CROP_BATCH)]
        found = iter(torch.cat(rows) if rows else ())
        out, start = [], 0
        for item in items:
            count = sum(box is not None for box in boxes[start : start + len(item)])
            vectors = [next(found) for _ in range(count)]
            out.append(torch.stack(vectors) if vectors else torch.empty(0, self.dim))
            start += len(item)
        return out

    def _largest_faces(
        self, frames: Sequence[NDArray[np.uint8]]
    ) -> list[NDArray[np.float32] | None]:
        """(x1, y1, x2, y2) in pixels of the largest face of each frame; None where there is none.

        MTCNN takes frames of one size at a time, and fails on frames smaller than its smallest
        face.
        """
        boxes: list[NDArray[np.float32] | None] = [None] * len(frames)
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, frame in enumerate(frames):
            # As MTCNN computes it: 47 * (12 / 47) is below 12, so a side of 47 is too short for 47.
            if min(shrunk(frame.shape, self.detect_side)) * (12 / self.min_face) >= 12:
                by_size[frame.shape].append(index)
        for shape, indices in by_size.items():
            height, width = shrunk(shape, self.detect_side)
            back = np.array([shape[1] / width, shape[0] / height] * 2, np.float32)
            for batch in in_batches(indices, _DETECT_BATCH):
                pictures = torch.from_numpy(np.stack([frames[i] for i in batch])).to(self.device)
                # Detection stays in float32: boxes are thresholded, and crops follow them.
                with torch.autocast(self.device.type, enabled=False):
                    small = F.interpolate(
                        pictures.permute(0, 3, 1, 2).float(),
                        (height, width),
                        mode="bilinear",
                        antialias=True,
                    )
                    found, _ = self.detector.detect(small.permute(0, 2, 3, 1))
                for index, candidates in zip(batch, found, strict=True):
                    if candidates is not None and len(candidates):
                        largest = max(np.asarray(candidates, np.float32), key=_area)
                        boxes[index] = largest * back
        return boxes

    def _crop(self, frame: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The box with its margin, cut at the frame's edge, as (image_size, image_size, 3).

        Edges are whole pixels: MTCNN's move by 1e-5 pixels with the other frames of a batch, which
        would be enough to turn some bytes of a crop and a ten-thousandth of its features.
        """
        height, width = frame.shape[:2]
        x1, y1, x2, y2 = (float(edge) for edge in box)
        dx, dy = self.margin * (x2 - x1), self.margin * (y2 - y1)
        x1, y1, x2, y2 = round(x1 - dx), round(y1 - dy), round(x2 + dx), round(y2 + dy)
        # A box may lie partly outside; at least one pixel of it is kept.
        left, top = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
        right, bottom = max(min(x2, width), left + 1), max(min(y2, height), top + 1)
        side = (self.image_size, self.image_size)
        region = (left, top, right, bottom)
        return np.asarray(
            Image.fromarray(frame).resize(side, Image.Resampling.BILINEAR, box=region)
        )

    def _embed(self, crops: Sequence[NDArray[np.uint8]]) -> Tensor:
        pixels = torch.from_numpy(np.stack(crops)).to(self.device).permute(0, 3, 1, 2)
        rows: Tensor = self.module((pixels.float() - self._mean) / self._std)
        return rows


class MtcnnVgg(MtcnnFaces):
    """fc7 of VGG-11, after its ReLU."""

    def __init__(
        self,
        setup: Setup,
        *,
        crop_side: int = 360,
        detect_side: int = 180,
        min_face: int = 20,
        margin: float = 0.1,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        sizes = {"image_size": 224, "shrink": 1, **(architecture or {})}
        if sizes.keys() != {"image_size", "shrink"}:
            raise ProfileError(f"stream '{setup.stream}': architecture takes image_size and shrink")
        if not (sizes["image_size"] >= 32 and 1 <= sizes["shrink"] <= 64):  # VGG-11 halves 5 times
            raise ProfileError(
                f"stream '{setup.stream}': image_size is at least 32, shrink 1 to 64"
            )
        with seeded(setup.stream):
            vgg = vgg11(sizes["shrink"])
        if setup.checkpoint is not None:
            load_strictly(vgg, read_state(setup.checkpoint), setup.checkpoint)
        if setup.device.type == "cpu" and setup.precision == "fp32":
            vgg.features = InPieces(with_winograd(vgg.features), _CPU_PICTURES)
        # Up to fc7 and its ReLU; dropout between is off in eval mode.
        vgg.classifier = vgg.classifier[:5]
        super().__init__(
            setup,
            vgg,
            crop_side=crop_side,
            detect_side=detect_side,
            min_face=min_face,
            margin=margin,
            image_size=int(sizes["image_size"]),
            mean=[255 * value for value in _IMAGENET_MEAN],
            std=[255 * value for value in _IMAGENET_STD],
            dim=vgg.classifier[3].out_features,
        )


class MtcnnInceptionResnet(MtcnnFaces):
    """The embedding of facenet-pytorch's InceptionResnetV1: 512 wide, of length 1.

    Its checkpoints, trained to tell people apart, hold a classifier of as many people as they
    know; it must fit like everything else, and is not used.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        crop_side: int = 360,
        detect_side: int = 180,
        min_face: int = 20,
        margin: float = 0.1,
        image_size: int = 160,
    ) -> None:
        if image_size < 80:  # below, its last convolutions have nothing to give
            raise ProfileError(
                f"stream '{setup.stream}': image_size is {image_size}, must be >= 80"
            )
        state = None if setup.checkpoint is None else read_state(setup.checkpoint)
        people = 0 if state is None or "logits.bias" not in state else len(state["logits.bias"])
        with seeded(setup.stream):
            network = InceptionResnetV1(classify=people > 0, num_classes=people or None)
        if setup.checkpoint is not None and state is not None:
            load_strictly(network, state, setup.checkpoint)
        network.classify, network.logits = False, None
        super().__init__(
            setup,
            network,
            crop_side=crop_side,
            detect_side=detect_side,
            min_face=min_face,
            margin=margin,
            image_size=image_size,
            mean=[127.5] * 3,  # facenet-pytorch's fixed_image_standardization
            std=[128.0] * 3,
            dim=network.last_linear.out_features,
        )


def vgg11(shrink: int = 1) -> VGG:
    """torchvision's VGG-11, every width divided by `shrink`; 1 loads torchvision's checkpoint."""
    layers = [v if isinstance(v, str) else v // shrink for v in cfgs["A"]]
    if shrink == 1:
        return VGG(make_layers(layers))
    model = VGG(make_layers(layers), init_weights=False)
    width = 4096 // shrink
    model.classifier = nn.Sequential(
        nn.Linear(512 // shrink * 7 * 7, width),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(width, width),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(width, 1000),
    )
    return model


def shrunk(shape: Sequence[int], side: int) -> tuple[int, int]:
    """(height, width) of a picture of `shape` when its short side is cut down to `side` pixels.

    >>> shrunk((720, 1280, 3), 360), shrunk((240, 320, 3), 360)
    ((360, 640), (240, 320))
    """
    height, width = shape[:2]
    scale = min(1.0, side / min(height, width))
    return round(height * scale), round(width * scale)


def _area(box: NDArray[np.float32]) -> float:
    x1, y1, x2, y2 = box
    return float((x2 - x1) * (y2 - y1))
