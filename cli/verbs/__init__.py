"""The verbs of the command; modules that load torch or an encoder are loaded by the one in use."""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    ablate,
    app,
    cut,
    demo,
    evaluate,
    extract,
    import_export,
    inspect,
    merge,
    predict,
    report,
    train,
    tune,
    verify,
    weights,
)

command = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="--debug with any verb shows the traceback of an error.",
)
command.command("cut")(cut.cut)
command.command("extract")(extract.extract)
command.command("merge")(merge.merge)
command.command("train")(train.train)
command.command("ablate")(ablate.ablate)
command.command("tune")(tune.tune)
command.command("evaluate")(evaluate.evaluate)
command.command("predict")(predict.predict)
command.command("report")(report.report)
command.command("app")(app.serve)
command.command("inspect")(inspect.inspect)
command.command("verify")(verify.verify)
command.command("import")(import_export.import_)
command.command("export")(import_export.export)
command.command("weights")(weights.weights)
command.command("demo")(demo.demo)


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"clipmsa {version('clipmsa')}")
        raise typer.Exit


@command.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Multimodal sentiment analysis of video clips with CLIP-enriched features (CLIP-MSA).

    Encode clips once with `extract`, then train from the store with `train`.
    """
