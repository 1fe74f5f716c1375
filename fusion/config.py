"""What a run is made of: sizes of the network, schedule of the training.

Every setting has a type and a range, whoever sets it: Python, a TOML file, `--set`, a search or a
checkpoint that somebody sent. Ranges are wide; what lies outside is a slip of the hand.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from clipmsa.cache.errors import ConfigError
from clipmsa.cache.texts import read_text

from .branches import Temporal
from .checked import one_line
from .coattention import Residual

MODALITIES = ("text", "audio", "vision")
NormStart = Literal["shifted", "unit"]
Normalise = Literal["standard", "none"]
ROLES = tuple(f"{modality}/{branch}" for modality in MODALITIES for branch in ("own", "clip"))

_CHECKED = ConfigDict(extra="forbid", strict=True)  # strict: no text is a number, nor is true
Width = Annotated[int, Field(ge=1, le=16_384)]
Layers = Annotated[int, Field(ge=1, le=64)]
Heads = Annotated[int, Field(ge=1, le=1_024)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1_000)]  # of a term in a loss
Steps = Annotated[int, Field(ge=1, le=1_000_000)]
# Parts of paths: the folder of a run is named after its variant.
Name = Annotated[str, Field(pattern=r"^\w[\w .,+-]*$", max_length=100)]


def _listed(value: Any) -> Any:
    """TOML has lists for tuples; of one item, its text will do."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_listed)]


@dataclass(frozen=True, config=_CHECKED)
class NetworkConfig:
    """What every network is told: which one it is, and which streams it is given."""

    network: str = "clip-msa"
    drop: Words = ()  # roles left out, such as "text/clip"
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


@dataclass(frozen=True, config=_CHECKED)
class ModelConfig(NetworkConfig):
    """The trainable part of CLIP-MSA. The paper gives no sizes: these are the project's."""

    d: Width = 128  # width of F_t, F_a, F_v and all that follows
    heads: Heads = 8  # m, heads of a CT unit
    d_ff: Width = 256  # width of a CT unit's feed-forward network
    residual: Residual = "gated"  # "X_1 + hX_1" read as a gate, or "additive": X_1 + h
    fusion: Literal["coattention", "concat"] = "coattention"  # "concat": the paper's "w/o Co-Attn"
    order: Words = ("audio", "vision", "text")  # the first two meet first
    temporal: Temporal = "slstm"  # of the CLIP branch, or "stacked-bilstm"
    transformer_layers: Layers = 1  # of the own branch's sequences
    transformer_heads: Heads = 4
    transformer_ff: Width = 256
    predictor_hidden: Width = 64
    norm_start: NormStart = "shifted"  # of the projections' BatchNorms, or torch's own "unit"
    dropout: Dropout = 0.1
    feature_dropout: Dropout = 0.5  # of the frozen features, rows of sequences too

    def __post_init__(self) -> None:
        super().__post_init__()
        if sorted(self.order) != sorted(MODALITIES):
            raise ConfigError(
                f"order is {list(self.order)}, must hold each of {', '.join(MODALITIES)} once"
            )
        if self.d % self.heads or self.d % self.transformer_heads:
            raise ConfigError(
                f"d = {self.d} must be a multiple of heads = {self.heads} "
                f"and of transformer_heads = {self.transformer_heads}"
            )


@dataclass(frozen=True, config=_CHECKED)
class TFNConfig(NetworkConfig):
    """Tensor Fusion Network; sizes and rates of MMSA's configuration for MOSI."""

    network: str = "tfn"
    text_width: Width = 32  # of z_text, and of the layers of its sub-network
    audio_width: Width = 32
    vision_width: Width = 128
    post_fusion: Width = 64  # width of the layers over the tensor
    dropout: Dropout = 0.5  # of the tensor
    feature_dropout: Dropout = 0.3  # of the frozen features, after their normalisation


@dataclass(frozen=True, config=_CHECKED)
class LMFConfig(NetworkConfig):
    """Low-rank Multimodal Fusion; sizes and rates of MMSA's configurations, rank for MOSI."""

    network: str = "lmf"
    text_width: Width = 64  # of z_text, and of the layers of its sub-network
    audio_width: Width = 16
    vision_width: Width = 128
    rank: Width = 3  # MMSA's for MOSI; 4 for MOSEI
    feature_dropout: Dropout = 0.3  # of the frozen features, after their normalisation


@dataclass(frozen=True, config=_CHECKED)
class MulTConfig(NetworkConfig):
    """Multimodal Transformer; sizes and rates of its authors' code."""

    network: str = "mult"
    d: Width = 30  # width of a modality's rows; twice that where two modalities' are joined
    heads: Heads = 5
    layers: Layers = 5  # of a cross-modal Transformer, and, but at least 3, of one over its own
    dropout: Dropout = 0.1  # of the hidden layers, and of what is added to a row
    attention_dropout: Dropout = 0.1  # of weights on text's rows and on a modality's own, not on
    # those of sound and picture to another modality: so the authors' defaults have it
    embed_dropout: Dropout = 0.25  # of the rows that go into a Transformer
    feature_dropout: Dropout = 0.25  # of text's frozen features alone, before they are projected
    output_dropout: Dropout = 0.0  # between the two layers of the output

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d % self.heads:
            raise ConfigError(f"d = {self.d} must be a multiple of heads = {self.heads}")


@dataclass(frozen=True, config=_CHECKED)
class MISAConfig(NetworkConfig):
    """Modality-Invariant and -Specific Representations; sizes and weights of its authors' code."""

    network: str = "misa"
    d: Width = 128  # width of u, h^p and h^c, and of the recurrent layers
    dropout: Dropout = 0.5  # of the predictor
    similarity: Weight = 1.0  # alpha, weight of L_sim in the loss
    difference: Weight = 0.3  # beta, of L_diff
    reconstruction: Weight = 1.0  # gamma, of L_recon

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d % 2:
            raise ConfigError(f"d = {self.d} must be even, since MISA's Transformer has two heads")


NETWORKS: dict[str, type[NetworkConfig]] = {
    kind.network: kind for kind in (ModelConfig, TFNConfig, LMFConfig, MulTConfig, MISAConfig)
}


@dataclass(frozen=True, config=_CHECKED)
class TrainingConfig:
    """The schedule. The paper gives none; seeds and protocol are those of design and field."""

    epochs: Steps = 60
    patience: Steps = 6  # epochs without a better validation MAE before a seed stops
    # Large, for the sake of the BatchNorms' statistics, which need two utterances at least.
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 128
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-4
    # Epochs over which weights are averaged; 0 takes the last step's.
    averaging: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-2
    clip_grad_norm: Annotated[float, Field(gt=0)] = 1.0  # inf: gradients are not clipped
    modality_dropout: Dropout = 0.0  # share of utterances that lose a modality, for each of them


@dataclass(frozen=True, config=_CHECKED)
class RunConfig:
    """One variant of the model, or another network, and how it is trained."""

    variant: Name = "full"
    model: NetworkConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


Config = TypeVar("Config", NetworkConfig, TrainingConfig)


def changed(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """`config` with `values` put in, checked by name, type and range.

    Where `network` names another one, the sizes of `config` mean nothing to it: it starts from its
    own, and keeps the streams.

    Raises:
        ConfigError: an unknown key or a value that it cannot have; `where` says where it came from.
    """
    base: Any = config
    if isinstance(config, NetworkConfig):
        network = values.get("network", config.network)
        if network not in list(NETWORKS):  # a list, since what a file says may have no hash
            raise ConfigError(f"{where}: no network '{network}'; there are {', '.join(NETWORKS)}")
        if network != config.network:
            base = NETWORKS[network](drop=config.drop, streams=config.streams)
    known = [f.name for f in fields(base)]
    for key in values:
        if key not in known:
            of = f" of '{base.network}'" if isinstance(base, NetworkConfig) else ""
            raise ConfigError(f"{where}: no setting '{key}'{of}; there are {', '.join(known)}")
    try:
        out: Config = replace(base, **values)
    except (ValidationError, ConfigError) as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None
    return out


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    text = read_text(path, ConfigError, "settings in TOML")
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:  # TOML, a number of 5000 digits
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
        for table, content in tables.items():
            if table not in ("variant", "model", "training"):
                what = "table [" if isinstance(content, dict) else "setting outside of a table ["
                raise ConfigError(f"{path}: no {what}{table}]; there are [model] and [training]")
            if table != "variant" and not isinstance(content, dict):
                raise ConfigError(f"{path}: '{table}' must be a table, as in [{table}]")
        model = changed(config.model, tables.get("model", {}), f"{path} [model]")
        name = config.variant if model.network == config.model.network else model.network
        training = changed(config.training, tables.get("training", {}), f"{path} [training]")
        try:
            config = RunConfig(tables.get("variant", name), model, training)
        except ValidationError as error:
            raise ConfigError(f"{path}: {one_line(error)}") from None
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write key=value, as in --set d=64")
        values[key.strip()] = _parsed(text.strip())
    return with_values(config, values, "--set") if values else config  # together: d needs its heads


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


def config_from_plain(content: Mapping[str, Any]) -> RunConfig:
    """What a checkpoint holds of a configuration, which is `asdict` of it.

    Raises:
        ConfigError, LookupError, TypeError, ValueError: it is not one.
    """
    model = content["model"]
    return RunConfig(
        content["variant"],
        NETWORKS[model.get("network", "clip-msa")](**model),  # of 0.1 and before: no key
        TrainingConfig(**content["training"]),
    )


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ConfigError unless there are seeds, each once, that every generator takes."""
    if not seeds:
        raise ConfigError("seeds: there is none")
    for place, seed in enumerate(seeds):
        if not 0 <= seed < 2**63:
            raise ConfigError(f"seed {seed}: must be from 0 to 2**63 - 1")
        if seed in seeds[:place]:
            raise ConfigError(f"seed {seed}: is there twice")


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
    except (ValueError, RecursionError):
        return text
