"""From a trained run to figures, scores and pages; the verbs of the command call these.

What `clipmsa.workflows` says of paths, logging, progress and trust holds here, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ClipmsaError
from clipmsa.cache.plugins import trust as trust_modules

from . import progress as bars
from .arguments import Named, Words, folder_of, log, opened, path_of, words
from .devices import pick_device
from .results import Page, Run
from .workflows import read_dataset

if TYPE_CHECKING:
    from clipmsa.fusion.analysis.evaluation import Evaluation

    from .scoring import Scorer


def evaluate(
    run: Named | Run,
    features: Named | FeatureStore,
    *,
    split: str = "test",
    without: Words = (),
    device: str = "auto",
    trust: Words = (),
) -> Evaluation:
    """Score a split of a store by a trained run.

    Args:
        run: its folder, or one model-SEED.pt.
        features: a store whose features were made as those that the run was trained on.
        split: train, valid or test.
        without: modalities taken as missing.

    Raises:
        FingerprintError: the features were made in another way.
        ConfigError: no such modality or split, or the store lacks a stream.
    """
    from clipmsa.fusion.analysis.evaluation import evaluate as score
    from clipmsa.fusion.training.checkpoint import load_run

    trust_modules(words(trust))
    store = opened(features)
    return score(load_run(folder_of(run)), store, split, words(without), pick_device(device))


def load(
    run: Named | Run,
    *,
    weights: Named = "pretrained",
    device: str = "auto",
    batch_size: int = 8,
    trust: Words = (),
) -> Scorer:
    """A trained run and its encoders, ready to score videos.

    Args:
        run: its folder, or one model-SEED.pt.
        weights: pretrained, or a folder of the checkpoints.
        batch_size: utterances encoded together.

    Raises:
        CheckpointError: no models there, or damaged.
        FingerprintError: the encoders cannot be had as they were when the run was trained.
        WeightsError: a checkpoint is missing.
    """
    from clipmsa.extract.weights.find import weights_mode
    from clipmsa.fusion.analysis.scores import load_models

    from .scoring import Scorer

    trust_modules(words(trust))
    mode, chosen = weights_mode(os.fspath(weights)), pick_device(device)
    return Scorer(load_models(folder_of(run), chosen), mode, chosen, batch_size=batch_size)


def write_report(
    runs: Named | Run | Iterable[Named | Run],
    out: Named = "report.html",
    *,
    features: Named | None = None,
    clips: Named | None = None,
    utterances: Sequence[str] = (),
    paper: str | None = None,
    device: str = "auto",
    trust: Words = (),
    progress: bool = True,
) -> Page:
    """Write one HTML page on a run, on several compared, or on scored videos.

    Args:
        runs: run folders, folders of runs, or one file that `clipmsa predict --json` printed.
        out: the page.
        features: the store that the first run was trained on; else where it says.
        clips: the dataset's folder or CSV table, for pictures of the clips.
        utterances: ids of test utterances to take apart; else the two worst.
        paper: mosi or mosei: the paper's figures stand beside the runs'.

    Raises:
        RunError: a folder holds no finished run, or no such utterance was tested.
        ClipmsaError: `features` or `clips` cannot be read, or are of other utterances.
    """
    from clipmsa.cache.files import publish_text
    from clipmsa.fusion.report import build_report, find_evidence, read_runs, render

    trust_modules(words(trust))
    given = [runs] if isinstance(runs, str | os.PathLike | Run) else list(runs)
    paths, page = [folder_of(one) for one in given], Path(out)
    if len(paths) == 1 and paths[0].is_file():
        if features or clips or utterances or paper:
            raise ClipmsaError(
                f"{paths[0]}: is a file of predictions, and takes no `features`, `clips`, "
                f"`utterances` or `paper`"
            )
        return _video_report(paths[0], page)
    records = read_runs(paths)
    thumbnails = None if clips is None else _thumbnails(Path(clips))
    evidence = find_evidence(records[0], path_of(features), pick_device(device))
    with bars.progress("report", "passes", progress) as advance:
        content = build_report(
            records, evidence, thumbnails, utterances, paper=paper, on_pass=advance
        )
    publish_text(page, render(content))
    if clips is not None:
        shown = sum(row.thumbnail is not None for row in content.utterances)
        log.info("%s: pictures of %d of %d test utterances", clips, shown, len(content.utterances))
    log.info("%s: report on %s", page, ", ".join(part.name for part in content.runs))
    return Page(page, content.gaps, content.untrained)


def _video_report(predictions: Path, page: Path) -> Page:
    """The page of a file of predictions; it plays the videos from where they are."""
    from clipmsa.cache.files import publish_text
    from clipmsa.fusion.report import render_videos, scored_videos

    def source(file: str) -> str | None:
        if not Path(file).is_file():
            return None
        return quote(Path(os.path.relpath(file, page.parent)).as_posix())

    content = scored_videos(predictions, source)
    publish_text(page, render_videos(content))
    log.info("%s: %d videos of %s", page, len(content.videos), predictions)
    return Page(page, (), content.untrained)


def _thumbnails(clips: Path) -> Callable[[str, int], list[bytes]]:
    """Pictures of a dataset's clips by utterance id; a clip that cannot be shown has none."""
    from clipmsa.cache.errors import MediaError
    from clipmsa.extract.media.thumbnails import thumbnails

    found = {clip.utterance.id: clip for clip in read_dataset(clips).clips}

    def pictures(id_: str, count: int) -> list[bytes]:
        clip = found.get(id_)
        try:
            return [] if clip is None else thumbnails(clip.path, count, clip.start, clip.end)
        except MediaError as error:
            log.warning("no picture of %s: %s", id_, error)
            return []

    return pictures
