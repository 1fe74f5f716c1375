"""Every rule of the store's format that opening a store does not check: the features themselves."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import StoreError
from .hdf5 import Hdf5File
from .provenance import fingerprint
from .spec import ID_SEPARATOR, SPLITS
from .store import LABEL_LIMIT, FeatureStore, Stream

_BLOCK_BYTES = 8 << 20
_NAMED = 3  # utterances named in a finding


class Verdict(NamedTuple):
    """`faults` break a rule; `remarks` are allowed and worth knowing. Sentences, without a path."""

    faults: list[str]
    remarks: list[str]


def verify_store(
    path: Path, on_rows: Callable[[int, int], None] = lambda done, total: None
) -> Verdict:
    """Read a whole store against FORMAT.md; memory holds a block of rows at a time.

    `on_rows` is told how many rows, of how many, have been read.
    """
    return _check(path, on_rows).verdict


class Checked(NamedTuple):
    """What a store is like, and the id, text and seconds of its utterances."""

    verdict: Verdict
    clips: list[tuple[str, str, float]]


def verify_apart(
    path: Path,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
    patience: float = 60.0,
) -> Checked:
    """As `verify_store`, in a process of its own, which a file may hang or crash.

    HDF5 does both on some damaged files. The process is ended once it has computed for `patience`
    seconds without a row (waiting for a slow disk does not count), and either is a fault in words.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_serve, args=(path, theirs, patience), daemon=True)
    child.start()
    theirs.close()
    try:
        while True:
            message = ours.recv()
            if isinstance(message, Checked):
                return message
            on_rows(*message)
    except EOFError:
        child.join()
        return Checked(Verdict([_end_in_words(child.exitcode or 0, patience)], []), [])
    finally:
        child.kill()
        child.join()
        ours.close()


def _serve(path: Path, pipe: Connection, patience: float) -> None:
    """The other process: send what `on_rows` is told, and in the end what was found."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever waits for this process ends it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a crash is told in our words

    def live() -> None:
        if hasattr(signal, "setitimer"):  # of the time computed; the signal ends the process
            signal.setitimer(signal.ITIMER_PROF, patience)

    def on_rows(done: int, total: int) -> None:
        live()
        pipe.send((done, total))

    live()
    try:
        pipe.send(_check(path, on_rows))
    except (
        ArithmeticError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        pipe.send(Checked(Verdict([f"cannot be checked ({reason})"], []), []))


def _end_in_words(status: int, patience: float) -> str:
    if hasattr(signal, "SIGPROF") and status == -signal.SIGPROF:
        what = f"does not come to an end of reading it ({patience:g} s without a row)"
    else:
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        what = f"crashes on it ({how})"
    return f"HDF5 {what}: the file is damaged; do not open it with any program"


def _check(path: Path, on_rows: Callable[[int, int], None]) -> Checked:
    try:
        store = FeatureStore(path, mapped=False)
    except StoreError as error:
        return Checked(Verdict([str(error).removeprefix(f"{path}: ")], []), [])
    clips = list(zip(store.ids, store.texts, store.durations.tolist(), strict=True))
    verdict = Verdict(list(_table_faults(store)), list(_table_remarks(store)))
    total = sum(int(stream.offsets[-1]) for stream in store.streams.values())
    done = 0
    for stream in store.streams.values():
        before = done

        def advance(rows: int, before: int = before) -> None:
            on_rows(before + rows, total)

        verdict.faults.extend(_stream_faults(store, stream, advance))
        done += int(stream.offsets[-1])
    return Checked(verdict, clips)


def label_fault(id_: str, label: float) -> str | None:
    """What is wrong with a label, if anything; unknown ones are not."""
    if abs(label) > LABEL_LIMIT:
        return f"label {label:g} of '{id_}' is outside [{-LABEL_LIMIT:g}, {LABEL_LIMIT:g}]"
    return None


def odd_labels_and_splits(
    ids: Sequence[str], videos: Sequence[str], splits: Sequence[str], labels: Sequence[float]
) -> list[str]:
    """Sentences on what a table may hold and seldom means, told wherever one is read.

    Labels that are off the scale, and videos with clips in several splits.
    """
    off = [id_ for id_, label in zip(ids, labels, strict=True) if label_fault(id_, label)]
    scale = f"[{-LABEL_LIMIT:g}, {LABEL_LIMIT:g}]"
    odd = [f"{len(off)} labels are outside {scale} ({_some(off)})"] if off else []
    return odd + shared_videos(videos, splits)


def shared_videos(videos: Sequence[str], splits: Sequence[str]) -> list[str]:
    """A sentence on videos whose clips would tell a model of training what it is tested on."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for video, split in zip(videos, splits, strict=True):
        homes[video].add(split)
    shared = [video for video, found in homes.items() if len(found) > 1]
    if not shared:
        return []
    return [f"{len(shared)} videos have clips in several splits ({_some(shared)})"]


def _table_faults(store: FeatureStore) -> Iterator[str]:
    for row, id_ in enumerate(store.ids):
        wanted = f"{store.video_ids[row]}{ID_SEPARATOR}{store.clip_ids[row]}"
        if id_ != wanted:
            yield f"/utterances/id '{id_}' must be '{wanted}', its video and clip"
        fault = label_fault(id_, float(store.labels[row]))
        if fault:
            yield f"/utterances/label: {fault}"
        if not store.starts[row] < store.ends[row]:
            yield f"/utterances/end of '{id_}' is {store.ends[row]:g}, before its start"
        if store.durations[row] <= 0:
            yield f"/utterances/duration of '{id_}' is {store.durations[row]:g}"
    bare = rowless(store)
    if bare and _modalities(store) > 1:
        yield (
            f"{len(bare)} utterances have no row in any stream ({_some(bare)}): nothing of them "
            f"was encoded, and they are no /failures"
        )
    for failure in store.failed:
        if failure.id in store.index:
            yield f"/failures/id '{failure.id}' is in /utterances too"


def _table_remarks(store: FeatureStore) -> Iterator[str]:
    counts = Counter(store.splits)
    for split in SPLITS:
        if not counts[split]:
            yield f"no utterance of split {split}"
    yield from shared_videos(store.video_ids, store.splits)
    bare = rowless(store)
    if bare and _modalities(store) == 1:  # of which it is missing
        yield f"{len(bare)} utterances have no row in any stream ({_some(bare)})"


def rowless(store: FeatureStore) -> list[str]:
    """Ids of utterances that no stream has a row of."""
    if not store.streams:
        return []
    lengths = [stream.lengths for stream in store.streams.values()]
    return [store.ids[row] for row in np.flatnonzero(~np.any(lengths, axis=0))]


def _modalities(store: FeatureStore) -> int:
    return len({stream.spec.modality for stream in store.streams.values()})


def _stream_faults(
    store: FeatureStore, stream: Stream, on_rows: Callable[[int], None]
) -> Iterator[str]:
    spec, where = stream.spec, f"/streams/{stream.spec.name}"
    ours = store.clipmsa_version and re.fullmatch("[0-9a-f]{16}", spec.fingerprint)
    if ours and spec.fingerprint != fingerprint(spec.config):
        yield f"{where}: fingerprint {spec.fingerprint} is not that of its config"
    rows = int(stream.offsets[-1])
    finite, zero = np.ones(rows, bool), np.zeros(rows, bool)
    digest = hashlib.sha256()
    try:
        with Hdf5File(store.path, StoreError) as file:
            start = 0
            for block in _blocks(file.dataset(f"{where}/values", rank=2)):
                end = start + len(block)
                finite[start:end] = np.isfinite(block).all(axis=1)
                zero[start:end] = ~block.any(axis=1)
                digest.update(np.ascontiguousarray(block).data)
                start = end
                on_rows(end)
    except StoreError as error:
        yield str(error).removeprefix(f"{store.path}: ")
        return
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        yield f"{where}/values cannot be read ({error})"
        return
    if stream.checksum and stream.checksum != digest.hexdigest():
        yield f"{where}/values: SHA-256 is {digest.hexdigest()}, was {stream.checksum} when written"
    bad = _owners(stream, ~finite)
    if len(bad):
        some = _some(_ids(store, bad))
        yield f"{where}/values: NaN or infinity in {len(bad)} utterances ({some})"
    zeros = np.bincount(_owners_of_rows(stream, zero), minlength=len(store)) == stream.lengths
    empty = np.flatnonzero(zeros & (stream.lengths > 0))
    if len(empty):
        yield (
            f"{where}/values: nothing but zeros for {len(empty)} utterances "
            f"({_some(_ids(store, empty))}); a missing modality is no rows"
        )


def _blocks(values: Any) -> Iterator[NDArray[Any]]:
    """The rows of a dataset, some megabytes at a time, along its chunks where it has any."""
    step = max(1, _BLOCK_BYTES // (values.dtype.itemsize * values.shape[1]))
    if values.chunks:
        step = -(-step // values.chunks[0]) * values.chunks[0]
    for start in range(0, len(values), step):
        yield values[start : start + step]


def _owners_of_rows(stream: Stream, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The utterance of each chosen row."""
    found: NDArray[np.int64] = (
        np.searchsorted(stream.offsets, np.flatnonzero(chosen), side="right") - 1
    )
    return found


def _owners(stream: Stream, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.unique(_owners_of_rows(stream, chosen))


def _ids(store: FeatureStore, rows: Any) -> list[str]:
    return [store.ids[row] for row in rows[: _NAMED + 1]]


def _some(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + (", ..." * (len(names) > _NAMED))
