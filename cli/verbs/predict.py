"""`clipmsa predict`: videos -> scores, a row an utterance."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.cache.spec import MODALITIES
from clipmsa.cli.console import warn_untrained
from clipmsa.cli.flags import as_flags
from clipmsa.cli.options import (
    Checkpoints,
    Device,
    MaxSeconds,
    RunOrModel,
    Transcribe,
    Trust,
    Videos,
)
from clipmsa.progress import Advance, progress
from clipmsa.terminal import note, out, shown, shown_in_json, styled

if TYPE_CHECKING:
    from clipmsa.fusion.analysis.scored import ScoredUtterance


def predict(
    model: RunOrModel,
    videos: Videos,
    text: Annotated[str | None, typer.Option(help="What is said in the video.")] = None,
    subtitles: Annotated[
        Path | None, typer.Option(help="The video's subtitles: a row a cue.")
    ] = None,
    transcribe: Transcribe = False,
    max_seconds: MaxSeconds = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, a line a row.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
    weights: Checkpoints = "pretrained",
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances encoded together.")] = 8,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any file failed.")] = False,
    trust: Trust = None,
) -> None:
    """Score videos with a trained model: from -3 to 3, with what text, sound and picture gave.

    The model's file says which encoders made its features; the same ones are used, or refused.
    What is said comes from --text, --subtitles or --transcribe, or from a file beside the video and
    of its name (talk.srt, talk.en.vtt, talk.ass, talk.txt), or from subtitles inside it. Subtitles
    cut a video into utterances; without, and if it is long, its pauses do.

    Example: clipmsa predict runs/mosi talk.mp4 --text "The ending though!"
    """
    if as_json and as_csv:
        raise typer.BadParameter("give one of --json and --csv", param_hint="--csv")
    if weights == "random":
        raise typer.BadParameter("the model says whether its are random", param_hint="--weights")
    from clipmsa.extract.transcripts.cut import Script, find_videos
    from clipmsa.extract.transcripts.subtitles import read_subtitles
    from clipmsa.judging import load

    files = find_videos(videos)
    if (text is not None) + (subtitles is not None) + transcribe > 1:
        raise typer.BadParameter(
            "give one of --text, --subtitles and --transcribe", param_hint="--text"
        )
    if (text is not None or subtitles is not None) and len(files) > 1:
        hint = "--text" if subtitles is None else "--subtitles"
        raise typer.BadParameter(f"is of one video, and these are {len(files)}", param_hint=hint)
    read = None if subtitles is None else read_subtitles(subtitles)
    scorer = load(model, weights=weights, device=device, batch_size=batch_size, trust=trust or ())
    models = scorer.models
    note("{}: {}", model, "1 model" if len(models.seeds) == 1 else f"{len(models.seeds)} models")
    script = Script(text, read, longest=max_seconds)
    writer = _json_lines if as_json else _csv_table if as_csv else _rich_table
    failed = wordless = 0
    with writer(model) as write, _progress(live=writer is _rich_table) as advance:
        for row in scorer.stream(files, script, transcribe=transcribe, on_progress=advance):
            write(row if row.error is None else replace(row, error=as_flags(row.error, "predict")))
            failed += row.error is not None
            wordless += "text" in row.missing
    if wordless:
        note(
            "{} scored without text, from sound and picture alone: give --text, "
            "--subtitles or --transcribe, or put a .srt, .vtt or .txt of its name beside the video",
            wordless,
        )
    if failed:
        note("[bold red]{} failed[/]; the rows say why", failed)
    warn_untrained(models.untrained)
    if strict and failed:
        raise typer.Exit(1)


Write = Callable[["ScoredUtterance"], None]


@contextmanager
def _json_lines(model: Path) -> Iterator[Write]:
    """Every row as it comes, one JSON object a line."""

    def write(row: ScoredUtterance) -> None:
        line = json.dumps(asdict(row), ensure_ascii=False, allow_nan=False)
        print(shown_in_json(line), flush=True)

    yield write


@contextmanager
def _csv_table(model: Path) -> Iterator[Write]:
    """Every row as it comes, under a header; lists are separated by spaces."""
    from clipmsa.cache.csvtext import csv_line
    from clipmsa.fusion.analysis.scored import ScoredUtterance

    def cells(row: ScoredUtterance) -> dict[str, object]:
        values = asdict(row)
        given = values.pop("contributions") or {}
        return {
            key: " ".join(value) if isinstance(value, tuple) else value
            for key, value in values.items()
        } | {f"contribution_{modality}": given.get(modality) for modality in MODALITIES}

    def write_line(values: Iterable[object]) -> None:
        line = csv_line(values)
        print(shown(line) if sys.stdout.isatty() else line, end="", flush=True)

    write_line(cells(ScoredUtterance("", 0.0, None, "")))

    def write(row: ScoredUtterance) -> None:
        write_line(cells(row).values())

    yield write


@contextmanager
def _rich_table(model: Path) -> Iterator[Write]:
    """A table for reading, printed at the end."""
    from rich.table import Table

    table = Table(title=str(model), caption="text, audio, vision: what each gave the score")
    for heading in ("file", "seconds", "text"):
        table.add_column(heading, overflow="fold")
    for heading in ("score", "±", "in words", *MODALITIES, "faces"):
        table.add_column(heading, justify="left" if heading == "in words" else "right")

    def write(row: ScoredUtterance) -> None:
        end = "" if row.end is None else f"{row.end:.1f}"
        start = (row.file, f"{row.start:.1f} - {end}")
        if row.error is not None:
            table.add_row(*start, styled("[red]{}[/]", row.error))
            return
        given = row.contributions or {}
        table.add_row(
            *start,
            row.text,
            _signed(row.score),
            "-" if row.spread is None else f"{row.spread:.2f}",
            row.word,
            *("missing" if m in row.missing else _signed(given.get(m)) for m in MODALITIES),
            "-" if row.faces is None else f"{row.faces}/{row.frames}",
        )

    yield write
    out.print(table)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _progress(live: bool) -> AbstractContextManager[Advance]:
    """A bar, unless it would run into rows that a terminal shows as they come."""
    if live or not sys.stdout.isatty():
        return progress("predict", "utterances")
    return nullcontext(lambda done, total, detail="", before=0: None)
