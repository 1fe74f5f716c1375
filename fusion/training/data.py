"""From a feature store to batches: which stream plays which role, and rows gathered by index."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from clipmsa.cache import FeatureStore, StreamSpec
from clipmsa.cache.errors import ConfigError, TrainingError
from clipmsa.fusion.networks.network import ROLES, Batch, NetworkConfig
from clipmsa.fusion.networks.ragged import Ragged
from clipmsa.fusion.networks.standardise import Moments, moments

_MOMENT_ROWS = 128  # at once, so that a block in float64 stays in a processor's cache
NOTHING: Mapping[str, Tensor] = MappingProxyType({})


def streams_by_role(store: FeatureStore, config: NetworkConfig) -> dict[str, StreamSpec]:
    """The stream for each role that the network uses, in the order of `ROLES`.

    A stream's role is its modality and branch, so a swapped encoder needs no code. Roles that the
    store has no stream for are left out. Of an encoder's vectors and its states (`states_of`), the
    vectors are taken unless the configuration names the states.

    Raises:
        ConfigError: several streams have one role and the configuration names none of them, it
            names one that is not there, or no stream is left.
    """
    chosen: dict[str, StreamSpec] = {}
    for role in ROLES:
        if role in config.drop:
            continue
        candidates = {
            name: stream.spec
            for name, stream in store.streams.items()
            if f"{stream.spec.modality}/{stream.spec.branch}" == role
        }
        name = config.streams.get(role)
        if name is not None and name not in candidates:
            raise ConfigError(
                f"{store.path}: no stream '{name}' with the role {role}; "
                f"there is {', '.join(candidates) or 'none'}"
            )
        if name is None:
            candidates = {n: s for n, s in candidates.items() if s.states_of not in candidates}
        if name is None and len(candidates) > 1:
            raise ConfigError(
                f"{store.path}: {' and '.join(candidates)} both have the role {role}; "
                f'choose with `settings` \'streams={{"{role}" = "{next(iter(candidates))}"}}\''
            )
        if candidates:
            chosen[role] = candidates[name] if name else next(iter(candidates.values()))
    if not chosen:
        raise ConfigError(f"{store.path}: no stream is left to train on")
    return chosen


class FeatureData:
    """The chosen streams of a store as tensors.

    On the CPU they share the store's memory map: nothing is copied until a batch is gathered, so a
    store larger than memory trains in flat memory, and of a smaller one the operating system keeps
    the pages. On a GPU they live in its memory, where half of what is free holds them.
    """

    def __init__(
        self, store: FeatureStore, roles: Mapping[str, StreamSpec], device: torch.device
    ) -> None:
        self.store, self.roles, self.device = store, dict(roles), device
        self.labels = torch.from_numpy(store.labels)
        self._values = {
            role: torch.from_numpy(store.streams[spec.name].values) for role, spec in roles.items()
        }
        self._offsets = {
            role: torch.from_numpy(store.streams[spec.name].offsets) for role, spec in roles.items()
        }
        if sum(values.nbytes for values in self._values.values()) < _free_memory(device) / 2:
            self._values = {role: values.to(device) for role, values in self._values.items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is learnt and tested on: ids, splits, labels, and the features.

        Features count by the checksum that our writer records; where another program wrote none,
        by the file's size and time, so that a store that was written anew is another one.
        """
        digest = hashlib.sha256()
        for column in (self.store.ids, self.store.splits):
            digest.update("\n".join(column).encode())
        digest.update(self.store.labels.tobytes())
        file = self.store.path.stat()
        for role, spec in self.roles.items():
            checksum = (
                self.store.streams[spec.name].checksum or f"{file.st_size} {file.st_mtime_ns}"
            )
            digest.update(f"\n{role} {spec.name} {spec.fingerprint} {checksum}".encode())
        return digest.hexdigest()

    def labelled_rows(self, split: str) -> Tensor:
        """Rows of a split whose label is known, in the store's order.

        Raises:
            TrainingError: there is none.
        """
        rows = torch.from_numpy(self.store.rows_of_split(split))
        rows = rows[~self.labels[rows].isnan()]
        if len(rows) == 0:
            raise TrainingError(
                f"{self.store.path}: no utterance of split '{split}' has a label; "
                f"training needs train, valid and test"
            )
        return rows

    def batch(self, rows: Tensor, withheld: Mapping[str, Tensor] = NOTHING) -> Batch:
        """Gather utterances by row number (B,), as float32 on the device.

        `withheld` says by modality which of the utterances, (B,) bool, are to be taken as if
        theirs were missing.
        """
        streams = {
            role: self._gather(role, rows, withheld.get(role.partition("/")[0]))
            for role in self.roles
        }
        return Batch(rows, streams, self.labels[rows].to(self.device))

    def empty_in(self, split: str) -> list[str]:
        """Names of the streams that no labelled utterance of a split has a row of."""
        rows = self.labelled_rows(split)
        return [
            spec.name
            for role, spec in self.roles.items()
            if not (self._offsets[role][rows + 1] > self._offsets[role][rows]).any()
        ]

    def moments(self, role: str, rows: Tensor) -> Moments:
        """Mean and deviation of each dimension over all rows of utterances `rows` in one stream.

        Raises:
            TrainingError: a feature is not a number; the message names the utterance.
        """
        lengths = self._offsets[role][rows + 1] - self._offsets[role][rows]
        together = max(1, _MOMENT_ROWS * len(rows) // max(1, int(lengths.sum())))
        parts = rows.split(together)
        device = "cpu" if self.device.type == "mps" else self.device  # MPS has no float64
        found = moments(
            (self._gather(role, part, None).rows.to(device) for part in parts), self.roles[role].dim
        )
        if not found.deviation.isfinite().all():
            where = next(filter(None, (self.not_finite(self.batch(part)) for part in parts)))
            raise TrainingError(f"{self.store.path}: not finite: {where}")
        return found

    def not_finite(self, batch: Batch) -> str | None:
        """Where a batch holds NaN or infinity, as "stream of 'utterance'"; None where nowhere."""
        for role, stream in batch.streams.items():
            bad = (~stream.rows.isfinite()).any(dim=1).cpu()
            if bad.any():
                owner = torch.arange(len(batch.rows)).repeat_interleave(stream.lengths)[bad][0]
                id_ = self.store.ids[int(batch.rows[owner])]
                return f"stream '{self.roles[role].name}' of utterance '{id_}'"
        return None

    def _gather(self, role: str, rows: Tensor, withheld: Tensor | None) -> Ragged:
        offsets, values = self._offsets[role], self._values[role]
        start, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
        if withheld is not None:
            lengths = lengths.masked_fill(withheld, 0)
        ends = lengths.cumsum(0)
        shift = (start - (ends - lengths)).repeat_interleave(lengths)
        index = (shift + torch.arange(len(shift))).to(values.device)
        return Ragged(values.index_select(0, index).to(self.device, torch.float32), lengths)


def _free_memory(device: torch.device) -> int:
    """Bytes free on a GPU; 0 where that is not known, and on the CPU, which has the map already."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
