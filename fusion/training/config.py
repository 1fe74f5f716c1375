"""What a run is made of: sizes of the network, schedule of the training.

Every setting has a type and a range, whoever sets it: Python, a TOML file, `--set`, a search or a
checkpoint that somebody sent. Ranges are wide; what lies outside is a slip of the hand.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from clipmsa.cache.checked import one_line
from clipmsa.cache.errors import ConfigError, PluginError
from clipmsa.cache.texts import read_text
from clipmsa.fusion.networks.clip_msa import ClipMSAConfig
from clipmsa.fusion.networks.network import CHECKED, Dropout, NetworkConfig, Steps
from clipmsa.fusion.networks.registry import default_config, network_class

# Parts of paths: the folder of a run is named after its variant.
Name = Annotated[str, Field(pattern=r"^\w[\w .,+-]*$", max_length=100)]


@dataclass(frozen=True, config=CHECKED)
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


@dataclass(frozen=True, config=CHECKED)
class RunConfig:
    """One variant of the model, or another network, and how it is trained."""

    variant: Name = "full"
    model: NetworkConfig = field(default_factory=ClipMSAConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


Config = TypeVar("Config", NetworkConfig, TrainingConfig)


def changed(
    config: Config, values: Mapping[str, Any], where: str, *, written: bool = True
) -> Config:
    """`config` with `values` put in, checked by name, type and range.

    Where `network` names another one, the sizes of `config` mean nothing to it: it starts from its
    own, and keeps the streams. `written`: by the user, who may name code of his own.

    Raises:
        ConfigError: an unknown key or a value that it cannot have; `where` says where it came from.
    """
    base: Any = config
    if isinstance(config, NetworkConfig):
        network = values.get("network", config.network)
        if network != config.network:
            try:
                base = default_config(str(network), written=written)
            except (PluginError, ConfigError) as error:
                raise ConfigError(f"{where}: {error}") from None
            base = replace(base, drop=config.drop, streams=config.streams)
            values = {key: value for key, value in values.items() if key != "network"}
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
    config: RunConfig,
    path: Path | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
    *,
    written: bool = True,
) -> RunConfig:
    """`config` with a TOML file's [model] and [training], then settings, put in.

    Settings are values by name, or texts `key=value`.

    `written`: the file is the user's own, and not one that a run folder has.

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
        model = changed(config.model, tables.get("model", {}), f"{path} [model]", written=written)
        own = model.network.rpartition(":")[2]
        name = config.variant if model.network == config.model.network else own
        training = changed(config.training, tables.get("training", {}), f"{path} [training]")
        try:
            config = RunConfig(tables.get("variant", name), model, training)
        except ValidationError as error:
            raise ConfigError(f"{path}: {one_line(error)}") from None
    values = dict(settings if isinstance(settings, Mapping) else map(_setting, settings))
    # Together: d needs its heads.
    return with_values(config, values, "`settings`") if values else config


def with_values(config: RunConfig, values: Mapping[str, Any], where: str) -> RunConfig:
    """`config` with settings of the model or of the training put in, by name.

    Raises:
        ConfigError: no such setting, or a value of another type; `where` says where it came from.
    """
    of_model = {f.name for f in fields(config.model)} - {"network"}
    known = of_model | {f.name for f in fields(config.training)}
    for key in values:
        if key == "network":
            raise ConfigError(f"{where}: the network is chosen by `model`, or in a TOML file")
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
        PluginError: its network is not here, or is code that nobody trusts.
        ConfigError, LookupError, TypeError, ValueError: it is not one.
    """
    model = {"network": "clip-msa", **content["model"]}  # of 0.1 and before: no key
    return RunConfig(
        content["variant"],
        network_class(str(model["network"])).Config(**model),
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


def _setting(text: str) -> tuple[str, Any]:
    """`d=64` as a name and a value."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"`settings={text!r}`: write key=value, as in d=64")
    return key.strip(), _parsed(value.strip())


def _parsed(text: str) -> Any:
    """A value as TOML writes it; anything else is a plain string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
