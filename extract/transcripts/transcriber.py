"""Speech to words, for videos without a transcript: wav2vec 2.0 with a CTC head."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import ctc_loss
from transformers import AutoModelForCTC

from clipmsa.cache.errors import WeightsError
from clipmsa.extract import media
from clipmsa.extract.datasets.clips import Clip
from clipmsa.extract.encoders.transformers_models import (
    load_features,
    load_pretrained,
    load_tokenizer,
    receptive_field,
)
from clipmsa.extract.encoders.transformers_speech import windows_of
from clipmsa.extract.weights.find import TRANSCRIBER, WeightsMode, find_checkpoint


class Transcriber:
    """A transformers CTC model from its folder; the likeliest letter at each step, no lexicon.

    Raises:
        WeightsError: the folder holds no such model, or not its vocabulary.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self._model = load_pretrained(folder, AutoModelForCTC).to(device).eval()
        self._tokenizer, self._features = load_tokenizer(folder), load_features(folder)
        letters, outputs = len(self._tokenizer), self._model.config.vocab_size
        if letters != outputs or not hasattr(self._model.config, "conv_kernel"):
            raise WeightsError(
                f"{folder}: no wav2vec 2.0 with letters, or the vocabulary of another: it has "
                f"{letters} of them and the model {outputs} outputs"
            )
        config = self._model.config
        names = ("bos_token_id", "eos_token_id", "unk_token_id")
        marks = (getattr(self._tokenizer, name) for name in names)
        self._no_letters = [mark for mark in marks if mark is not None]
        self._shortest = receptive_field(config.conv_kernel, config.conv_stride)
        self._step = math.prod(config.conv_stride)
        self._device = torch.device(device)

    @torch.inference_mode()
    def transcribe(self, waveform: NDArray[np.float32], rate: int) -> str:
        """What is said in a (samples,) waveform in [-1, 1]; in lower case, without punctuation."""
        logits = self._logits(waveform, rate)
        text: str = self._tokenizer.decode(logits.argmax(-1).cpu())
        # Its letters are capitals, which a text encoder that knows case would take for shouting.
        return " ".join(text.lower().split())

    @torch.inference_mode()
    def surprise(self, waveform: NDArray[np.float32], rate: int, text: str) -> float:
        """How little a (samples,) waveform sounds like `text`: nats a letter, by CTC.

        NaN for a text without any letter that the model knows; infinite for one of more letters
        than there is time for.
        """
        letters = torch.tensor(self._spelt(text))
        if not len(letters):
            return math.nan
        logs = self._logits(waveform, rate).float().log_softmax(-1).cpu()
        blank = int(self._tokenizer.pad_token_id)
        sizes = torch.tensor([len(logs)]), torch.tensor([len(letters)])
        loss = ctc_loss(logs[:, None], letters[None], *sizes, blank=blank, reduction="sum")
        return float(loss) / len(letters)

    def _spelt(self, text: str) -> list[int]:
        """The letters of a text that the model knows, of either case, and what parts words."""
        known = self._tokenizer.get_vocab()
        joined = self._tokenizer.word_delimiter_token.join(text.split())
        forms = ((letter, letter.upper(), letter.lower()) for letter in joined)
        found = (next((known[form] for form in three if form in known), None) for three in forms)
        return [letter for letter in found if letter is not None]

    def _logits(self, waveform: NDArray[np.float32], rate: int) -> Tensor:
        """(steps, letters) for a (samples,) waveform."""
        target = int(self._features.sampling_rate)
        waveform = media.resample(waveform, rate, target)
        waveform = np.pad(waveform, (0, max(0, self._shortest - len(waveform))))
        values = self._features(waveform, sampling_rate=target, return_tensors="pt")
        values = values["input_values"].to(self._device)
        windows = windows_of(len(waveform), self._shortest, self._step, target)
        logits = torch.cat([self._model(values[:, window]).logits[0] for window in windows])
        # Left to the tokenizer, these would go before repetitions do: "d<unk>d" would be one d.
        logits[:, self._no_letters] = -torch.inf
        return logits

    def heard(self, clip: Clip) -> Clip:
        """The clip with the words that are heard in it; without sound, none.

        Raises:
            MediaError: its sound cannot be decoded.
        """
        sound = media.read_waveform(clip.path, clip.start, clip.end)
        text = "" if sound is None else self.transcribe(*sound)
        return replace(clip, utterance=replace(clip.utterance, text=text))


def find_transcriber(
    weights: WeightsMode = "pretrained", device: torch.device | str = "cpu"
) -> Transcriber:
    """The transcriber from the hub's cache, downloaded where it is missing, or from a folder.

    Raises:
        WeightsError: it is not there; the message says what gets it.
    """
    found = find_checkpoint("transcriber", TRANSCRIBER, weights, fetched_with="--transcriber")
    assert found.path is not None  # `weights` is not "random"
    return Transcriber(found.path, device)
