"""CMU's computational sequences (.csd): per video, feature rows and the seconds they are for."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import TableError


class TimedRows(NamedTuple):
    """`intervals` (n, 2): start and end in seconds of the full video; `features` (n, ...)."""

    intervals: NDArray[np.float64]
    features: NDArray[Any]


class ComputationalSequence:
    """A `.csd` file opened for reading, one video at a time; used in a `with` statement.

    The file holds `/<root>/data/<video_id>/{features, intervals}`. As in CMU's SDK, only the first
    root is read. The SDK itself is not needed.

    Raises:
        TableError: not such a file, or a video in it is damaged; names file and video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise TableError(f"{path}: not a readable HDF5 file ({error})") from None
        roots = [name for name in self._file if f"{name}/data" in self._file]
        if not roots:
            self._file.close()
            raise TableError(f"{path}: not a computational sequence, no /<name>/data in it")
        self.name = str(roots[0])
        self._data = self._file[f"{self.name}/data"]
        self.videos = [str(video) for video in self._data]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, video: str) -> bool:
        return video in self._data

    def __getitem__(self, video: str) -> TimedRows:
        try:
            group = self._data[video]
            rows = TimedRows(group["intervals"][:].astype(np.float64), group["features"][:])
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise TableError(f"{self.path}: video '{video}' cannot be read ({error})") from None
        shape = rows.intervals.shape
        if shape != (len(rows.features), 2):
            raise TableError(
                f"{self.path}: video '{video}' has {len(rows.features)} rows and intervals of "
                f"shape {shape}, must be ({len(rows.features)}, 2)"
            )
        return rows
