"""`clipmsa app`: a page on this machine to drop a video on, over the same function as `predict`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Annotated

import typer

from clipmsa.cache.errors import ClipmsaError
from clipmsa.cli.console import warn_untrained
from clipmsa.cli.options import Checkpoints, Device, RunOrModel, Trust
from clipmsa.terminal import note


def serve(
    model: RunOrModel,
    weights: Checkpoints = "pretrained",
    device: Device = "auto",
    host: Annotated[
        str, typer.Option(help="Address to serve at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve at.")] = 7860,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A name it is reached by, as behind a proxy; repeatable."),
    ] = None,
    max_upload: Annotated[
        int, typer.Option(min=1, metavar="MB", help="The largest file that may be uploaded.")
    ] = 4000,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
    trust: Trust = None,
) -> None:
    """Serve a page that scores videos: drop one, type or upload what is said, see the timeline.

    It is served to this machine alone, and tells nobody about it. Requests under other names than
    this machine's, or from pages of other sites, are refused. Needs Gradio (the extra `app`).

    Example: clipmsa app runs/mosi --port 7860
    """
    if find_spec("gradio") is None:
        raise ClipmsaError("`clipmsa app` needs Gradio: pip install 'clipmsa[app]'")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is loaded
    os.environ["GRADIO_NUM_WORKERS"] = "0"  # further processes would take uploads unguarded
    from starlette.middleware import Middleware  # comes with Gradio

    from clipmsa.cli.app_page import build
    from clipmsa.cli.doorman import Doorman
    from clipmsa.judging import load

    scorer = load(model, weights=weights, device=device, trust=trust or ())
    warn_untrained(scorer.models.untrained)
    page = build(scorer)
    note("http://{}:{} serves {}; stop it with Ctrl-C", host, port, model)
    if host not in ("127.0.0.1", "localhost", "::1"):
        note("[bold yellow]--host {}:[/] whoever reaches this address can use it", host)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=browser,
        quiet=True,
        show_error=False,  # of errors that are none of ours, whose words may hold paths
        ssr_mode=False,
        footer_links=[],
        max_file_size=max_upload * 10**6,
        app_kwargs={"middleware": [Middleware(Doorman, names=[f"{host}:{port}", *(name or [])])]},
    )
