"""`clipmsa cut`: long recordings -> a table of their utterances, to put labels in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.devices import pick_device
from clipmsa.progress import progress
from clipmsa.terminal import note

if TYPE_CHECKING:
    from clipmsa.extract.datasets.clips import Clip

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

    They are cut as `predict` cuts them: at the cues of subtitles beside or inside the video, or
    at its pauses. Labels are left empty, for you to fill in. Videos are drawn for train, valid and
    test whole: one speaker's utterances in two splits would flatter a model.

    Example: clipmsa cut recordings/ --out clips.csv
    """
    from clipmsa.cache.csvtext import csv_text
    from clipmsa.cache.errors import MediaError, SubtitleError, TableError
    from clipmsa.cache.files import publish_text
    from clipmsa.cache.spec import SPLITS
    from clipmsa.extract.datasets.folds import drawn_folds
    from clipmsa.extract.datasets.mmsa_layout import video_id
    from clipmsa.extract.transcripts.cut import Script, find_videos, utterances
    from clipmsa.extract.weights.find import weights_mode

    if out.exists():
        raise TableError(f"{out}: is there already, perhaps with labels; give another --out")
    files = find_videos(videos)
    home = out.resolve().parent
    paths: dict[str, Path] = {}  # as the table has them
    for video in files:
        if not video.resolve().is_relative_to(home):
            raise TableError(f"{video}: is not below {home}, the folder of the table")
        path = video.resolve().relative_to(home).as_posix()
        try:
            path.encode()
        except UnicodeEncodeError:  # a table could not name it
            raise TableError(f"{video}: a name that is not UTF-8; rename it") from None
        paths.setdefault(path, video)
    transcriber = None
    if transcribe:
        from clipmsa.extract.transcripts.transcriber import find_transcriber

        transcriber = find_transcriber(weights_mode(weights), pick_device(device))
    script = Script(transcriber=transcriber, longest=max_seconds)
    folds = dict.fromkeys(map(video_id, paths), "train")
    if len(folds) >= len(SPLITS):
        folds = dict(drawn_folds(folds).of)
    rows: list[dict[str, object]] = []
    clips_of: Counter[str] = Counter()
    failed = 0
    with progress("cut", "videos") as advance:
        for number, (path, video) in enumerate(paths.items(), 1):
            try:
                clips, faults = utterances(video, script)
                heard = [transcriber.heard(clip) for clip in clips] if transcriber else clips
            except (MediaError, SubtitleError) as error:
                failed += 1
                note("left out {}", error)
            else:
                for fault in faults:
                    note("{}", fault)
                id_ = video_id(path)
                if id_ in clips_of:
                    note("{}: of the same name as another file, so both are one video", path)
                rows += [
                    _cells(clip, path, clips_of[id_] + place, folds[id_])
                    for place, clip in enumerate(heard)
                ]
                clips_of[id_] += len(heard)
            advance(number, len(paths), f"{len(rows)} utterances")
    if not rows:
        raise TableError(f"{out}: not written, since no video could be cut")
    publish_text(out, csv_text(_COLUMNS, (row.values() for row in rows)))
    note(
        "{}: {} utterances of {} videos ({}); fill in the labels, -3 to 3, then `clipmsa extract "
        "--dataset {}`",
        out,
        len(rows),
        len(paths) - failed,
        ", ".join(f"{split} {sum(row['split'] == split for row in rows)}" for split in SPLITS),
        out,
    )
    if len(folds) < len(SPLITS):
        note("fewer than three videos: all are in train; valid and test need videos of their own")


def _cells(clip: Clip, path: str, clip_id: int, split: str) -> dict[str, object]:
    """A row of the table, in the order of `_COLUMNS`; a whole video has no times."""
    whole = clip.end is None
    return {
        "path": path,
        "clip_id": clip_id,
        "start": "" if whole else round(clip.start, 3),
        "end": "" if whole else round(clip.end or 0.0, 3),
        "text": clip.utterance.text,
        "label": "",
        "split": split,
    }
