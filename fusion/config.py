"""What a run is made of: sizes of the model, schedule of the training."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from clipmsa.cache.errors import ConfigError

from .branches import Temporal
from .coattention import Residual

MODALITIES = ("text", "audio", "vision")
ROLES = tuple(f"{modality}/{branch}" for modality in MODALITIES for branch in ("own", "clip"))


@dataclass(frozen=True)
class ModelConfig:
    """The trainable part. The paper gives no sizes: these are the project's."""

    d: int = 128  # width of F_t, F_a, F_v and all that follows
    heads: int = 8  # m, heads of a CT unit
    d_ff: int = 256  # width of a CT unit's feed-forward network
    residual: Residual = "gated"  # "X_1 + hX_1" read as a gate, or "additive": X_1 + h
    fusion: str = "coattention"  # or "concat": the paper's "w/o Co-Attn"
    order: tuple[str, ...] = ("audio", "vision", "text")  # the first two meet first
    drop: tuple[str, ...] = ()  # roles left out, such as "text/clip"
    streams: Mapping[str, str] = field(default_factory=dict, hash=False)  # role -> stream
    temporal: Temporal = "slstm"  # of the CLIP branch, or "stacked-bilstm"
    transformer_layers: int = 1  # of the own branch's sequences
    transformer_heads: int = 4
    transformer_ff: int = 256
    predictor_hidden: int = 64
    dropout: float = 0.1
    feature_dropout: float = 0.1  # of the frozen features, before the projections

    def __post_init__(self) -> None:
        if sorted(self.order) != sorted(MODALITIES):
            raise ConfigError(
                f"order is {list(self.order)}, must hold each of {', '.join(MODALITIES)} once"
            )
        for key, value, allowed in (
            ("fusion", self.fusion, ("coattention", "concat")),
            ("residual", self.residual, ("gated", "additive")),
            ("temporal", self.temporal, ("slstm", "stacked-bilstm")),
        ):
            if value not in allowed:
                raise ConfigError(f"{key} is '{value}', must be one of {', '.join(allowed)}")
        for key, roles in (("drop", self.drop), ("streams", self.streams)):
            for role in roles:
                if role not in ROLES:
                    raise ConfigError(f"{key}: no role '{role}'; there are {', '.join(ROLES)}")
        if self.d % self.heads or self.d % self.transformer_heads:
            raise ConfigError(
                f"d = {self.d} must be a multiple of heads = {self.heads} "
                f"and of transformer_heads = {self.transformer_heads}"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """The schedule. The paper gives none; seeds and protocol are those of design and field."""

    epochs: int = 60
    patience: int = 10  # epochs without a better validation MAE before a seed stops
    batch_size: int = 32
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    clip_grad_norm: float = 1.0
    modality_dropout: float = 0.0  # share of utterances that lose a modality, for each of the three

    def __post_init__(self) -> None:
        for key in ("epochs", "patience", "batch_size"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} is {getattr(self, key)}, must be at least 1")
        if self.batch_size < 2:
            raise ConfigError("batch_size must be at least 2, since BatchNorm needs two samples")
        if not 0 <= self.modality_dropout < 1:
            raise ConfigError(f"modality_dropout is {self.modality_dropout}, must be in [0, 1)")


@dataclass(frozen=True)
class RunConfig:
    """One variant of the model, and how it is trained."""

    variant: str = "full"
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


Config = TypeVar("Config", ModelConfig, TrainingConfig)


def changed(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """`config` with `values` put in, checked by name and type.

    Raises:
        ConfigError: an unknown key or a value of another type; `where` says where it came from.
    """
    types = get_type_hints(type(config))
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in types:
            known = ", ".join(f.name for f in fields(config))
            raise ConfigError(f"{where}: no setting '{key}'; there are {known}")
        default = getattr(config, key)
        if isinstance(default, tuple) and isinstance(value, Sequence):
            value = tuple([value] if isinstance(value, str) else value)
        elif isinstance(default, float) and isinstance(value, int):
            value = float(value)
        expected = Mapping if isinstance(default, Mapping) else type(default)
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ConfigError(
                f"{where}: {key} is {value!r}, must be of type {expected.__name__} "
                f"like its default {default!r}"
            )
        checked[key] = value
    try:
        return replace(config, **checked)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from None


def configured(
    config: RunConfig, path: Path | None = None, settings: Sequence[str] = ()
) -> RunConfig:
    """`config` with a TOML file's [model] and [training], then `key=value` settings, put in.

    Raises:
        ConfigError: an unknown table or key, a value of another type, a setting without `=`.
    """
    if path is not None:
        tables = read_toml(path)
        for table in tables.keys() - {"variant", "model", "training"}:
            raise ConfigError(f"{path}: no table [{table}]; there are [model] and [training]")
        config = replace(
            config,
            variant=tables.get("variant", config.variant),
            model=changed(config.model, tables.get("model", {}), f"{path} [model]"),
            training=changed(config.training, tables.get("training", {}), f"{path} [training]"),
        )
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write key=value, as in --set d=64")
        config = with_values(config, {key.strip(): _parsed(text.strip())}, f"--set {setting}")
    return config


def with_values(config: RunConfig, values: Mapping[str, Any], where: str) -> RunConfig:
    """`config` with settings of the model or of the training put in, by name.

    Raises:
        ConfigError: no such setting, or a value of another type; `where` says where it came from.
    """
    of_model = get_type_hints(ModelConfig).keys()
    model = {key: value for key, value in values.items() if key in of_model}
    training = {key: value for key, value in values.items() if key not in of_model}
    return replace(
        config,
        model=changed(config.model, model, where),
        training=changed(config.training, training, where),
    )


def as_plain(config: RunConfig) -> dict[str, Any]:
    """A configuration as TOML and JSON have it: tables and lists; `configured` reads it back."""
    return {
        "variant": config.variant,
        "model": _plain(asdict(config.model)),
        "training": _plain(asdict(config.training)),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _plain(value)
        if isinstance(value, Mapping)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in values.items()
    }


def _parsed(text: str) -> Any:
    """A value as TOML writes it; anything else is a plain string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
