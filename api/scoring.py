"""Videos to rows of scores: what `clipmsa predict`, `clipmsa app` and `clipmsa.predict` share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipmsa.cache.errors import MediaError, SubtitleError
from clipmsa.extract.engine.rebuild import ClipEncoders, Encoded
from clipmsa.extract.transcripts.cut import Script, utterances, whole
from clipmsa.fusion.analysis.scores import Models, Prediction

if TYPE_CHECKING:
    import torch

    from clipmsa.extract.datasets.clips import Clip
    from clipmsa.extract.weights.find import WeightsMode


@dataclass(frozen=True)
class Row:
    """One utterance of a video and what the models say of it; or the error that prevented it.

    Times are in seconds of the file; `clipmsa.fusion.analysis.scores.Prediction` says what the
    score's parts are.
    """

    file: str
    start: float
    end: float | None  # None where only text was asked for
    text: str
    score: float | None = None  # in [-3, 3] like the labels, as predicted: it may lie beyond
    word: str | None = None
    spread: float | None = None  # over the seeds' models; None of one model
    contributions: dict[str, float] | None = None  # by modality
    missing: tuple[str, ...] = ()  # modalities
    faces: int | None = None  # pictures with a face, of
    frames: int | None = None  # so many that were looked at
    untrained: tuple[str, ...] = ()  # streams whose encoders have random weights
    error: str | None = None


class Timeline:
    """Models and the encoders that belong to them, loaded once for any number of videos.

    Raises:
        FingerprintError: the encoders cannot be had as they were when the models were trained.
        WeightsError: a checkpoint is missing.
    """

    def __init__(
        self,
        models: Models,
        weights: WeightsMode = "pretrained",
        device: torch.device | str = "cpu",
        *,
        batch_clips: int = 8,
        workers: int = 2,
    ) -> None:
        self.models = models
        self._encoders = ClipEncoders(
            models.streams.values(), weights, device, batch_clips=batch_clips, workers=workers
        )

    def rows(
        self,
        videos: Sequence[Path],
        script: Script,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[Row]:
        """A row an utterance, video after video; a bad file is one row with an error.

        `on_progress` is told how many utterances are done, of how many that are known of so far.
        """
        done, total = 0, len(videos)

        def clips() -> Iterator[Clip | Encoded]:
            nonlocal total
            for video in videos:
                try:
                    cut, faults = utterances(video, script)
                except (MediaError, SubtitleError) as error:
                    yield Encoded(whole(video), error=str(error))
                    continue
                total += len(cut) + len(faults) - 1
                yield from (Encoded(whole(video), error=fault) for fault in faults)
                for clip in cut:
                    yield _heard(clip, script)

        for batch in self._encoders.encode(clips()):
            good = [encoded for encoded in batch if not encoded.error]
            predictions = iter(self.models.predict([encoded.rows for encoded in good]))
            for encoded in batch:
                yield self._row(encoded, None if encoded.error else next(predictions))
            done += len(batch)
            on_progress(done, total)

    def _row(self, encoded: Encoded, prediction: Prediction | None) -> Row:
        clip = encoded.clip
        end = clip.end
        if not math.isnan(encoded.duration):
            end = round(clip.start + encoded.duration, 3)
        what = (str(clip.path), round(clip.start, 3), end, clip.utterance.text)
        if prediction is None:
            return Row(*what, error=encoded.error)
        if not prediction.finite:
            return Row(*what, error="its score is not a number (weights or features are too large)")
        return Row(
            *what,
            score=prediction.score,
            word=prediction.word,
            spread=prediction.spread,
            contributions=dict(prediction.contributions),
            missing=prediction.missing,
            faces=encoded.faces,
            frames=encoded.frames,
            untrained=tuple(self.models.untrained),
        )


def _heard(clip: Clip, script: Script) -> Clip | Encoded:
    """The clip with what is said in it, where a transcriber is to hear that."""
    if script.transcriber is None:
        return clip
    try:
        return script.transcriber.heard(clip)
    except MediaError as error:
        return Encoded(clip, error=str(error))
