"""Stores of blocks of a dataset, such as a Slurm array makes with `--shard i/n`, joined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import FingerprintError, StoreError
from clipmsa.cache.provenance import difference

from .feature_index import Filed, refuse_damage


def merge_stores(shards: Sequence[Path], out: Path, *, partial: bool = False) -> int:
    """Write the store of all utterances of `shards`, in their order; give the number of them.

    Rows are copied a block at a time, so memory does not grow with the shards. With `partial`,
    shards may be missing; the store then says which ones it holds.

    Raises:
        FingerprintError: a stream was made in two ways.
        StoreError: shards differ in dataset, profile, source of splits or streams, hold an
            utterance twice, are damaged, or are not all there.
    """
    stores = [FeatureStore(path, mapped=False) for path in shards]
    first = stores[0]
    for store in stores[1:]:
        _refuse_to_mix(store, first)
    owner: dict[str, Path] = {}
    for store in stores:
        for id_ in [*store.ids, *(failure.id for failure in store.failed)]:
            if id_ in owner:
                raise StoreError(f"{store.path}: '{id_}' is in {owner[id_]} too")
            owner[id_] = store.path
    shard = _joined(stores)
    if shard and not partial:
        raise StoreError(f"{out}: {_gap(shard)}; give theirs too, or `partial=True` to do without")
    for store in stores:
        refuse_damage(store)
    fingerprints = {name: stream.spec.fingerprint for name, stream in first.streams.items()}
    utterances = [store.utterance(row) for store in stores for row in range(len(store))]
    Filed(stores, fingerprints).assemble(
        out,
        dataset=first.dataset,
        profile=first.profile,
        splits_from=first.splits_from,
        shard=shard,
        utterances=utterances,
        failures=[failure for store in stores for failure in store.failed],
    )
    return len(utterances)


def _refuse_to_mix(store: FeatureStore, first: FeatureStore) -> None:
    """Raise if two shards are not of one dataset, encoded in one way."""
    for key in ("dataset", "profile", "splits_from"):
        if getattr(store, key) != getattr(first, key):
            raise StoreError(
                f"{store.path}: {key} is '{getattr(store, key)}', "
                f"that of {first.path} is '{getattr(first, key)}'"
            )
    if store.streams.keys() != first.streams.keys():
        odd = min(store.streams.keys() ^ first.streams.keys())
        raise StoreError(f"{store.path} and {first.path}: only one of them has stream '{odd}'")
    for name, stream in store.streams.items():
        spec, wanted = stream.spec, first.streams[name].spec
        if spec.fingerprint != wanted.fingerprint:
            raise FingerprintError(
                f"{store.path}: stream '{name}' was made in another way than in {first.path} "
                f"({difference(wanted.config, spec.config)})"
            )


def _joined(stores: Sequence[FeatureStore]) -> str:
    """The shard that stores make together; "" where that is the whole, or where none says."""
    blocks: set[int] = set()
    counts: dict[int, Path] = {}
    for store in stores:
        if not store.shard:
            continue
        found = re.fullmatch(r"(\d{1,6}(?:,\d{1,6})*)/(\d{1,6})", store.shard, re.ASCII)
        if found is None:
            raise StoreError(
                f"{store.path}: attribute 'shard' is '{store.shard}', must be as 3/8 or 0,3/8"
            )
        blocks |= set(map(int, found[1].split(",")))
        counts.setdefault(int(found[2]), store.path)
    if len(counts) > 1:
        (one, this), (other, that), *_ = counts.items()
        raise StoreError(
            f"{this} is a shard of {one}, {that} of {other}; they overlap, or leave gaps"
        )
    count = next(iter(counts), 0)
    whole = blocks >= set(range(count))
    return "" if whole else f"{','.join(map(str, sorted(blocks)))}/{count}"


def _gap(shard: str) -> str:
    """What a joined shard lacks, in words.

    >>> _gap("0,2/4")
    '2 of the 4 shards are missing (1, 3)'
    """
    blocks, _, count = shard.partition("/")
    missing = sorted(set(range(int(count))) - set(map(int, blocks.split(","))))
    named = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    return f"{len(missing)} of the {count} shards are missing ({named})"
