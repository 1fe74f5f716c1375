"""What a run is made of: sizes of the network, schedule of the training."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from clipmsa.cache.errors import ConfigError
from clipmsa.cache.texts import read_text

from .branches import Temporal
from .coattention import Residual

MODALITIES = ("text", "audio", "vision")
NormStart = Literal["shifted", "unit"]
Normalise = Literal["standard", "none"]
ROLES = tuple(f"{modality}/{branch}" for modality in MODALITIES for branch in ("own", "clip"))


@dataclass(frozen=True)
class NetworkConfig:
    """What every network is told: which one it is, and which streams it is given."""

    network: str = "clip-msa"
    drop: tuple[str, ...] = ()  # roles left out, such as "text/clip"
    streams: Mapping[str, str] = field(default_factory=dict, hash=False)  # role -> stream
    normalise: Normalise = "standard"  # inputs by the training split (standardise.py), or "none"

    def __post_init__(self) -> None:
        own = type(self).network
        if self.network != own:
            raise ConfigError(f"network is '{self.network}', must be '{own}' with these settings")
        for key, roles in (("drop", self.drop), ("streams", self.streams)):
            for role in roles:
                if role not in ROLES:
                    raise ConfigError(f"{key}: no role '{role}'; there are {', '.join(ROLES)}")
        _one_of("normalise", self.normalise, get_args(Normalise))


@dataclass(frozen=True)
class ModelConfig(NetworkConfig):
    """The trainable part of CLIP-MSA. The paper gives no sizes: these are the project's."""

    d: int = 128  # width of F_t, F_a, F_v and all that follows
    heads: int = 8  # m, heads of a CT unit
    d_ff: int = 256  # width of a CT unit's feed-forward network
    residual: Residual = "gated"  # "X_1 + hX_1" read as a gate, or "additive": X_1 + h
    fusion: str = "coattention"  # or "concat": the paper's "w/o Co-Attn"
    order: tuple[str, ...] = ("audio", "vision", "text")  # the first two meet first
    temporal: Temporal = "slstm"  # of the CLIP branch, or "stacked-bilstm"
    transformer_layers: int = 1  # of the own branch's sequences
    transformer_heads: int = 4
    transformer_ff: int = 256
    predictor_hidden: int = 64
    norm_start: NormStart = "shifted"  # of the projections' BatchNorms, or torch's own "unit"
    dropout: float = 0.1
    feature_dropout: float = 0.5  # of the frozen features, rows of sequences too

    def __post_init__(self) -> None:
        super().__post_init__()
        if sorted(self.order) != sorted(MODALITIES):
            raise ConfigError(
                f"order is {list(self.order)}, must hold each of {', '.join(MODALITIES)} once"
            )
        _one_of("fusion", self.fusion, ("coattention", "concat"))
        _one_of("residual", self.residual, get_args(Residual))
        _one_of("norm_start", self.norm_start, get_args(NormStart))
        _one_of("temporal", self.temporal, get_args(Temporal))
        if self.d % self.heads or self.d % self.transformer_heads:
            raise ConfigError(
                f"d = {self.d} must be a multiple of heads = {self.heads} "
                f"and of transformer_heads = {self.transformer_heads}"
            )


@dataclass(frozen=True)
class TFNConfig(NetworkConfig):
    """Tensor Fusion Network; sizes and rates of MMSA's configuration for MOSI."""

    network: str = "tfn"
    text_width: int = 32  # of z_text, and of the layers of its sub-network
    audio_width: int = 32
    vision_width: int = 128
    post_fusion: int = 64  # width of the layers over the tensor
    dropout: float = 0.5  # of the tensor
    feature_dropout: float = 0.3  # of the frozen features, after their normalisation

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "text_width", "audio_width", "vision_width", "post_fusion")


@dataclass(frozen=True)
class LMFConfig(NetworkConfig):
    """Low-rank Multimodal Fusion; sizes and rates of MMSA's configurations, rank for MOSI."""

    network: str = "lmf"
    text_width: int = 64  # of z_text, and of the layers of its sub-network
    audio_width: int = 16
    vision_width: int = 128
    rank: int = 3  # MMSA's for MOSI; 4 for MOSEI
    feature_dropout: float = 0.3  # of the frozen features, after their normalisation

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "text_width", "audio_width", "vision_width", "rank")


@dataclass(frozen=True)
class MulTConfig(NetworkConfig):
    """Multimodal Transformer; sizes and rates of its authors' code."""

    network: str = "mult"
    d: int = 30  # width of a modality's rows; twice that where two modalities' are joined
    heads: int = 5
    layers: int = 5  # of a cross-modal Transformer, and, but at least 3, of one over its own
    dropout: float = 0.1  # of the hidden layers, and of what is added to a row
    attention_dropout: float = 0.1  # of weights on text's rows and on a modality's own, not on
    # those of sound and picture to another modality: so the authors' defaults have it
    embed_dropout: float = 0.25  # of the rows that go into a Transformer
    feature_dropout: float = 0.25  # of text's frozen features alone, before they are projected
    output_dropout: float = 0.0  # between the two layers of the output

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "d", "heads", "layers")
        if self.d % self.heads:
            raise ConfigError(f"d = {self.d} must be a multiple of heads = {self.heads}")


@dataclass(frozen=True)
class MISAConfig(NetworkConfig):
    """Modality-Invariant and -Specific Representations; sizes and weights of its authors' code."""

    network: str = "misa"
    d: int = 128  # width of u, h^p and h^c, and of the recurrent layers
    dropout: float = 0.5  # of the predictor
    similarity: float = 1.0  # alpha, weight of L_sim in the loss
    difference: float = 0.3  # beta, of L_diff
    reconstruction: float = 1.0  # gamma, of L_recon

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "d")
        if self.d % 2:
            raise ConfigError(f"d = {self.d} must be even, since MISA's Transformer has two heads")


NETWORKS: dict[str, type[NetworkConfig]] = {
    kind.network: kind for kind in (ModelConfig, TFNConfig, LMFConfig, MulTConfig, MISAConfig)
}


def _one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key} is '{value}', must be one of {', '.join(allowed)}")


def _at_least_one(config: Any, *keys: str) -> None:
    for key in keys:
        if getattr(config, key) < 1:
            raise ConfigError(f"{key} is {getattr(config, key)}, must be at least 1")


@dataclass(frozen=True)
class TrainingConfig:
    """The schedule. The paper gives none; seeds and protocol are those of design and field."""

    epochs: int = 60
    patience: int = 6  # epochs without a better validation MAE before a seed stops
    batch_size: int = 128  # large, for the sake of the BatchNorms' statistics
    learning_rate: float = 5e-4
    averaging: float = 1.0  # epochs over which weights are averaged; 0 takes the last step's
    weight_decay: float = 1e-2
    clip_grad_norm: float = 1.0
    modality_dropout: float = 0.0  # share of utterances that lose a modality, for each of the three

    def __post_init__(self) -> None:
        _at_least_one(self, "epochs", "patience", "batch_size")
        if self.batch_size < 2:
            raise ConfigError("batch_size must be at least 2, since BatchNorm needs two samples")
        if self.averaging < 0:
            raise ConfigError(f"averaging is {self.averaging}, must be at least 0")
        if not 0 <= self.modality_dropout < 1:
            raise ConfigError(f"modality_dropout is {self.modality_dropout}, must be in [0, 1)")


@dataclass(frozen=True)
class RunConfig:
    """One variant of the model, or another network, and how it is trained."""

    variant: str = "full"
    model: NetworkConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


Config = TypeVar("Config", NetworkConfig, TrainingConfig)


def changed(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """`config` with `values` put in, checked by name and type.

    Where `network` names another one, the sizes of `config` mean nothing to it: it starts from its
    own, and keeps the streams.

    Raises:
        ConfigError: an unknown key or a value of another type; `where` says where it came from.
    """
    base: Any = config
    if isinstance(config, NetworkConfig):
        network = values.get("network", config.network)
        if network not in NETWORKS:
            raise ConfigError(f"{where}: no network '{network}'; there are {', '.join(NETWORKS)}")
        if network != config.network:
            base = NETWORKS[network](drop=config.drop, streams=config.streams)
    types = get_type_hints(type(base))
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in types:
            known = ", ".join(f.name for f in fields(base))
            of = f" of '{base.network}'" if isinstance(base, NetworkConfig) else ""
            raise ConfigError(f"{where}: no setting '{key}'{of}; there are {known}")
        default = getattr(base, key)
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
        out: Config = replace(base, **checked)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return out


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    text = read_text(path, ConfigError, "settings in TOML")
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
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
        model = changed(config.model, tables.get("model", {}), f"{path} [model]")
        name = config.variant if model.network == config.model.network else model.network
        config = replace(
            config,
            variant=tables.get("variant", name),
            model=model,
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
    of_model = {f.name for f in fields(config.model)} - {"network"}
    known = of_model | {f.name for f in fields(config.training)}
    for key in values:
        if key == "network":
            raise ConfigError(f"{where}: the network is chosen by --model, or in a TOML file")
        if key not in known:
            raise ConfigError(
                f"{where}: no setting '{key}' of '{config.model.network}' and its training; "
                f"there are {', '.join(sorted(known))}"
            )
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
