"""`clipmsa weights`: what checkpoints a profile needs, which are there, and getting the others."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipmsa.cli.options import Profile as Shipped
from clipmsa.progress import progress
from clipmsa.terminal import note, out, styled

if TYPE_CHECKING:
    from clipmsa.extract.profiles.profile import Profile
    from clipmsa.extract.weights.find import Checkpoint


class Action(StrEnum):
    list = "list"
    fetch = "fetch"


def weights(
    action: Annotated[
        Action, typer.Argument(help="list what there is and what is missing, or fetch it.")
    ] = Action.list,
    profile: Shipped = "paper",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="A folder, as `extract --weights DIR` reads it.",
            show_default="the caches of Hugging Face and torch",
        ),
    ] = None,
    transcriber: Annotated[
        bool, typer.Option("--transcriber", help="That of `predict --transcribe` instead.")
    ] = False,
) -> None:
    """List the checkpoints of a profile, or download those that are missing.

    A download that broke off goes on where it was; a file that has a SHA-256 is checked.

    Example: clipmsa weights fetch --profile paper --dir weights
    """
    from clipmsa.extract.profiles.profile import load_profile
    from clipmsa.extract.weights.find import TRANSCRIBER

    if transcriber:
        chosen, options = [(["transcriber"], dict(TRANSCRIBER))], "--transcriber"
    else:
        chosen, options = list(_sources(load_profile(profile))), f"--profile {shlex.quote(profile)}"
    if not chosen:
        note("profile '{}' needs no checkpoints: it is for --weights random", profile)
    elif action is Action.list:
        show_list(chosen, folder, options)
    else:
        fetch(chosen, folder, options)


Sources = list[tuple[list[str], dict[str, Any]]]  # what needs a checkpoint, and where it is from


def show_list(sources: Sources, folder: Path | None, options: str) -> None:
    """A table of checkpoints; those that are there are read and checked."""
    from rich.table import Table

    from clipmsa.cache.errors import ChecksumError, WeightsError
    from clipmsa.extract.weights.find import find_checkpoint, source_name

    table = Table("streams", "source", "MB", "SHA-256", "present")
    missing = 0
    for streams, source in sources:
        what = f"{source_name(source)}{' ' + source['file'] if 'file' in source else ''}"
        size = str(source.get("megabytes", "?"))
        digest, where = source.get("sha256", "not given"), styled("[red]missing[/]")
        try:
            found = find_checkpoint(streams[0], source, folder or "pretrained", fetch=False)
            size, digest, where = f"{_megabytes(found):.0f}", found.sha256, styled("{}", found.path)
        except ChecksumError:
            missing += 1
            where = styled("[red]another file, or damaged[/]")
        except WeightsError:
            missing += 1
        table.add_row(", ".join(streams), what, size, digest[:16], where)
    out.print(table)
    if missing:
        note(
            "{} missing; `clipmsa weights fetch {}{}` gets them",
            missing,
            options,
            f" --dir {folder}" if folder else "",
        )


def fetch(sources: Sources, folder: Path | None, options: str) -> None:
    """Download what is missing, one checkpoint after another.

    Raises:
        WeightsError: some could not be had; the others have been fetched all the same.
    """
    from clipmsa.cache.errors import WeightsError
    from clipmsa.extract.weights.find import find_checkpoint, source_name

    failed: list[WeightsError] = []
    for streams, source in sources:
        with progress(source_name(source).rpartition("/")[2], "MB") as advance:

            def on_bytes(done: int, total: int, advance: Any = advance) -> None:
                advance(done // 10**6, max(total, done) // 10**6)

            try:
                found = find_checkpoint(
                    streams[0],
                    source,
                    folder or "pretrained",
                    fetch=True,
                    on_bytes=on_bytes,
                    fetched_with=options,
                )
            except WeightsError as error:
                failed.append(error)
                continue
        note("{}: {} ({})", ", ".join(streams), found.path, found.sha256[:16])
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise WeightsError(f"{failed[0]}{more}")


def _sources(profile: Profile) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """The profile's checkpoints, each with the streams that share it."""
    seen: list[dict[str, Any]] = []
    for recipe in profile.streams:
        source = dict(recipe.source)
        if source and source not in seen:
            seen.append(source)
            yield [r.name for r in profile.streams if r.source == source], source


def _megabytes(checkpoint: Checkpoint) -> float:
    path = checkpoint.path
    assert path is not None
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6
