"""Networks by name, and what is trained: a network behind the standardisation of its inputs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from clipmsa.cache import StreamSpec
from clipmsa.cache.errors import ConfigError, PluginError
from clipmsa.cache.plugins import Registry

from .coattention import CoAttentionMap
from .network import Batch, Network, NetworkConfig
from .ragged import Ragged
from .standardise import Standardise

_HERE = "clipmsa.fusion.networks"
NETWORKS = Registry(
    "network",
    {
        "clip-msa": f"{_HERE}.clip_msa:ClipMSA",
        "tfn": f"{_HERE}.tfn_lmf:TFN",
        "lmf": f"{_HERE}.tfn_lmf:LMF",
        "mult": f"{_HERE}.mult:MulT",
        "misa": f"{_HERE}.misa:MISA",
        "mfn": f"{_HERE}.mfn:MFN",
        "mfm": f"{_HERE}.mfm:MFM",
        "mag": f"{_HERE}.mag:MAG",
        "self-mm": f"{_HERE}.self_mm:SelfMM",
        "mmim": f"{_HERE}.mmim:MMIM",
        "tpmsa": f"{_HERE}.tpmsa:TPMSA",
        "hycon": f"{_HERE}.hycon:HyCon",
        "wscl-cl": f"{_HERE}.wscl_cl:WSCLCL",
    },
)


def network_class(name: str, *, written: bool = False) -> type[Network]:
    """A network by its shipped name, entry point or import path; `written`: by the user.

    Raises:
        PluginError: there is none, it cannot or may not be imported, or it is no network.
    """
    found = NETWORKS.find(name, written=written)
    if not (isinstance(found, type) and issubclass(found, Network)):
        raise PluginError(f"network '{name}': is no subclass of clipmsa.fusion.networks.Network")
    if not issubclass(found.Config, NetworkConfig):
        raise PluginError(f"network '{name}': its Config must be a subclass of NetworkConfig")
    return found


def default_config(name: str, *, written: bool = False) -> NetworkConfig:
    """The settings that a network has of its own, under the name that it is found by.

    Raises:
        PluginError: as `network_class`.
        ConfigError: its own settings are out of their ranges.
    """
    return network_class(name, written=written).Config(network=name)


def build_network(config: NetworkConfig, streams: Mapping[str, StreamSpec]) -> Network:
    """The network that a configuration names, not trained yet, over the streams by role.

    Raises:
        PluginError: as `network_class`.
        ConfigError: the settings are those of another network.
    """
    network = network_class(config.network)
    if not isinstance(config, network.Config):
        raise ConfigError(
            f"network '{config.network}' takes {network.Config.__name__}, not "
            f"{type(config).__name__}"
        )
    return network(config, streams)


class Trainable(nn.Module):
    """A network and, before it, the standardisation of its inputs.

    Whatever scores or explains goes through it, so that training, `predict`, `evaluate` and the
    report give every network, CLIP-MSA or another, the same inputs.
    """

    network: Network

    def __init__(self, config: NetworkConfig, streams: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.inputs = Standardise(streams) if config.normalise == "standard" else None
        self.network = build_network(config, streams)

    def forward(self, streams: Mapping[str, Ragged]) -> Tensor:
        """Streams by role, of one batch, as the store has them -> scores (B,)."""
        score: Tensor = self.network(self.standardised(streams))
        return score

    def prepared(self, batch: Batch) -> Batch:
        """A batch as the store has it -> as the network is given it."""
        return batch._replace(streams=self.standardised(batch.streams))

    def attention_maps(self, streams: Mapping[str, Ragged]) -> list[CoAttentionMap]:
        """Of one utterance, as the store has it: what attended to what."""
        return self.network.attention_maps(self.standardised(streams))

    def standardised(self, streams: Mapping[str, Ragged]) -> Mapping[str, Ragged]:
        """What the network is given of a batch's streams."""
        return streams if self.inputs is None else self.inputs.forward(streams)

    def training_state(self) -> dict[str, Tensor]:
        """Buffers that training alone needs, which no checkpoint holds (`Network`)."""
        kept = self.state_dict()
        return {key: value for key, value in self.named_buffers() if key not in kept}
