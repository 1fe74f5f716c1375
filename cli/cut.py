"""`clipmsa cut`: long recordings -> a table of their utterances, to put labels in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import note, pick_device, progress

if TYPE_CHECKING:
    from clipmsa.extract.clips import Clip

_COLUMNS = ("path", "clip_id", "start", "end", "text", "label", "split")


def cut(
    videos: Annotated[
        list[str], typer.Argument(metavar="VIDEO...", help="Files, folders or patterns.")
    ],
    out: Annotated[Path, typer.Option(help="The table, in a folder above the videos.")],
    transcribe: Annotated[
        bool, typer.Option("--transcribe", help="Hear what is said (English, wav2vec 2.0).")
    ] = False,
    max_seconds: Annotated[
        float, typer.Option(min=1, help="Longest utterance where pauses cut a video.")
    ] = 20.0,
    weights: Annotated[
        str, typer.Option(help="Of the transcriber: pretrained, or a folder.")
    ] = "pretrained",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Cut recordings into utterances and list them in a table, as `extract --dataset` reads it.

    They are cut as `predict` cuts them: at the cues of a .srt or .vtt beside the video, or at its
    pauses. Labels are left empty, for you to fill in. Videos are drawn for train, valid and test
    whole: one speaker's utterances in two splits would flatter a model.

    Example: clipmsa cut recordings/ --out clips.csv
    """
    from clipmsa.cache.csvtext import csv_text
    from clipmsa.cache.errors import MediaError, SubtitleError, TableError
    from clipmsa.cache.files import publish_text
    from clipmsa.cache.store import SPLITS
    from clipmsa.extract.folds import drawn_folds
    from clipmsa.extract.utterances import Script, find_videos, utterances
    from clipmsa.extract.weights import weights_mode

    if out.exists():
        raise TableError(f"{out}: is there already, perhaps with labels; give another --out")
    files = find_videos(videos)
    home = out.resolve().parent
    for video in files:
        if not video.resolve().is_relative_to(home):
            raise TableError(f"{video}: is not below {home}, the folder of the table")
    transcriber = None
    if transcribe:
        from clipmsa.extract.transcribe import find_transcriber

        transcriber = find_transcriber(weights_mode(weights), pick_device(device))
    script = Script(transcriber=transcriber, longest=max_seconds)
    paths = {video: video.resolve().relative_to(home).as_posix() for video in files}
    folds = dict.fromkeys(paths.values(), "train")
    if len(folds) >= len(SPLITS):
        folds = dict(drawn_folds(folds).of)
    rows: list[dict[str, object]] = []
    failed = 0
    with progress("cut", "videos") as advance:
        for number, (video, path) in enumerate(paths.items(), 1):
            try:
                clips = utterances(video, script)
                heard = map(transcriber.heard, clips) if transcriber else clips
                rows += [_cells(clip, path, folds[path]) for clip in heard]
            except (MediaError, SubtitleError) as error:
                failed += 1
                note("left out {}", error)
            advance(number, len(files), f"{len(rows)} utterances")
    if not rows:
        raise TableError(f"{out}: not written, since no video could be cut")
    publish_text(out, csv_text(_COLUMNS, (row.values() for row in rows)))
    note(
        "{}: {} utterances of {} videos ({}); fill in the labels, -3 to 3, then `clipmsa extract "
        "--dataset {}`",
        out,
        len(rows),
        len(files) - failed,
        ", ".join(f"{split} {sum(row['split'] == split for row in rows)}" for split in SPLITS),
        out,
    )
    if len(folds) < len(SPLITS):
        note("fewer than three videos: all are in train; valid and test need videos of their own")


def _cells(clip: Clip, path: str, split: str) -> dict[str, object]:
    """A row of the table, in the order of `_COLUMNS`; a whole video has no times."""
    whole = clip.end is None
    return {
        "path": path,
        "clip_id": clip.utterance.clip_id,
        "start": "" if whole else round(clip.start, 3),
        "end": "" if whole else round(clip.end or 0.0, 3),
        "text": clip.utterance.text,
        "label": "",
        "split": split,
    }
