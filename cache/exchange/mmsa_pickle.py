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
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache.errors import ExchangeError
from clipmsa.cache.files import publish
from clipmsa.cache.spec import MODALITIES, SPLITS, Utterance
from clipmsa.cache.store import FeatureStore, Stream
from clipmsa.cache.writer import StreamColumn, write_store

from .imported import Imported, Tally, clip_of, finite, imported_spec, provenance_of, table_notes
from .unpickle import load_plain

_PROTOCOL = 4  # MMSA's own

Tokenize = Callable[[list[str]], NDArray[np.int64]]


# -- reading ----------------------------------------------------------------------------------

# The names that repositories of the field give to the same things; those of splits in any case.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "dev", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_ARRAY_NAMES = {
    "text": "text",
    **dict.fromkeys(("audio", "acoustic"), "audio"),
    **dict.fromkeys(("vision", "visual", "video"), "vision"),
}
_LABEL_NAMES = ("regression_labels", "labels", "label")
# What MMSA's files hold besides, which a store has no place for or is made from the labels.
_NEEDLESS = {"annotations", "annotation", "classification_labels", "align", "text_bert"} | {
    f"regression_labels_{modality}" for modality in "MTAV"
}


def import_mmsa(source: Path, out: Path) -> Imported:
    """Write the store of a pickle, its streams `text`, `audio` and `vision` of the own branch.

    Padding is taken off: by the stated lengths, for text (and for what is aligned with it) by the
    mask of `text_bert`, and else where only zeros follow. Values keep their float32. As every
    pickle, it is loaded whole: memory has to hold it. Splits and arrays may have the other names
    that are usual, such as `val` and `visual`; of what has none of them, a split or an array of
    features is refused, anything else is named in the notes.

    Raises:
        ExchangeError: not such a pickle; names the file and the key.
        StoreError: what is in it breaks a rule of the store, such as an id that occurs twice.
    """
    tally = Tally()
    parts = _parts(source, load_plain(source), tally)
    utterances = _utterances(source, parts, tally)
    columns: list[StreamColumn] = []
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
        config = provenance_of("MMSA pickle", source, array=name)
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
    tally.told += table_notes(utterances)
    write_store(out, dataset=source.stem, profile="mmsa", utterances=utterances, streams=columns)
    return Imported(len(utterances), tally.notes())


def _parts(source: Path, content: Any, tally: Tally) -> dict[str, dict[str, Any]]:
    """The splits, in our order, with our names for what is in them."""
    if not isinstance(content, dict):
        raise ExchangeError(f"{source}: holds a {type(content).__name__}, must be a dict of splits")
    named: dict[str, tuple[str, Any]] = {}
    for key, part in content.items():
        if key == "config":  # MMSA-FET's own settings
            continue
        split = _SPLIT_NAMES.get(str(key).lower()) if isinstance(key, str) else None
        if split in named:
            raise ExchangeError(f"{source}: '{named[split][0]}' and '{key}' are the same split")
        if split is not None:
            named[split] = key, part
        elif isinstance(part, dict) and ({"id"} | _ARRAY_NAMES.keys()) & part.keys():
            raise ExchangeError(
                f"{source}: split {str(key)[:40]!r} is none of {', '.join(_SPLIT_NAMES)}; rename it"
            )
        elif named:
            tally.told.append(f"not read: {str(key)[:40]!r}, which is no split")
    parts = {split: named[split][1] for split in SPLITS if split in named}
    if not parts or not all(isinstance(part, dict) for part in parts.values()):
        keys = ", ".join(str(key)[:40] for key in list(content)[:10])
        raise ExchangeError(f"{source}: must hold dicts {', '.join(SPLITS)}; it holds {keys}")
    return {split: _named_arrays(source, split, part, tally) for split, part in parts.items()}


def _named_arrays(
    source: Path, split: str, part: Mapping[Any, Any], tally: Tally
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in part.items():
        name, of, lengths = str(key)[:40], str(key), ""
        if of.endswith("_lengths"):
            of, lengths = of.removesuffix("_lengths"), "_lengths"
        if of in _ARRAY_NAMES:
            ours = _ARRAY_NAMES[of] + lengths
        elif of in _LABEL_NAMES:
            ours = _LABEL_NAMES[0]
        elif of in ("id", "raw_text") or of in _NEEDLESS:
            ours = of
        elif isinstance(value, np.ndarray) and value.ndim > 1 and value.dtype.kind in "fiu":
            raise ExchangeError(
                f"{source}: split {split}: array '{name}' is none of {', '.join(_ARRAY_NAMES)}; "
                f"rename it, or take it out"
            )
        else:
            told = f"not read: '{name}', of which nothing is known"
            tally.told += [told] if told not in tally.told else []
            continue
        if ours in found:
            raise ExchangeError(f"{source}: split {split} has two arrays of '{ours}', as '{name}'")
        found[ours] = value
    for key in ("id", "regression_labels"):
        if key not in found:
            raise ExchangeError(f"{source}: split {split} has no '{key}'")
    found["id"] = _column(source, split, found, "id", (None, 3))
    return found


def _column(
    source: Path, split: str, part: Mapping[str, Any], key: str, widths: tuple[int | None, ...]
) -> list[Any]:
    """A list over utterances, also where the file has it as a column of a matrix.

    `widths` may hold a width of rows that are kept whole.
    """
    try:
        array = np.asarray(part[key])
    except ValueError:  # lists of several lengths
        array = np.empty(())
    if array.ndim == 2 and array.shape[1] in widths:
        rows: list[Any] = array.tolist()
        return rows
    if array.ndim == 0 or math.prod(array.shape[1:]) != 1:
        raise ExchangeError(
            f"{source}: split {split}: '{key}' has shape {array.shape}, must be one for each "
            f"utterance"
        )
    values: list[Any] = array.reshape(-1).tolist()
    return values


def _utterances(
    source: Path, parts: Mapping[str, Mapping[str, Any]], tally: Tally
) -> list[Utterance]:
    listed: list[Utterance] = []
    blank = 0
    for split, part in parts.items():
        n = len(part["id"])
        texts = [""] * n
        if "raw_text" in part:
            given = _column(source, split, part, "raw_text", ())
            blank += sum(_is_nothing(text) for text in given)
            texts = ["" if _is_nothing(t) else _text(source, split, "raw_text", t) for t in given]
        try:
            given = _column(source, split, part, "regression_labels", ())
            labels = np.asarray(given, np.float32).tolist()
        except (TypeError, ValueError) as error:
            raise ExchangeError(f"{source}: split {split}: 'regression_labels': {error}") from None
        if not n == len(texts) == len(labels):
            raise ExchangeError(
                f"{source}: split {split} has {n} ids, {len(texts)} texts, {len(labels)} labels"
            )
        for id_, text, label in zip(part["id"], texts, labels, strict=True):
            listed.append(_utterance(source, split, id_, text, label))
    if blank:
        tally.told.append(f"{blank} texts are nan or none: they are blank now")
    unknown = sum(math.isnan(utterance.label) for utterance in listed)
    if unknown:
        tally.told.append(f"{unknown} labels are nan: unknown")
    return _by_video(listed, tally)


def _utterance(source: Path, split: str, id_: Any, text: str, label: float) -> Utterance:
    if isinstance(id_, list):  # video, start and end, as in MulT's file of MOSI
        video, start, end = (_text(source, split, "id", part) for part in id_)
        try:
            times = float(start), float(end)
        except ValueError:
            raise ExchangeError(
                f"{source}: split {split}: id {id_!r} must be a video and two times"
            ) from None
        return Utterance(video, f"{start}-{end}", split, label, text, start=times[0], end=times[1])
    return Utterance(*clip_of(_text(source, split, "id", id_)), split, label, text)


def _by_video(utterances: list[Utterance], tally: Tally) -> list[Utterance]:
    """Ids of the form `<video>_<clip>`, if all are, taken apart: a video is in one split."""
    pairs = [re.fullmatch(r"(.+)_(\d{1,9})", u.video_id, re.DOTALL) for u in utterances]
    if not utterances or not all(pairs) or any(u.clip_id != "0" for u in utterances):
        return utterances
    tally.told.append("ids are read as <video>_<clip>")
    return [
        replace(u, video_id=pair[1], clip_id=pair[2])
        for u, pair in zip(utterances, pairs, strict=True)
        if pair
    ]


def _array(source: Path, split: str, part: Mapping[str, Any], key: str, rank: int) -> NDArray[Any]:
    """An array over the utterances of a split."""
    try:
        array = np.asarray(part[key])
    except ValueError:  # lists of several lengths
        array = np.empty((), object)
    if array.dtype.kind not in "fiu" or array.ndim != rank or len(array) != len(part["id"]):
        raise ExchangeError(
            f"{source}: split {split}: '{key}' is {array.dtype} of shape {array.shape}, must be "
            f"{rank} axes of numbers, the first of {len(part['id'])} utterances"
        )
    return array


def _lengths(
    source: Path, split: str, part: Mapping[str, Any], name: str, array: NDArray[Any]
) -> list[int]:
    """How many rows of each utterance are not padding."""
    longest = array.shape[1]
    if f"{name}_lengths" in part:
        lengths = _array(source, split, part, f"{name}_lengths", 1)
        off = np.flatnonzero(~((lengths >= 0) & (lengths % 1 == 0)))  # NaN is neither
        if len(off):
            raise ExchangeError(
                f"{source}: split {split}: '{name}_lengths' of utterance {off[0]} is "
                f"{lengths[off[0]]}, must be a whole number from 0"
            )
        return [min(int(length), longest) for length in lengths]  # MMSA-FET's are before its cut
    if "text_bert" in part:
        tokens = _array(source, split, part, "text_bert", 3)
        if tokens.shape[1] != 3:
            raise ExchangeError(
                f"{source}: split {split}: 'text_bert' has shape {tokens.shape}, must be (n, 3, T)"
            )
        if tokens.shape[2] == longest:
            return [int(np.count_nonzero(mask)) for mask in tokens[:, 1]]
    filled = (np.flatnonzero(rows.any(axis=1)) for rows in array)
    return [int(rows[-1]) + 1 if len(rows) else 0 for rows in filled]


def _is_nothing(text: Any) -> bool:
    return text is None or (isinstance(text, float) and math.isnan(text))


def _text(source: Path, split: str, key: str, value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, (str, int, float)):
        raise ExchangeError(
            f"{source}: split {split}: '{key}' holds a {type(value).__name__}, must be texts"
        )
    return str(value)


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
