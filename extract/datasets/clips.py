"""What a dataset is to the rest of `extract`: clips in order, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipmsa.cache import Utterance
from clipmsa.cache.frames import Framed
from clipmsa.cache.spec import is_drawn

if TYPE_CHECKING:
    import pandas as pd


class Published(NamedTuple):
    """What somebody counted in a dataset, to compare with what is found."""

    what: str  # clips or videos
    whose: str
    counts: tuple[int, int, int]  # train, valid, test


@dataclass(frozen=True)
class Clip:
    """What is known of an utterance, and the file that it is, or is a part of."""

    utterance: Utterance
    path: Path

    @property
    def start(self) -> float:
        """Seconds in the file."""
        return self.utterance.start

    @property
    def end(self) -> float | None:
        """Seconds in the file; None for the end of the file."""
        return None if math.isinf(self.utterance.end) else self.utterance.end


@dataclass(frozen=True, repr=False)
class Manifest(Framed):
    """A dataset by name, its clips in the table's order."""

    dataset: str
    clips: list[Clip]
    layout: str = ""  # how the folder was understood, in words
    splits: str = ""  # where the splits come from, in words
    block: str = ""  # which of how many blocks of the table this is, as 3/8; "" is the whole
    gaps: Mapping[str, Sequence[str]] = field(default_factory=dict)  # what is missing -> ids
    media: tuple[Path, ...] = ()  # folders that hold clips and nothing else
    joined: bool = False  # out of several files, and not read off one table that lists each clip
    published: Sequence[Published] = ()  # what others counted in it

    def __repr__(self) -> str:
        videos = len(self.videos())
        return f"Manifest({self.dataset!r}: {len(self.clips)} clips of {videos} videos)"

    def to_frame(self) -> pd.DataFrame:
        """A row a clip: id, path, and all that is known of its utterance."""
        import pandas as pd

        names = [field.name for field in fields(Utterance)]
        rows = [
            [clip.utterance.id, str(clip.path), *(getattr(clip.utterance, n) for n in names)]
            for clip in self.clips
        ]
        return pd.DataFrame(rows, columns=["id", "path", *names])

    @property
    def drawn(self) -> bool:
        """Whether the splits are our own draw, so that figures compare with nobody's."""
        return is_drawn(self.splits)

    @property
    def called(self) -> str:
        """A name for files: the dataset's, and that of the block where it is one."""
        index, _, count = self.block.partition("/")
        return f"{self.dataset}.{index}-of-{count}" if self.block else self.dataset

    def shard(self, index: int, count: int) -> Manifest:
        """Block `index`, counted from 0, of `count` nearly equal blocks of the table.

        >>> table = Manifest("d", list(range(10)))
        >>> [table.shard(i, 3).clips for i in range(3)]
        [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
        """
        start, end = (len(self.clips) * i // count for i in (index, index + 1))
        return replace(
            self, clips=self.clips[start:end], block=f"{index}/{count}" if count > 1 else ""
        )

    def first(self, count: int) -> Manifest:
        """The first clips of the table, for a try."""
        return replace(self, clips=self.clips[:count])

    def videos(self, split: str | None = None) -> set[str]:
        """Ids of the videos that clips are of, of one split or of all."""
        clips = (c for c in self.clips if split in (None, c.utterance.split))
        return {clip.utterance.video_id for clip in clips}
