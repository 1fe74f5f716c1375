"""The extraction run: what is missing is decoded, encoded and filed; then the store is assembled.

Progress lives in *parts*: small feature stores, each closed and renamed into a work folder beside
the output. Resuming, extending a dataset, adding a stream and replacing one are the same rule: a
(clip, stream) pair that some part or the existing store already holds under the same fingerprint
is not encoded again. The output appears in one rename at the end.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clipmsa.cache import FeatureStore, StreamColumn, StreamSpec, Utterance, write_store
from clipmsa.cache.errors import ClipmsaError, FingerprintError, StoreError
from clipmsa.cache.files import remove_leftovers, sole_writer
from clipmsa.cache.provenance import difference
from clipmsa.cache.spec import Failure
from clipmsa.cache.writer import storage_dtype
from clipmsa.extract.datasets.read import Clip, Manifest

from .feature_index import Filed, refuse_damage
from .plan import Settings, StreamPlan, plan_streams
from .worker import Encoded, Engine, Result, Worker

_PART_CLIPS = 64  # a part is published after so many clips,
_PART_SECONDS = 30.0  # or so much time, whichever comes first
_HOPELESS = 8  # when the first so many clips all fail, something else is wrong

_NOTHING = "no text, and no sound or picture that the streams take: there is nothing to encode"
_WRITING = "part-*.new"  # a part that has no name yet

Progress = Callable[[int, int, int], None]  # clips that are done, of all, and that failed now
Note = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """What a run did."""

    path: Path
    utterances: int  # in the store
    encoded: int  # clips that something was encoded for
    failures: list[Failure]
    seconds: float


def extract(
    manifest: Manifest,
    out: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
    engine: Engine = Worker,
    on_progress: Progress = lambda done, total, failed: None,
    on_note: Note = lambda sentence: None,
) -> Report:
    """Bring the store at `out` to hold every stream of the profile for every clip.

    `overwrite` encodes the profile's streams anew, and lets clips that the table no longer lists
    go. Streams of the store that the profile does not have are kept as they are. `retry_failed`
    tries the clips again that failed in an earlier run. `engine` decides where the encoders run;
    what they give is written here, by this process alone. `on_progress` is told first of what was
    there before, `on_note` of parts of an interrupted run that are damaged and count for nothing.

    When it is interrupted, what is encoded so far is published, and the next call goes on from it.

    Raises:
        WeightsError: a checkpoint is missing or does not fit.
        FingerprintError: the store's features were made in another way.
        StoreError: the store at `out` is damaged, or holds clips that the table does not list; or
            what was encoded is not there any more when the store is put together.
        ClipmsaError: another run is writing to `out`, or the first clips all failed.
    """
    started = time.monotonic()
    plans = plan_streams(settings)
    work = out.parent / f".{out.name}.parts"
    with _only_writer(work, out):
        existing = FeatureStore(out) if out.exists() else None
        if existing is not None and not overwrite:
            _refuse_to_mix(existing, plans, manifest)
        # Of the existing store, the streams that stay. It is mapped: it cannot change under us.
        base = None if existing is None else _without(existing, plans if overwrite else ())

        def filed(parts: Sequence[Path]) -> Filed:
            """Everything there is at this moment, under the fingerprints that are wanted."""
            sources = [FeatureStore(path, mapped=False) for path in parts]
            wanted = {name: plan.fingerprint for name, plan in plans.items()}
            if base is not None:
                wanted = {n: s.spec.fingerprint for n, s in base.streams.items()} | wanted
                sources.append(base)
            return Filed(sources, wanted)

        parts = _whole_parts(work, on_note)
        there = filed(parts)
        _refuse_gaps(there, manifest, plans, out)
        pending = _pending(manifest.clips, there, plans, retry_failed)
        todo = sum(map(len, pending.values()))
        kept, left_out = _outcome(manifest, there)
        if todo or parts or existing is None or not _lists(existing, manifest, kept):
            if base is not None:
                refuse_damage(base)
            encoded: set[str] = set()
            if todo:
                fresh = not there.specs
                encoded = _encode(
                    manifest, pending, plans, settings, engine, work, on_progress, fresh
                )
                parts = _whole_parts(work, on_note)
                there = filed(parts)
            _refuse_losses(there, manifest, encoded, out, work)
            kept, left_out = _outcome(manifest, there)
            there.assemble(
                out,
                dataset=manifest.dataset,
                profile=settings.profile.name,
                splits_from=manifest.splits,
                shard=manifest.block,
                utterances=kept,
                failures=left_out,
            )
            for part in parts:
                part.unlink(missing_ok=True)
    return Report(out, len(kept), todo, left_out, time.monotonic() - started)


def _outcome(manifest: Manifest, filed: Filed) -> tuple[list[Utterance], list[Failure]]:
    """The utterances to keep, and the failures of the others."""
    kept, left_out = [], []
    for utterance in (clip.utterance for clip in manifest.clips):
        if filed.failed(utterance):
            left_out.append(filed.failures[utterance.id])
        elif filed.empty(utterance):
            left_out.append(Failure(utterance.id, "extract", _NOTHING))
        else:
            kept.append(utterance)
    return kept, left_out


def _without(store: FeatureStore, names: Container[str]) -> FeatureStore:
    return store.with_streams({n: s for n, s in store.streams.items() if n not in names})


def _pending(
    clips: Sequence[Clip], filed: Filed, plans: Mapping[str, StreamPlan], retry_failed: bool
) -> dict[frozenset[str], list[Clip]]:
    """Clips to encode, grouped by the streams that they lack."""
    groups: dict[frozenset[str], list[Clip]] = {}
    for clip in clips:
        lacking = filed.lacking(clip.utterance, plans)
        if lacking and (retry_failed or clip.utterance.id not in filed.failures):
            groups.setdefault(lacking, []).append(clip)
    return groups


def _encode(
    manifest: Manifest,
    pending: Mapping[frozenset[str], list[Clip]],
    plans: Mapping[str, StreamPlan],
    settings: Settings,
    engine: Engine,
    work: Path,
    on_progress: Progress,
    fresh: bool,
) -> set[str]:
    """Encode every pending clip, publish the results in parts, and give the ids encoded.

    `fresh`: nothing was encoded before. Later, the clips left may well be the broken ones.
    """
    total = len(manifest.clips)
    there = total - sum(map(len, pending.values()))
    encoded: set[str] = set()
    failed = 0
    first: Failure | None = None
    on_progress(there, total, 0)
    needed = frozenset().union(*pending)
    wanted = {name: plan for name, plan in plans.items() if name in needed}
    with closing(engine(wanted, settings)) as workers:
        for names, clips in pending.items():
            specs = [spec for name, spec in workers.specs.items() if name in names]
            part = _Part(work, manifest.dataset, settings.profile.name, specs)
            try:
                for results in workers.encode(clips, names):
                    for result in results:
                        part.add(result)
                        if isinstance(result, Failure):
                            failed += 1
                            first = first or result
                        else:
                            encoded.add(result.utterance.id)
                    done = len(encoded) + failed
                    on_progress(there + done, total, failed)
                    if (
                        fresh
                        and first
                        and done == failed
                        and (done >= _HOPELESS or there + done == total)
                    ):
                        raise ClipmsaError(
                            f"the first {done} clips all failed; '{first.id}' at {first.stage}: "
                            f"{first.error}"
                        )
                    if part.due:
                        part.publish()
            except KeyboardInterrupt:
                part.publish()
                raise
            part.publish()
    return encoded


@dataclass
class _Part:
    """Results waiting to be published together as one small store in the work folder."""

    folder: Path
    dataset: str
    profile: str
    specs: Sequence[StreamSpec]
    results: list[Encoded] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def add(self, result: Result) -> None:
        if isinstance(result, Failure):
            self.failures.append(result)
        else:
            self.results.append(result)

    @property
    def due(self) -> bool:
        count = len(self.results) + len(self.failures)
        return count >= _PART_CLIPS or time.monotonic() - self.since > _PART_SECONDS

    def publish(self) -> None:
        """Write what waits, under a name that no other part has, and start afresh."""
        if self.results or self.failures:
            number = time.time_ns()
            new = self.folder / _WRITING.replace("*", f"{number:020d}-{secrets.token_hex(8)}")
            write_store(
                new,
                dataset=self.dataset,
                profile=self.profile,
                utterances=[result.utterance for result in self.results],
                streams=[self._column(spec) for spec in self.specs],
                failures=self.failures,
            )
            new.rename(self.folder / f"{number:020d}-{_digest(new)}.h5")
        self.results, self.failures, self.since = [], [], time.monotonic()

    def _column(self, spec: StreamSpec) -> StreamColumn:
        rows = [
            result.rows.get(spec.name, np.empty((0, spec.dim), storage_dtype(spec.level)))
            for result in self.results
        ]
        return StreamColumn(spec, np.array([len(r) for r in rows], np.int64), rows)


def _whole_parts(work: Path, on_note: Note) -> list[Path]:
    """The parts, oldest first; those that are not what was written are told of and removed.

    A part's name ends in the SHA-256 of the file: damaged HDF5 is not even opened.
    """
    whole = []
    for path in sorted(path for path in work.glob("*.h5") if path.is_file()):
        if path.stem.rpartition("-")[2] == _digest(path):
            whole.append(path)
        else:
            path.unlink()
            on_note(f"{path}: is not as it was written; its clips are encoded again")
    return whole


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _only_writer(work: Path, out: Path) -> Iterator[None]:
    """Hold the work folder for this run; a killed run lets go of it by dying."""
    with sole_writer(work, out):
        # What a killed writer left half-written here, where no other one is at work; or as output.
        for leftover in [*work.glob(".*.tmp"), *work.glob(_WRITING)]:
            if not leftover.is_dir():
                leftover.unlink()
        remove_leftovers(out)
        try:
            yield
        finally:
            if not any(work.glob("*.h5")):  # parts stay for the next run to go on from
                shutil.rmtree(work, ignore_errors=True)


def _refuse_to_mix(
    existing: FeatureStore, plans: Mapping[str, StreamPlan], manifest: Manifest
) -> None:
    """Raise if the store was made in another way, or holds clips that would be lost."""
    for name, plan in plans.items():
        if name in existing.streams:
            spec = existing.streams[name].spec
            if spec.fingerprint != plan.fingerprint:
                raise FingerprintError(
                    f"{existing.path}: stream '{name}' was made in another way "
                    f"({difference(spec.config, plan.config)}); use another `out`, or "
                    f"`streams={name!r}` and `overwrite=True` to encode it anew"
                )
    listed = {clip.utterance.id for clip in manifest.clips}
    unlisted = [id_ for id_ in existing.ids if id_ not in listed]
    if unlisted:
        raise StoreError(
            f"{existing.path}: holds {len(unlisted)} clips that this run does not list "
            f"('{unlisted[0]}', ...); drop `limit`, use another `out`, or drop them with "
            f"`overwrite=True`"
        )


def _refuse_gaps(
    filed: Filed, manifest: Manifest, plans: Mapping[str, StreamPlan], out: Path
) -> None:
    """Raise if a stream that is not asked for lacks clips: no rows would mean "missing"."""
    for name in filed.specs.keys() - plans.keys():
        lacking = [
            clip.utterance.id
            for clip in manifest.clips
            if filed.lacking(clip.utterance, [name]) and not filed.failed(clip.utterance)
        ]
        if lacking:
            raise StoreError(
                f"{out}: its stream '{name}' lacks {len(lacking)} of the clips "
                f"('{lacking[0]}', ...); extract '{name}' too, or use another `out`"
            )


def _refuse_losses(
    filed: Filed, manifest: Manifest, encoded: Set[str], out: Path, work: Path
) -> None:
    """Raise if features are gone that this run, or one before, had: no rows would mean "missing".

    `encoded` are the clips that this run encoded; what failed is in a part, and may lack anything.
    """
    lost = [
        id_
        for id_, utterance in ((clip.utterance.id, clip.utterance) for clip in manifest.clips)
        if filed.incomplete(utterance) and (id_ in encoded or id_ not in filed.failures)
    ]
    if lost:
        raise StoreError(
            f"{out}: features of {len(lost)} clips ('{lost[0]}', ...) were lost meanwhile: files "
            f"in {work} are gone or damaged; find out what removes them, and run the same command "
            f"again, which encodes those clips alone"
        )


def _lists(store: FeatureStore, manifest: Manifest, utterances: Sequence[Utterance]) -> bool:
    """Whether the store's table says what the manifest says: all but the durations."""
    if len(store) != len(utterances) or store.shard != manifest.block:
        return False
    labels = np.array([u.label for u in utterances], np.float32)
    return (
        store.ids == [u.id for u in utterances]
        and store.splits == [u.split for u in utterances]
        and store.texts == [u.text for u in utterances]
        and np.array_equal(store.labels, labels, equal_nan=True)
        and store.starts.tolist() == [u.start for u in utterances]
        and store.ends.tolist() == [u.end for u in utterances]
    )
