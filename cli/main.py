"""The `clipmsa` command. Modules that import torch or an encoder are loaded by the verb in use."""

from __future__ import annotations

import io
import logging
import sys
from typing import Annotated

import typer

from clipmsa.cache.errors import ClipmsaError

from . import (
    ablate,
    cut,
    demo,
    environment,  # noqa: F401 sets it
    evaluate,
    exchange,
    extract,
    inspection,
    merge,
    predict,
    report,
    train,
    tune,
    verify,
    webapp,
    weights,
)
from .console import LogNotes, note

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="--debug with any verb shows the traceback of an error.",
)
app.command("cut")(cut.cut)
app.command("extract")(extract.extract)
app.command("merge")(merge.merge)
app.command("train")(train.train)
app.command("ablate")(ablate.ablate)
app.command("tune")(tune.tune)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("report")(report.report)
app.command("app")(webapp.serve)
app.command("inspect")(inspection.inspect)
app.command("verify")(verify.verify)
app.command("import")(exchange.import_)
app.command("export")(exchange.export)
app.command("weights")(weights.weights)
app.command("demo")(demo.demo)


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"clipmsa {version('clipmsa')}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Multimodal sentiment analysis of video clips with CLIP-enriched features (CLIP-MSA).

    Encode clips once with `extract`, then train from the store with `train`.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give its exit status: 0 done, 1 failed, 2 wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    log, notes = logging.getLogger("clipmsa"), LogNotes()
    log.addHandler(notes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=[argument for argument in arguments if argument != "--debug"])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    except (ClipmsaError, OSError) as error:
        if debug:
            raise
        note("[bold red]error:[/] {}", error)
        return 1
    finally:
        log.removeHandler(notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
