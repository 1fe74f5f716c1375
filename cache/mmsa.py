"""MMSA's feature pickles, which MMSA-FET writes too: read into a store, and written from one.

A pickle is `{"train", "valid", "test"}`, each a dict of arrays over its n utterances:

    id, raw_text          (n,)         "<video>$_$<clip>", and what is said
    text, audio, vision   (n, T, D)    rows, padded with zeros at the end
    audio_lengths, vision_lengths (n,) rows without the padding; not where the three are aligned
    text_bert             (n, 3, T)    token ids, mask and segments of a BERT tokenizer
    regression_labels     (n,)         and annotations, classification_labels, made from them
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ExchangeError
from .exchange import Imported, Tally, finite, imported_spec
from .files import publish
from .provenance import sha256_of_files
from .store import ID_SEPARATOR, MODALITIES, SPLITS, FeatureStore, Stream, Utterance
from .unpickle import load_plain
from .writer import StreamColumn, write_store

_PROTOCOL = 4  # MMSA's own

Tokenize = Callable[[list[str]], NDArray[np.int64]]


# -- reading ----------------------------------------------------------------------------------


def import_mmsa(source: Path, out: Path) -> Imported:
    """Write the store of a pickle, its streams `text`, `audio` and `vision` of the own branch.

    Padding is taken off: by the stated lengths, for text (and for what is aligned with it) by the
    mask of `text_bert`, and else where only zeros follow. Values keep their float32. As every
    pickle, it is loaded whole: memory has to hold it.

    Raises:
        ExchangeError: not such a pickle; names the file and the key.
        StoreError: what is in it breaks a rule of the store, such as an id that occurs twice.
    """
    parts = _parts(source, load_plain(source))
    utterances = [u for split, part in parts.items() for u in _utterances(source, split, part)]
    tally = Tally()
    columns: list[StreamColumn] = []
    digest = sha256_of_files([source])
    for name in MODALITIES:
        arrays = {s: _array(source, s, p, name, 3) for s, p in parts.items() if name in p}
        if not arrays:
            continue
        widths = {array.shape[2] for array in arrays.values()}
        if len(arrays) < len(parts) or len(widths) > 1:
            raise ExchangeError(
                f"{source}: '{name}' has {' and '.join(map(str, sorted(widths)))} columns in "
                f"{', '.join(arrays)}; every split must have as many"
            )
        config = {"imported": "MMSA pickle", "file": source.name, "sha256": digest, "array": name}
        spec = imported_spec(name, widths.pop(), "MMSA pickle", config)
        pieces = [
            array[i, :length]  # a view: padding is nearly all of a pickle, and never copied
            for split, array in arrays.items()
            for i, length in enumerate(_lengths(source, split, parts[split], name, array))
        ]
        lengths = []
        for piece in pieces:
            clean, replaced = finite(piece)
            present = bool(clean.any())
            lengths.append(len(clean) if present else 0)
            tally.replaced[name] += replaced
            tally.missing[name] += not present
        rows = (finite(p[:n])[0] for p, n in zip(pieces, lengths, strict=True) if n)
        columns.append(StreamColumn(spec, np.array(lengths, np.int64), rows, np.dtype(np.float32)))
    if not columns:
        raise ExchangeError(f"{source}: has none of the arrays {', '.join(MODALITIES)}")
    write_store(out, dataset=source.stem, profile="mmsa", utterances=utterances, streams=columns)
    return Imported(len(utterances), tally.notes())


def _parts(source: Path, content: Any) -> dict[str, Mapping[str, Any]]:
    if not isinstance(content, dict):
        raise ExchangeError(f"{source}: holds a {type(content).__name__}, must be a dict of splits")
    parts = {split: content[split] for split in SPLITS if split in content}
    if not parts or not all(isinstance(part, dict) for part in parts.values()):
        keys = ", ".join(map(str, list(content)[:10]))
        raise ExchangeError(f"{source}: must hold dicts {', '.join(SPLITS)}; it holds {keys}")
    return parts


def _utterances(source: Path, split: str, part: Mapping[str, Any]) -> list[Utterance]:
    for key in ("id", "regression_labels"):
        if key not in part:
            raise ExchangeError(f"{source}: split {split} has no '{key}'")
    ids = [_text(id_) for id_ in part["id"]]
    texts = [_text(text) for text in part.get("raw_text", [""] * len(ids))]
    try:
        labels = np.asarray(part["regression_labels"], np.float32).reshape(-1).tolist()
    except (TypeError, ValueError) as error:
        raise ExchangeError(f"{source}: split {split}: 'regression_labels': {error}") from None
    if not len(ids) == len(texts) == len(labels):
        raise ExchangeError(
            f"{source}: split {split} has {len(ids)} ids, {len(texts)} texts, {len(labels)} labels"
        )
    utterances = []
    for id_, text, label in zip(ids, texts, labels, strict=True):
        video, separator, clip = id_.rpartition(ID_SEPARATOR)
        named = (video, clip) if separator else (id_, "0")
        utterances.append(Utterance(*named, split, label, text))
    return utterances


def _array(source: Path, split: str, part: Mapping[str, Any], key: str, rank: int) -> NDArray[Any]:
    """An array over the utterances of a split."""
    array = np.asarray(part[key])
    if array.dtype.kind not in "fiu" or array.ndim != rank or len(array) != len(part["id"]):
        raise ExchangeError(
            f"{source}: split {split}: '{key}' is {array.dtype} of shape {array.shape}, must be "
            f"{rank} axes of numbers, the first of {len(part['id'])} utterances"
        )
    return array


def _lengths(
    source: Path, split: str, part: Mapping[str, Any], name: str, array: NDArray[Any]
) -> Iterator[int]:
    """How many rows of each utterance are not padding."""
    longest = array.shape[1]
    if f"{name}_lengths" in part:
        lengths = _array(source, split, part, f"{name}_lengths", 1)
        yield from (min(int(length), longest) for length in lengths)
    elif "text_bert" in part and np.shape(part["text_bert"])[-1] == longest:
        mask = _array(source, split, part, "text_bert", 3)[:, 1]
        yield from (int(length) for length in mask.sum(axis=1))
    else:
        for rows in array:
            filled = np.flatnonzero(rows.any(axis=1))
            yield int(filled[-1]) + 1 if len(filled) else 0


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# -- writing ----------------------------------------------------------------------------------


def streams_for_mmsa(store: FeatureStore, chosen: Mapping[str, str]) -> dict[str, Stream]:
    """The stream for each of text, audio and vision: `chosen`, or the own branch's.

    Of several streams of a branch, the one sequence is taken, which is what MMSA's models are for.

    Raises:
        ExchangeError: a modality has no stream, or several and none was chosen.
    """
    streams: dict[str, Stream] = {}
    for modality in MODALITIES:
        of_modality = {n: s for n, s in store.streams.items() if s.spec.modality == modality}
        own = {n: s for n, s in of_modality.items() if s.spec.branch == "own"} or of_modality
        sequences = {n: s for n, s in own.items() if s.spec.level == "sequence"}
        names = [chosen[modality]] if modality in chosen else list(sequences or own)
        if len(names) != 1 or names[0] not in of_modality:
            raise ExchangeError(
                f"{store.path}: choose a {modality} stream with --{modality}; there is "
                f"{', '.join(of_modality) or 'none'}"
            )
        streams[modality] = of_modality[names[0]]
    return streams


def export_mmsa(
    store: FeatureStore,
    out: Path,
    streams: Mapping[str, Stream],
    rows: Mapping[str, int] | None = None,
    tokenize: Tokenize | None = None,
) -> list[str]:
    """Write a pickle that MMSA's own code loads; give notes on what it could not take over.

    Every array is padded to its longest utterance, or padded and cut to `rows[modality]`. An
    utterance that lacks a modality gets one row of zeros, as in MMSA's files. Utterances without a
    label are left out. With `tokenize`, texts -> (n, 3, T), there is `text_bert` too, without
    which MMSA's models that train BERT do not run. Memory has to hold the pickle.
    """
    rows = rows or {}
    lengths = {
        name: rows.get(name) or max(1, int(stream.lengths.max(initial=1)))
        for name, stream in streams.items()
    }
    tokens = tokenize(store.texts) if tokenize else None
    content = {
        split: _part(store, store.rows_of_split(split), streams, lengths, tokens)
        for split in SPLITS
    }
    with publish(out) as temporary, temporary.open("wb") as file:
        pickle.dump(content, file, protocol=_PROTOCOL)
    unknown = int(np.isnan(store.labels).sum())
    cut = {name: int((s.lengths > lengths[name]).sum()) for name, s in streams.items()}
    return [
        *([f"{unknown} utterances without a label were left out"] if unknown else []),
        *(
            f"{name}: {n} utterances were cut to {lengths[name]} rows"
            for name, n in cut.items()
            if n
        ),
    ]


def _part(
    store: FeatureStore,
    rows: NDArray[np.int64],
    streams: Mapping[str, Stream],
    longest: Mapping[str, int],
    tokens: NDArray[np.int64] | None,
) -> dict[str, Any]:
    kept = [int(row) for row in rows if not math.isnan(store.labels[row])]
    labels = store.labels[kept]
    part: dict[str, Any] = {
        "raw_text": np.array([store.texts[row] for row in kept], object),
        "id": np.array([store.ids[row] for row in kept], object),
        "annotations": np.array(
            [("Negative", "Neutral", "Positive")[int(sign) + 1] for sign in np.sign(labels)], object
        ),
        "classification_labels": (np.sign(labels) + 1).astype(np.int64),
        "regression_labels": labels,
    }
    for name, stream in streams.items():
        array = np.zeros((len(kept), longest[name], stream.spec.dim), np.float32)
        for i, row in enumerate(kept):
            found = stream[row][: longest[name]]
            array[i, : len(found)] = found
        part[name] = array
        if name != "text":
            part[f"{name}_lengths"] = [
                max(1, min(int(stream.lengths[row]), longest[name])) for row in kept
            ]
    if tokens is not None:
        part["text_bert"] = tokens[kept]
    return part


def bert_tokens(tokenizer: Any, longest: int) -> Tokenize:
    """`tokenize` for `export_mmsa`, of a transformers tokenizer; at most `longest` tokens."""

    def tokenize(texts: Sequence[str]) -> NDArray[np.int64]:
        coded = tokenizer(
            list(texts), padding="longest", truncation=True, max_length=longest, return_tensors="np"
        )
        segments = coded.get("token_type_ids", np.zeros_like(coded["input_ids"]))
        stacked = np.stack([coded["input_ids"], coded["attention_mask"], segments], axis=1)
        return stacked.astype(np.int64)

    return tokenize
