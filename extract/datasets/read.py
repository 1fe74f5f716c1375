"""A dataset by its name or place, whichever of the layouts that people have it is in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clipmsa.cache.errors import TableError
from clipmsa.cache.texts import kind_of

from . import cmu, csv_table, folds, mmsa_layout
from .clips import Clip, Manifest
from .tables import TABLE_SUFFIXES

__all__ = ["Clip", "Manifest", "read_dataset"]


def read_dataset(name: str, root: Path | None = None, fold_file: Path | None = None) -> Manifest:
    """Read a dataset by name, folder or CSV file.

    `name` is a CSV manifest (`path,text,label,split`, paths relative to its folder or to `root`),
    a folder, or a plain name such as `mosi`, looked for in `root` or else in `data/<name>`. A
    folder may be in the MMSA layout (`label.csv` and `Raw/<video_id>/<clip_id>.mp4`), or as CMU
    gives MOSI and MOSEI away (`cmu.py`). Splits are those of the table, or of CMU's folds
    (`folds.py`); `fold_file` replaces them.

    Raises:
        TableError: nothing there, a column is missing, or rows are faulty; names file and row.
    """
    path = Path(name)
    if path.suffix.lower() in TABLE_SUFFIXES:
        if not path.is_file():
            raise TableError(f"{path}: no such manifest")
        manifest = csv_table.read_csv(path, root or path.parent)
        return manifest if fold_file is None else folds.split(manifest, fold_file)
    if path.is_file():
        raise TableError(
            f"{path}: is {kind_of(path) or 'a file'}, must be a folder, or a table in CSV whose "
            f"name ends so"
        )
    if root is None:
        root = path if path.is_dir() else Path("data") / name
    if not root.is_dir():
        raise TableError(
            f"{root}: no such folder; `dataset={name!r}` looks for label.csv and Raw/ there: "
            f"put the dataset there, or say with `root` where it is"
        )
    named = path if path.name.strip(".") else path.resolve()  # "." is the folder we are in
    if (root / mmsa_layout.TABLE).is_file():
        manifest = mmsa_layout.read_mmsa(root, named.name)
        return manifest if fold_file is None else folds.split(manifest, fold_file)
    found = cmu.recognise(root)
    if found is None:
        raise TableError(
            f"{root / mmsa_layout.TABLE}: no such table; the MMSA layout is label.csv "
            f"({','.join(mmsa_layout.COLUMNS)}) beside Raw/<video_id>/<clip_id>.mp4, CMU's own are "
            f"Raw/Transcript/Segmented/*.annotprocessed (MOSI) and "
            f"Raw/Transcript/Segmented/Combined/*.txt (MOSEI)"
        )
    if named.name in ("mosi", "mosei") and named.name != found:
        raise TableError(
            f"{root}: is CMU-{found.upper()}, and `dataset={named.name!r}` was asked for; "
            f"say `dataset={found!r}`, or another `root`"
        )
    manifest = cmu.read_mosi(root) if found == "mosi" else cmu.read_mosei(root)
    return replace(folds.split(manifest, fold_file), dataset=named.name)
