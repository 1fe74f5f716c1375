"""Videos to scores: a trained run and the encoders that belong to it, loaded once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipmsa.cache.errors import ClipmsaError, MediaError, SubtitleError
from clipmsa.extract.engine.rebuild import ClipEncoders, Encoded
from clipmsa.extract.transcripts.cut import Script, find_videos, utterances, whole
from clipmsa.extract.transcripts.subtitles import Subtitles, read_subtitles
from clipmsa.fusion.analysis.scored import ScoredUtterance, Scores
from clipmsa.fusion.analysis.scores import Models, Prediction

if TYPE_CHECKING:
    import torch

    from clipmsa.extract.datasets.clips import Clip
    from clipmsa.extract.transcripts.transcriber import Transcriber
    from clipmsa.extract.weights.find import WeightsMode

Named = str | os.PathLike[str]


class Scorer:
    """Models and the encoders that belong to them, loaded once for any number of videos.

    `clipmsa.load` makes one. The transcriber is loaded when it is first asked for, and kept.

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
        batch_size: int = 8,
        workers: int = 2,
    ) -> None:
        self.models = models
        self._weights, self._device = weights, device
        self._encoders = ClipEncoders(
            models.streams.values(), weights, device, batch_clips=batch_size, workers=workers
        )
        self._transcriber: Transcriber | None = None

    def __repr__(self) -> str:
        count = len(self.models.seeds)
        models = "1 model" if count == 1 else f"{count} models"
        untrained = ", untrained encoders" if self.models.untrained else ""
        streams = ", ".join(spec.name for spec in self.models.streams.values())
        return f"Scorer({str(self.models.path)!r}: {models} on {streams}{untrained})"

    def score(
        self,
        video: Named,
        text: str | None = None,
        subtitles: Named | Subtitles | None = None,
        transcribe: bool = False,
        *,
        max_seconds: float = 20.0,
    ) -> Scores:
        """The utterances of one video, scored.

        What is said in it comes from `text`, which makes one utterance of it; or from `subtitles`,
        one a cue; or from `transcribe`, which hears it (English). Without any, it comes from a file
        of the video's name beside it, or from subtitles inside it, and else is missing. Where no
        cues cut a video that is longer than `max_seconds`, its pauses do.

        A video that cannot be read is one utterance with an error.

        Raises:
            SubtitleError: `subtitles` cannot be read.
            WeightsError: the transcriber is not there.
        """
        if (text is not None) + (subtitles is not None) + transcribe > 1:
            raise ClipmsaError(f"{video}: give one of `text`, `subtitles` and `transcribe`")
        if subtitles is not None and not isinstance(subtitles, Subtitles):
            subtitles = read_subtitles(Path(subtitles))
        script = Script(text, subtitles, longest=max_seconds)
        return Scores(self._rows([Path(video)], self._heard_by(script, transcribe)))

    def stream(
        self,
        videos: Named | Iterable[Named],
        script: Script | None = None,
        *,
        transcribe: bool = False,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[ScoredUtterance]:
        """Scored utterances as they come, video after video.

        Args:
            videos: files, folders with all below them, or patterns.
            script: where the words of each of them come from; else as `score` says.
            transcribe: hear them.
            on_progress: is told how many utterances are done, of how many that are known of so far.

        Raises:
            MediaError: there is no such file or folder, or no media file in it.
            WeightsError: the transcriber is not there.
        """
        named = [videos] if isinstance(videos, str | os.PathLike) else videos
        files = find_videos(os.fspath(name) for name in named)
        return self._rows(files, self._heard_by(script or Script(), transcribe), on_progress)

    def _heard_by(self, script: Script, transcribe: bool) -> Script:
        if not transcribe:
            return script
        if self._transcriber is None:
            from clipmsa.extract.transcripts.transcriber import find_transcriber

            self._transcriber = find_transcriber(self._weights, self._device)
        return replace(script, transcriber=self._transcriber)

    def _rows(
        self,
        videos: list[Path],
        script: Script,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[ScoredUtterance]:
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

    def _row(self, encoded: Encoded, prediction: Prediction | None) -> ScoredUtterance:
        clip = encoded.clip
        end = clip.end
        if not math.isnan(encoded.duration):
            end = round(clip.start + encoded.duration, 3)
        what = (str(clip.path), round(clip.start, 3), end, clip.utterance.text)
        if prediction is None:
            return ScoredUtterance(*what, error=encoded.error)
        if not prediction.finite:
            fault = "its score is not a number (weights or features are too large)"
            return ScoredUtterance(*what, error=fault)
        return ScoredUtterance(
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
