"""What can go wrong, one class a kind. The command line prints these as one line, exit status 1."""

from __future__ import annotations


class ClipmsaError(Exception):
    """Something the user can act on; its message says what, where and what to do.

    Arguments stand in it between backticks, as Python has them: `out`, `overwrite=True`. The
    command line says its options for them (`cli/flags.py`).
    """


class TableError(ClipmsaError):
    """A label table or manifest is not usable; names the file and the row."""


class ExchangeError(ClipmsaError):
    """A file of another program is not usable; names the file and what is wrong in it."""


class MediaError(ClipmsaError):
    """A clip cannot be decoded."""


class NoPictureError(MediaError):
    """A clip has pictures, and none in the segment that was asked for."""


class SubtitleError(ClipmsaError):
    """A subtitle file cannot be read whole; names the file and the place."""


class WeightsError(ClipmsaError):
    """A checkpoint is missing or does not fit; names the file, its source and how to get it."""


class ChecksumError(WeightsError):
    """A checkpoint is there, and is not the one that was asked for."""


class ProfileError(ClipmsaError):
    """An extraction profile names something that does not exist."""


class StoreError(ClipmsaError):
    """A feature store breaks the format; names the file and the key."""


class FingerprintError(ClipmsaError):
    """Features made in two different ways would be mixed; shows the difference."""


class ConfigError(ClipmsaError):
    """A training configuration names something the store or the model does not have."""


class TrainingError(ClipmsaError):
    """Training cannot go on; names the seed, the epoch and the utterance."""


class CheckpointError(ClipmsaError):
    """A file is not a trained model of this program, or is damaged; names the file."""


class DeviceError(ClipmsaError):
    """A device was asked for that this machine does not have."""


class RunError(ClipmsaError):
    """A folder holds no finished run, or another one, or a file of it cannot be read."""


class PluginError(ClipmsaError):
    """An encoder, a network or a dataset layout is not there, or cannot be imported."""
