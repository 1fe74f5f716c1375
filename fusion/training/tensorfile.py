"""Containers and tensors in one file, as torch saves them: written whole, read without trust.

`torch.load(weights_only=True)` runs no code, but it believes an archive: it inflates what is
deflated, reads past a record that is shorter than a tensor says, and sees no flipped byte, since
torch is built without the check of a zip's sums. So the archive is checked here first, and nothing
is built before every size that it declares has been compared with what is there.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipmsa.cache.errors import CheckpointError
from clipmsa.cache.files import publish
from clipmsa.cache.texts import PYTORCH, kind_of

# All that the pickle of such a file may name; torch would take some fifty more.
_NAMED = re.compile(r"collections OrderedDict|torch._utils _rebuild_tensor_v2|torch \w+Storage")
_NAMING = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
_BLOCK = 1 << 20  # bytes read at a time
_DEPTH = 32  # of containers in one another


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write containers, numbers, texts and tensors, whole or not at all."""
    archive = io.BytesIO()  # torch's own writer makes of a full disk an error without its name
    torch.save(dict(content), archive)
    with publish(path) as temporary:
        temporary.write_bytes(archive.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, by whomever; nothing in it is executed, nothing inflated.

    Tensors lie in memory of the size of the file.

    Raises:
        CheckpointError: no such file, damaged, or holding anything but containers and tensors.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    kind = kind_of(path)
    if kind not in (None, PYTORCH):
        raise CheckpointError(f"{path}: is {kind}, must be a checkpoint of clipmsa")
    try:
        _check_archive(path)
        # Mapped, a tensor cannot reach beyond the file; unmapped, torch lets it.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        out = _checked(content)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of clipmsa, or damaged ({error})"
        ) from None
    except Exception as error:
        # Whatever a parser stumbles over; torch's words advise to read the file with less care.
        reason = type(error).__name__
        raise CheckpointError(
            f"{path}: not a checkpoint of clipmsa, or damaged ({reason})"
        ) from error
    if not isinstance(out, dict):
        raise CheckpointError(f"{path}: not a checkpoint of clipmsa")
    return out


def _check_archive(path: Path) -> None:
    """Every record is stored as it is, is as long as it says, and has its sum."""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise CheckpointError("empty, cut off, or of another kind") from None
    with archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise CheckpointError("a record is compressed")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise CheckpointError("its records are longer than the file")
        for record in records:
            if record.filename.endswith("/data.pkl"):
                _check_names(archive.read(record))
            else:
                with archive.open(record) as stream:
                    while stream.read(_BLOCK):  # at its end, the sum is compared
                        pass


def _check_names(pickle: bytes) -> None:
    for op, argument, _ in pickletools.genops(pickle):
        if op.name in _NAMING and not (op.name == "GLOBAL" and _NAMED.fullmatch(str(argument))):
            raise CheckpointError(f"it names '{argument}', which is no tensor")


def _checked(value: Any, depth: int = 0) -> Any:
    """A copy of plain values alone; of tensors, of those that own what they show."""
    if depth > _DEPTH:
        raise CheckpointError("containers lie too deep in one another")
    if isinstance(value, Mapping):
        return {_checked(k, depth + 1): _checked(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_checked(item, depth + 1) for item in value)
    if isinstance(value, Tensor):
        held = value.untyped_storage().nbytes() if value.layout == torch.strided else 0
        if value.numel() * value.element_size() > held or value.device.type != "cpu":
            raise CheckpointError("a tensor is larger than the bytes that it is made of")
        return value.clone()  # off the map: a file that is written over must not change it
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise CheckpointError(f"it holds a {type(value).__name__}")
