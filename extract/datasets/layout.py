"""What a dataset layout is: a way in which people keep clips, texts and labels on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from .clips import Manifest, Published


class Layout(Protocol):
    """A layout; any class with these attributes will do, derived from this one or not.

    It is made without arguments. docs/extending.md has an example.
    """

    name: ClassVar[str]
    looks_like: ClassVar[str]  # for the error that lists all of them: which files are where
    published: ClassVar[Mapping[str, Sequence[Published]]] = {}  # by dataset, as mosi

    def recognises(self, root: Path) -> bool:
        """Whether a folder is in this layout, by a look at which files are there."""
        ...

    def read(self, root: Path) -> Manifest:
        """The clips of a folder in this layout, in a fixed order.

        Where the dataset has no splits of its own, those of all utterances are "": they are then
        those of the user's fold lists, or drawn by video.

        Raises:
            TableError: rows are faulty; names file and row.
        """
        ...
