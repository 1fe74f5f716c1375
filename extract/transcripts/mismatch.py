"""How fast clips are spoken, if their texts are what is said; and where that cannot be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache.errors import MediaError
from clipmsa.extract import media

if TYPE_CHECKING:
    from clipmsa.extract.datasets.clips import Clip

    from .transcriber import Transcriber

FASTEST = 7.0  # words a second that nobody speaks for a whole sentence
_FEWEST_WORDS = 3  # of fewer, the pace says little
_FEWEST_CLIPS = 20  # of fewer, what is usual is not known
UNUSUAL = 3.5  # Iglewicz and Hoaglin (1993): of the modified z-score

# A word, or one character of the scripts that do not part words.
_WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\W\u3040-\u30ff\u4e00-\u9fff]+(?:['’-]\w+)*")


class Pace(NamedTuple):
    """A clip whose text does not fit its length."""

    id: str
    words: int
    seconds: float
    reason: str


def outliers(values: Iterable[float]) -> NDArray[np.float64]:
    """How many robust deviations each value is from the median; 0 where there are too few."""
    numbers = np.fromiter(values, float)
    if len(numbers) < _FEWEST_CLIPS:
        return np.zeros(len(numbers))
    finite = numbers[np.isfinite(numbers)]
    apart = numbers - np.median(finite)
    spread = np.median(np.abs(apart[np.isfinite(apart)]))
    scores: NDArray[np.float64] = 0.6745 * apart / max(float(spread), 1e-9)
    return scores


def unheard(surprises: Mapping[str, float]) -> list[str]:
    """Ids of clips whose text is not what is heard in them: by far more nats a letter than usual.

    `surprises` is `Transcriber.surprise` by id. The oddest come first.
    """
    known = {id_: value for id_, value in surprises.items() if not math.isnan(value)}
    scored = zip(outliers(known.values()).tolist(), known, strict=True)
    return [id_ for score, id_ in sorted(scored, reverse=True) if score > UNUSUAL]


def listened(
    clips: Sequence[Clip],
    listener: Transcriber,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """How little each clip sounds like its text, by id; clips without sound are left out."""
    surprises: dict[str, float] = {}
    for done, clip in enumerate(clips, 1):
        try:
            sound = media.read_waveform(clip.path, clip.start, clip.end)
        except MediaError:  # which a check of the dataset tells, and extracting it
            sound = None
        if sound is not None:
            surprises[clip.utterance.id] = listener.surprise(*sound, clip.utterance.text)
        on_clip(done, len(clips))
    return surprises


def count_words(text: str) -> int:
    """Words, or characters of Chinese and Japanese.

    >>> count_words("I don't know - well, maybe"), count_words("我不想嫁给李茶")
    (5, 7)
    """
    return len(_WORD.findall(text))


def odd_paces(clips: Iterable[tuple[str, str, float]]) -> list[Pace]:
    """Of (id, text, seconds), those spoken faster than anybody speaks, or unlike all others.

    Unlike others: the logarithm of words a second is more than 3.5 robust deviations from the
    median. Clips of less than three words or of unknown length are left alone. The oddest come
    first.
    """
    known = [
        (id_, words, seconds)
        for id_, text, seconds in clips
        if (words := count_words(text)) >= _FEWEST_WORDS and seconds > 0
    ]
    rates = np.array([words / seconds for _, words, seconds in known])
    if not len(rates):
        return []
    scores, usual = outliers(np.log(rates)), float(np.median(rates))
    odd = [
        (abs(score), Pace(*clip, _reason(rate, usual)))
        for clip, rate, score in zip(known, rates, scores, strict=True)
        if rate > FASTEST or abs(score) > UNUSUAL
    ]
    return [pace for _, pace in sorted(odd, key=lambda pair: -pair[0])]


def _reason(rate: float, usual: float) -> str:
    return f"{rate:.1f} words a second, usual are {usual:.1f}"
