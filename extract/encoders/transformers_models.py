"""Models of the transformers library: loaded from a folder, or made with random weights."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
)
from transformers.utils import logging

from clipmsa.cache.errors import ProfileError, WeightsError
from clipmsa.extract.weights.offline import offline

from .encoder import seeded, sizes_of


class HashedWords:
    """A stand-in tokenizer for random weights, which come without a vocabulary.

    Words become ids by a hash, between the [CLS] and [SEP] that BERT's kind of encoder expects.
    """

    PAD, CLS, SEP, FIRST_WORD = 0, 2, 3, 5

    def __init__(self, vocab_size: int) -> None:
        self.words = vocab_size - self.FIRST_WORD

    def __call__(self, texts: list[str], *, max_length: int, **_: Any) -> dict[str, Any]:
        """input_ids and attention_mask, lists (B, T) each, padded to the longest."""
        ids = [
            [self.CLS, *map(self._id, text.lower().split()[: max_length - 2]), self.SEP]
            for text in texts
        ]
        T = max(map(len, ids))
        return {
            "input_ids": [row + [self.PAD] * (T - len(row)) for row in ids],
            "attention_mask": [[1] * len(row) + [0] * (T - len(row)) for row in ids],
        }

    def _id(self, word: str) -> int:
        return self.FIRST_WORD + zlib.crc32(word.encode()) % self.words


def vectors_of(stream: str, states: str, pooling: str) -> str:
    """The stream whose random weights this one shares: itself, or of states that of the vectors."""
    return stream.removesuffix(f"_{states}") if pooling == "none" else stream


def random_model(stream: str, architecture: Mapping[str, Any] | None) -> Any:
    """A transformers model of the sizes in a profile's `architecture` table, at random.

    Raises:
        ProfileError: there is no table, or transformers cannot build what it describes.
    """
    values = sizes_of(stream, architecture if isinstance(architecture, Mapping) else {})
    model_type = values.pop("model_type", None)
    if model_type is None:
        raise ProfileError(
            f"stream '{stream}': `weights='random'` needs `architecture = {{ model_type = ... }}`"
        )
    if model_type not in CONFIG_MAPPING:
        raise ProfileError(f"stream '{stream}': transformers has no model_type '{model_type}'")
    known = AutoConfig.for_model(model_type)
    for key in values:  # transformers would take any, and leave the default in place
        if not hasattr(known, key):
            raise ProfileError(f"stream '{stream}': architecture '{model_type}' has no '{key}'")
    try:
        with seeded(stream):
            config = AutoConfig.for_model(model_type, **values)
            return AutoModel.from_config(config, trust_remote_code=False)
    except Exception as error:  # transformers raises ValueError, TypeError, its own, ...
        reason = " ".join(str(error).split())
        raise ProfileError(f"stream '{stream}': architecture cannot be built: {reason}") from None


# Weights that nothing here uses, and that published checkpoints lack: a pooler is a further layer
# after the last, and the embedding of masked frames serves wav2vec 2.0's training.
_UNUSED = re.compile(r"^pooler\.|(^|\.)masked_spec_embed$")


def load_pretrained(folder: Path, kind: Any = AutoModel) -> Any:
    """A transformers model from its folder, every weight of it from the file.

    `kind` is the class to load it as: AutoModel, or one with a head.

    Raises:
        WeightsError: the folder holds no such model, weights are missing from it, or it needs code
            of its own.
    """
    if kernel := _kernel_of(folder):
        raise WeightsError(
            f"{folder}: its config.json asks for code of '{kernel}', and no code that a checkpoint "
            f"names is run; remove that line"
        )
    try:
        with closed(), torch.random.fork_rng(devices=[]):
            model, info = kind.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
            )
    except Exception as error:  # transformers raises OSError, ValueError, RuntimeError, ...
        raise WeightsError(f"{folder}: not a transformers model ({reason_of(error)})") from None
    absent = sorted(key for key in info["missing_keys"] if not _UNUSED.search(key))
    if absent:
        raise WeightsError(
            f"{folder}: the checkpoint lacks {len(absent)} weights of {type(model).__name__}, "
            f"such as {absent[0]}; random numbers would stand in for them"
        )
    for key, found, wanted in sorted(info["mismatched_keys"]):
        raise WeightsError(
            f"{folder}: does not fit its config.json: {key} is {tuple(found)}, "
            f"must be {tuple(wanted)}"
        )
    return model


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a transformers folder.

    Raises:
        WeightsError: there is none, not all of it, or it needs code of its own.
    """
    remedy = "copy the repository's tokenizer files, tokenizer.json among them, beside the weights"
    try:
        with closed():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers raises OSError, ValueError, ImportError, ...
        raise WeightsError(
            f"{folder}: has no usable tokenizer ({reason_of(error)}); {remedy}"
        ) from None
    # Without a vocabulary transformers makes a tokenizer to which every word is unknown.
    files = tokenizer.vocab_files_names.values()
    if files and not any((folder / name).is_file() for name in files):
        raise WeightsError(f"{folder}: has no tokenizer (no {' or '.join(files)}); {remedy}")
    # Padding before a text would move it to other positions, by as much as its batch has it.
    tokenizer.padding_side = "right"
    return tokenizer


def _kernel_of(folder: Path) -> str:
    """The code on the hub that a config.json names for its attention or experts; "" for none."""

    def named(config: Any) -> Iterator[str]:
        for key, value in config.items() if isinstance(config, dict) else ():
            if key.endswith("_implementation") and "/" in str(value):
                yield str(value)
            yield from named(value)

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # which transformers will tell
        return ""
    return next(named(config), "")


@contextmanager
def closed() -> Iterator[None]:
    """Loading by transformers from files alone, without its report, whose faults are raised."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with offline():
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def reason_of(error: Exception) -> str:
    """Why transformers could not load something, in a line."""
    if "trust_remote_code" in str(error):  # its text advises on how to run that
        return "it needs code of its own, and no code in a checkpoint is run"
    return (str(error) or type(error).__name__).splitlines()[0]


def load_features(folder: Path) -> Any:
    """What scales a waveform for the model of a transformers folder.

    Raises:
        WeightsError: the folder does not say, and a guess could be silently wrong; or it names
            code of its own.
    """
    try:
        with closed():
            return AutoFeatureExtractor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers raises OSError, ValueError, ImportError, ...
        raise WeightsError(
            f"{folder}: has no usable preprocessor_config.json ({reason_of(error)}); copy the "
            f"repository's beside the weights"
        ) from None


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one output frame sees: 400 for wav2vec 2.0, 25 ms at 16 kHz.

    >>> receptive_field((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    400
    """
    return 1 + sum(
        (kernel - 1) * math.prod(strides[:layer]) for layer, kernel in enumerate(kernels)
    )
