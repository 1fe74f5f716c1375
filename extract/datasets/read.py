"""A dataset by its name or place, whichever of the layouts that people have it is in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from clipmsa.cache.errors import TableError
from clipmsa.cache.texts import kind_of

from . import csv_table, folds, registry
from .clips import Clip, Manifest
from .tables import TABLE_SUFFIXES

__all__ = ["Clip", "Manifest", "read_dataset"]


def read_dataset(
    name: str, root: Path | None = None, fold_file: Path | None = None, layout: str | None = None
) -> Manifest:
    """Read a dataset by name, folder or CSV file.

    `name` is a CSV manifest (`path,text,label,split`, paths relative to its folder or to `root`),
    a folder, or a plain name such as `mosi`, looked for in `root` or else in `data/<name>`.
    `layout` names the layout of a folder, as `registry.py` does or as `package.module:Class`; a
    layout of one's own may be of files, too. Without it, the folder is looked at. Splits are those
    of the dataset, or for CMU's own folders of CMU's folds (`folds.py`); `fold_file` replaces them.

    Raises:
        TableError: nothing there, a column is missing, or rows are faulty; names file and row.
        PluginError: no such layout, or one from outside fails.
    """
    path = Path(name)
    if layout is None and path.suffix.lower() in TABLE_SUFFIXES:
        if not path.is_file():
            raise TableError(f"{path}: no such manifest")
        manifest = csv_table.read_csv(path, root or path.parent)
        return manifest if fold_file is None else folds.split(manifest, fold_file)
    if layout is None and path.is_file():
        raise TableError(
            f"{path}: is {kind_of(path) or 'a file'}, must be a folder, or a table in CSV whose "
            f"name ends so"
        )
    there = Path.is_dir if layout is None else Path.exists
    if root is None:
        root = path if there(path) else Path("data") / name
    if not there(root):
        raise TableError(
            f"{root}: no such folder; `dataset={name!r}` looks for label.csv and Raw/ there: "
            f"put the dataset there, or say with `root` where it is"
        )
    named = path if path.name.strip(".") else path.resolve()  # "." is the folder we are in
    called = named.stem if named.is_file() else named.name
    chosen = registry.recognised(root) if layout is None else registry.layout(layout)
    if chosen is None:
        known = "; ".join(f"{each.name}: {each.looks_like}" for each in registry.known_layouts())
        raise TableError(f"{root}: in none of the layouts that are known ({known})")
    published = registry.published(chosen)
    others = {of for each in registry.known_layouts() for of in registry.published(each)}
    if published and called in others - published.keys():
        found = " or ".join(published)
        raise TableError(
            f"{root}: is {found.upper()} ({chosen.name}), and `dataset={called!r}` was asked for; "
            f"say `dataset={found!r}`, or another `root`"
        )
    manifest = registry.read(chosen, root)
    # Of a folder CMU_MOSI those of mosi; of mosimages none.
    words = re.findall("[a-z0-9]+", f"{manifest.dataset} {called}".lower())
    counts = next((published[word] for word in words if word in published), ())
    if fold_file is not None or not manifest.clips[0].utterance.split:
        manifest = folds.split(manifest, fold_file)
    splits = manifest.splits or f"layout {chosen.name}"
    return replace(manifest, dataset=called, splits=splits, published=counts)
