"""Variants of the model by name: Table 2 of the paper, baselines of Table 1, and the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from clipmsa.cache.checked import one_line
from clipmsa.cache.errors import ConfigError, PluginError
from clipmsa.cache.plugins import is_import_path
from clipmsa.cache.spec import MODALITIES
from clipmsa.fusion.networks.network import ROLES, NetworkConfig
from clipmsa.fusion.networks.registry import NETWORKS, default_config
from clipmsa.fusion.training.config import RunConfig, changed, read_toml

_TABLE2 = Path(__file__).with_name("variants.toml")
_BASELINES = Path(__file__).with_name("baselines.toml")


class Variant(NamedTuple):
    """A variant: its name, the paper's row (its own name where it has none), what it sets."""

    name: str
    row: str
    changes: dict[str, Any]

    @property
    def model(self) -> NetworkConfig:
        """The default model of this variant."""
        return self.applied(RunConfig()).model

    def applied(self, config: RunConfig) -> RunConfig:
        """A configuration turned into this variant; training stays, and so do sizes.

        But sizes of another network mean nothing to this one, which then has its own.
        """
        model = changed(config.model, self.changes, f"variant '{self.name}'")
        return replace(config, variant=self.name, model=model)


def table2() -> list[Variant]:
    """The nine rows of the paper's Table 2, in its order."""
    return variants_of(_TABLE2)


def baselines() -> list[Variant]:
    """The rows of the paper's Table 1 that there are: other networks on the same features."""
    return variants_of(_BASELINES)


def table1() -> list[Variant]:
    """The baselines and, last as in the paper's Table 1, CLIP-MSA."""
    return [*baselines(), table2()[0]]


def find_model(name: str) -> Variant:
    """A network by name: a baseline, `clip-msa`, which is variant `full`, or one from outside.

    A network from outside, by entry point or import path `package.module:Class`, is a variant of
    its own, named after the class where it has no other name.

    Raises:
        ConfigError: no such network; the message lists those there are.
    """
    models = {variant.model.network: variant for variant in [table2()[0], *baselines()]}
    if name in models:
        return models[name]
    try:
        default_config(name, written=True)
    except PluginError as error:
        raise ConfigError(str(error)) from None
    own = name.rpartition(":")[2]
    return Variant(own, own, {"network": name})


def variants_of(path: Path) -> list[Variant]:
    """Every variant of a TOML file, one a table.

    Raises:
        ConfigError: not TOML, or a table sets what the model does not have.
    """
    return [_variant(path, name, table) for name, table in read_toml(path).items()]


def find_variant(name: str) -> Variant:
    """A variant by name: a row of Table 2, a baseline, `FILE.toml` with one, `FILE.toml:NAME`, or a
    network from outside (`find_model`).

    Raises:
        ConfigError: no such variant; the message lists those there are.
    """
    path, colon, inner = name.rpartition(":") if ".toml:" in name else (name, "", "")
    shipped = [*table2(), *baselines()]
    candidates = variants_of(Path(path)) if path.endswith(".toml") else shipped
    if path.endswith(".toml") and not colon and len(candidates) == 1:
        return candidates[0]
    wanted = inner or name
    for variant in candidates:
        if variant.name == wanted:
            return variant
    if not path.endswith(".toml") and (is_import_path(name) or name in NETWORKS.names()):
        return find_model(name)
    known = ", ".join(variant.name for variant in candidates)
    hint = f"write {path}:NAME" if path.endswith(".toml") and not colon else "or give a TOML file"
    raise ConfigError(f"no variant '{wanted}'; there are {known}; {hint}")


def left_out(config: RunConfig, modalities: Sequence[str]) -> RunConfig:
    """A configuration without any stream of some modalities; the name says so.

    Raises:
        ConfigError: no such modality.
    """
    names = [name.strip() for name in modalities]
    for name in names:
        if name not in MODALITIES:
            raise ConfigError(f"`without={name!r}`: must be one of {', '.join(MODALITIES)}")
    roles = [role for role in ROLES if role.partition("/")[0] in names]
    drop = tuple(dict.fromkeys([*config.model.drop, *roles]))
    variant = f"{config.variant}-without-{'-'.join(names)}"
    return replace(config, variant=variant, model=replace(config.model, drop=drop))


def _variant(path: Path, name: str, table: Any) -> Variant:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: '{name}' must be a table, as in [{name}]")
    try:
        RunConfig(name)
    except ValidationError as error:
        raise ConfigError(f"{path}: [{name}]: {one_line(error)}") from None
    values = dict(table)
    row = str(values.pop("row", name))
    network = changed(RunConfig().model, values, f"{path} [{name}]").network  # or refuses a value
    # What makes a variant is always set, so that it is the same over any base configuration.
    default = default_config(network, written=True)
    of_variant = ("network", "drop", "fusion", "order")
    whole = {key: getattr(default, key) for key in of_variant if hasattr(default, key)}
    return Variant(name, row, whole | values)
