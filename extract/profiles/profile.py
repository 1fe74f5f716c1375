"""Profiles: which encoder makes which stream, with which settings; TOML, shipped or the user's."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from clipmsa.cache.errors import PluginError, ProfileError
from clipmsa.cache.provenance import canonical_json
from clipmsa.cache.spec import BRANCHES
from clipmsa.cache.texts import read_text
from clipmsa.extract.encoders import registry
from clipmsa.extract.encoders.encoder import Precision, StatesEncoder, states_name

_SHIPPED = Path(__file__).parent
_LONGEST = 60_000  # characters of a stream's table: HDF5 keeps an attribute of 64 KB
_MOST_FPS, _MOST_FRAMES = 1000, 1_000_000
# What a source may say beside its kind; `megabytes`, for `clipmsa weights list`, is no condition.
_SOURCES = {
    "hub": {"file", "sha256", "megabytes"},
    "url": {"sha256", "megabytes"},
    "path": {"sha256"},
}


@dataclass(frozen=True)
class Media:
    """How a clip's picture is sampled: a clock of `fps`, at most `max_frames` of its ticks."""

    fps: float = 5.0
    max_frames: int = 64

    def __post_init__(self) -> None:
        if type(self.fps) not in (int, float) or not 0 < self.fps <= _MOST_FPS:
            raise ProfileError(f"fps is {self.fps}, must be above 0, and {_MOST_FPS} at most")
        if type(self.max_frames) is not int or not 1 <= self.max_frames <= _MOST_FRAMES:
            raise ProfileError(
                f"max_frames is {self.max_frames}, must be a whole number from 1 to {_MOST_FRAMES}"
            )


@dataclass(frozen=True)
class StreamRecipe:
    """A stream as a profile asks for it: an encoder by name, its branch, source and options."""

    name: str
    encoder: str
    branch: str
    source: Mapping[str, Any]
    options: Mapping[str, Any]
    states_of: str = ""  # the stream that holds the vectors made from this one's rows


@dataclass(frozen=True)
class Profile:
    """All that decides what features are, apart from weights and precision."""

    name: str
    weights: str  # what --weights is when not given
    media: Media
    streams: tuple[StreamRecipe, ...]
    file: str = ""  # of the user's profiles

    @property
    def called(self) -> str:
        """What `--profile` takes for it."""
        return self.file or self.name

    def only(self, names: tuple[str, ...]) -> Profile:
        """The profile with some of its streams, and the states of these.

        Raises:
            ProfileError: it has no such stream.
        """
        known = [recipe.name for recipe in self.streams]
        for name in names:
            if name not in known:
                raise ProfileError(
                    f"profile '{self.name}' has no stream '{name}'; there are {', '.join(known)}"
                )
        chosen = (r for r in self.streams if r.name in names or r.states_of in names)
        return replace(self, streams=tuple(chosen))

    def with_sequences(self, rate: float | None = None) -> Profile:
        """The profile with a further stream for each encoder that has states to keep.

        A text encoder's are its tokens, a speech encoder's its frames, `rate` of them a second.
        """
        more = []
        for recipe in self.streams:
            encoder = registry.encoder_class(recipe.encoder)
            if issubclass(encoder, StatesEncoder) and recipe.options.get("pooling") != "none":
                options = {**recipe.options, "pooling": "none"}
                if encoder.consumes == "waveform" and rate is not None:
                    options["rate"] = rate
                name = states_name(recipe.name, encoder.states)
                more.append(replace(recipe, name=name, options=options, states_of=recipe.name))
        return replace(self, streams=(*self.streams, *more))


def shipped_profiles() -> list[str]:
    """Their names."""
    return sorted(file.stem for file in _SHIPPED.glob("*.toml"))


def load_profile(name: str) -> Profile:
    """A shipped profile by name, or a TOML file of the user's.

    Raises:
        ProfileError: no such profile, or it names what does not exist.
    """
    mine = name.endswith(".toml")
    path = Path(name) if mine else _SHIPPED / f"{name}.toml"
    if not path.exists():
        shipped = ", ".join(shipped_profiles())
        raise ProfileError(f"no profile '{name}'; there are {shipped}, or give a TOML file")
    text = read_text(path, ProfileError, "a profile in TOML")
    try:
        content = tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:  # not TOML, too deep
        raise ProfileError(f"{path}: not a TOML file ({error})") from None
    unknown = content.keys() - {"weights", "media", "streams"}
    if unknown:
        raise ProfileError(
            f"{path}: no setting '{min(unknown)}'; there are weights, media, streams"
        )
    for key, kind in (("weights", str), ("media", dict), ("streams", dict)):
        if not isinstance(content.get(key, kind()), kind):
            raise ProfileError(f"{path}: {key} must be a {'text' if kind is str else 'table'}")
    if not content.get("weights", "pretrained"):
        raise ProfileError(f"{path}: weights is empty, must be pretrained, random or a folder")
    try:
        media = Media(**content.get("media", {}))
    except TypeError:
        raise ProfileError(f"{path}: [media] takes fps and max_frames") from None
    streams = tuple(_recipe(path, mine, *item) for item in content.get("streams", {}).items())
    if not streams:
        raise ProfileError(f"{path}: no [streams.NAME] table")
    file = name if mine else ""
    return Profile(path.stem, content.get("weights", "pretrained"), media, streams, file)


def _recipe(path: Path, mine: bool, name: str, table: Mapping[str, Any]) -> StreamRecipe:
    """A stream's table; `mine` says that the user wrote it, who may name code of their own."""
    if not name.isprintable() or "/" in name or name in ("", ".") or not isinstance(table, Mapping):
        raise ProfileError(
            f"{path}: '{name}' is no [streams.NAME] table, NAME of printable characters without a "
            f"slash"
        )
    try:
        size = len(canonical_json(table))
    except TypeError as error:  # TOML has dates
        raise ProfileError(
            f"{path}: [streams.{name}] holds what no encoder takes ({error})"
        ) from None
    if size > _LONGEST:
        raise ProfileError(f"{path}: [streams.{name}] is of {size} characters; {_LONGEST} fit")
    options = dict(table)
    try:
        encoder, branch = options.pop("encoder"), options.pop("branch")
    except KeyError as error:
        raise ProfileError(f"{path}: [streams.{name}] has no {error}") from None
    try:
        # Refuses an unknown name before anything is loaded.
        registry.encoder_class(str(encoder), written=mine)
    except PluginError as error:
        raise ProfileError(f"{path}: [streams.{name}] {error}") from None
    if branch not in BRANCHES:
        raise ProfileError(
            f"{path}: [streams.{name}] branch is '{branch}', must be {' or '.join(BRANCHES)}"
        )
    source = options.pop("source", {})
    if source != {} and not _is_source(source):
        raise ProfileError(
            f"{path}: [streams.{name}] source is {source}, must be {{ hub, file? }}, {{ url }} or "
            f"{{ path }}, each with a sha256 or without"
        )
    if "path" in source:  # beside the profile, unless it says otherwise
        try:
            source = {**source, "path": str(path.parent / Path(source["path"]).expanduser())}
        except RuntimeError as error:  # ~nobody
            raise ProfileError(
                f"{path}: [streams.{name}] source {source['path']}: {error}"
            ) from None
    return StreamRecipe(name, encoder, branch, source, options)


def _is_source(source: object) -> bool:
    """Whether it is of one kind, and says nothing that has no meaning for that kind."""
    if not isinstance(source, Mapping):
        return False
    for key, value in source.items():
        if not value or not isinstance(value, int if key == "megabytes" else str):
            return False
        if isinstance(value, str) and not value.isprintable():
            return False
    return any(kind in source and source.keys() - {kind} <= _SOURCES[kind] for kind in _SOURCES)


def check_precision(precision: str) -> Precision:
    """Raises ProfileError unless it is one of the three."""
    for known in get_args(Precision):
        if precision == known:
            return known  # type: ignore[no-any-return]
    raise ProfileError(
        f"precision is '{precision}', must be one of {', '.join(get_args(Precision))}"
    )
