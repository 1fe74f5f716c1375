"""`clipmsa cut`: long recordings -> a table of their utterances, to put labels in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipmsa.cli.options import Device, MaxSeconds, Transcribe, Videos
from clipmsa.devices import pick_device
from clipmsa.progress import progress
from clipmsa.terminal import note


def cut(
    videos: Videos,
    out: Annotated[Path, typer.Option(help="The table, in a folder above the videos.")],
    transcribe: Transcribe = False,
    max_seconds: MaxSeconds = 20.0,
    weights: Annotated[
        str, typer.Option(help="Of the transcriber: pretrained, or a folder.")
    ] = "pretrained",
    device: Device = "auto",
) -> None:
    """Cut recordings into utterances and list them in a table, as `extract --dataset` reads it.

    They are cut as `predict` cuts them: at the cues of subtitles beside or inside the video, or
    at its pauses. Labels are left empty, for you to fill in. Videos are drawn for train, valid and
    test whole: one speaker's utterances in two splits would flatter a model.

    Example: clipmsa cut recordings/ --out clips.csv
    """
    from clipmsa.cache.csvtext import csv_text
    from clipmsa.cache.errors import TableError
    from clipmsa.cache.files import publish_text
    from clipmsa.cache.spec import SPLITS
    from clipmsa.extract.transcripts.cut import Script, TableRow, cut_to_table, find_videos
    from clipmsa.extract.weights.find import weights_mode

    if out.exists():
        raise TableError(f"{out}: is there already, perhaps with labels; give another `out`")
    files = find_videos(videos)
    transcriber = None
    if transcribe:
        from clipmsa.extract.transcripts.transcriber import find_transcriber

        transcriber = find_transcriber(weights_mode(weights), pick_device(device))
    script = Script(transcriber=transcriber, longest=max_seconds)
    with progress("cut", "videos") as advance:
        rows = cut_to_table(
            files,
            out.resolve().parent,
            script,
            lambda done, total, found: advance(done, total, f"{found} utterances"),
            lambda text: note("{}", text),
        )
    if not rows:
        raise TableError(f"{out}: not written, since no video could be cut")
    publish_text(out, csv_text(TableRow._fields, rows))
    note(
        "{}: {} utterances of {} videos ({}); fill in the labels, -3 to 3, then `clipmsa extract "
        "--dataset {}`",
        out,
        len(rows),
        len({row.path for row in rows}),
        ", ".join(f"{split} {sum(row.split == split for row in rows)}" for split in SPLITS),
        out,
    )
    if {row.split for row in rows} == {"train"}:
        note("fewer than three videos: all are in train; valid and test need videos of their own")
