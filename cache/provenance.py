"""What made a feature: a fingerprint of encoder, weights and preprocessing, and how two differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def canonical_json(config: Mapping[str, Any]) -> str:
    """One text for one configuration: sorted keys, no spaces that could vary."""
    return json.dumps(config, sort_keys=True, ensure_ascii=False)


def fingerprint(config: Mapping[str, Any]) -> str:
    """Identify a configuration by 16 hexadecimal digits.

    >>> fingerprint({"fps": 5, "model": "RN50"}) == fingerprint({"model": "RN50", "fps": 5})
    True
    >>> fingerprint({"fps": 5}) == fingerprint({"fps": 4})
    False
    """
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:16]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say in words where two configurations differ, as `key: old -> new`, nested keys dotted.

    >>> difference({"media": {"fps": 5.0}, "model": "a"}, {"media": {"fps": 4.0}, "model": "a"})
    'media.fps: 5.0 -> 4.0'
    """
    before, after = dict(_flat(old)), dict(_flat(new))
    return "; ".join(
        f"{key}: {before.get(key, 'nothing')} -> {after.get(key, 'nothing')}"
        for key in sorted(before.keys() | after.keys())
        if _text(before, key) != _text(after, key)
    )


def sha256_of_files(files: Iterable[Path]) -> str:
    """SHA-256 of one file, as `sha256sum` prints it; of several, of their names and digests."""
    digests = {}
    for file in sorted(files):
        with file.open("rb") as stream:
            digests[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256(canonical_json(digests).encode()).hexdigest()


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(config: Mapping[str, Any], key: str) -> str:
    """What the fingerprint sees of a value: 5 and 5.0 differ, and so do null and nothing."""
    return canonical_json({key: config[key]} if key in config else {})
