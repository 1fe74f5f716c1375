"""Stores of blocks of a dataset, such as a Slurm array makes with `--shard i/n`, joined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import FingerprintError, StoreError
from clipmsa.cache.provenance import difference

from .filed import Filed


def merge_stores(shards: Sequence[Path], out: Path) -> int:
    """Write the store of all utterances of `shards`, in their order; give the number of them.

    Rows are copied a block at a time, so memory does not grow with the shards.

    Raises:
        FingerprintError: a stream was made in two ways.
        StoreError: shards differ in dataset, profile, source of splits or streams, or hold an
            utterance twice.
    """
    stores = [FeatureStore(path, mapped=False) for path in shards]
    first = stores[0]
    for store in stores[1:]:
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
    owner: dict[str, Path] = {}
    for store in stores:
        for id_ in [*store.ids, *(failure.id for failure in store.failed)]:
            if id_ in owner:
                raise StoreError(f"{store.path}: '{id_}' is in {owner[id_]} too")
            owner[id_] = store.path
    fingerprints = {name: stream.spec.fingerprint for name, stream in first.streams.items()}
    utterances = [store.utterance(row) for store in stores for row in range(len(store))]
    Filed(stores, fingerprints).assemble(
        out,
        dataset=first.dataset,
        profile=first.profile,
        splits_from=first.splits_from,
        utterances=utterances,
        failures=[failure for store in stores for failure in store.failed],
    )
    return len(utterances)
