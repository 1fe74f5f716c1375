"""The verbs of the command; modules that load torch or an encoder are loaded by the one in use."""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    ablate,
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
from . import app as webapp

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
app.command("inspect")(inspect.inspect)
app.command("verify")(verify.verify)
app.command("import")(import_export.import_)
app.command("export")(import_export.export)
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
