"""What a run is to make: a plan for each stream, and the fingerprint of all that decides it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from clipmsa.cache import StreamSpec, plugins
from clipmsa.cache.errors import ClipmsaError, PluginError, ProfileError, WeightsError
from clipmsa.cache.provenance import canonical_json, fingerprint
from clipmsa.extract.encoders import registry
from clipmsa.extract.encoders.encoder import Encoder, Precision, Setup, StatesEncoder
from clipmsa.extract.profiles.profile import Profile, StreamRecipe
from clipmsa.extract.weights.find import NO_WEIGHTS, Checkpoint, WeightsMode, find_checkpoint


@dataclass(frozen=True)
class Settings:
    """How to extract. Only `profile`, `weights` and `precision` change what the features are."""

    profile: Profile
    weights: WeightsMode = "pretrained"
    precision: Precision = "fp32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_clips: int = 8  # clips that go through the encoders together
    workers: int = 2  # threads that decode
    lanes: int = 1  # batches that are encoded side by side, sharing torch's threads


@dataclass(frozen=True)
class StreamPlan:
    """A stream to make: its recipe in the profile, the weights that were found, the settings."""

    recipe: StreamRecipe
    checkpoint: Checkpoint
    settings: Settings

    @cached_property
    def config(self) -> dict[str, Any]:
        """All that decides the features; engine, device and batch size do not."""
        media = self.settings.profile.media
        return {
            **registry.identity(self.recipe.encoder),
            "options": dict(self.recipe.options),
            "weights": self.checkpoint.identity,
            "precision": self.settings.precision,
            **(
                {"media": {"fps": media.fps, "max_frames": media.max_frames}}
                if registry.encoder_class(self.recipe.encoder).consumes == "frames"
                else {}
            ),
        }

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.config)

    def build(self, vectors: Encoder | None = None) -> Encoder:
        """Load the encoder onto the device, or share the network of `vectors`, that of `states_of`.

        Raises:
            WeightsError: the checkpoint does not fit.
            ProfileError: the profile sets an option that the encoder does not have.
            PluginError: an encoder from outside fails, or leaves something out.
        """
        if isinstance(vectors, StatesEncoder):
            states = vectors.sharing()
            readout = {k: v for k, v in self.recipe.options.items() if k in ("pooling", "rate")}
            states.read(self.recipe.name, **readout)
            return states
        name, settings = self.recipe.encoder, self.settings
        make: Callable[..., Encoder] = registry.encoder_class(name)
        setup = Setup(self.recipe.name, self.checkpoint.path, settings.device, settings.precision)
        try:
            encoder = make(setup, **self.recipe.options)
        except (ClipmsaError, MemoryError):
            raise
        except Exception as error:  # of a value, each library raises its own
            if name not in registry.ENCODERS.shipped:
                raise PluginError(
                    f"stream '{self.recipe.name}': encoder '{name}' fails: {plugins.told(error)}"
                ) from error
            if not (settings.profile.file or isinstance(error, TypeError)):
                raise
            raise ProfileError(
                f"stream '{self.recipe.name}': encoder '{name}' does not take these options "
                f"({' '.join(str(error).split())})"
            ) from error
        registry.refuse_unfinished(name, encoder)
        return encoder

    def spec(self, encoder: Encoder) -> StreamSpec:
        """What the store records of the stream."""
        return StreamSpec(
            name=self.recipe.name,
            modality=encoder.modality,
            branch=self.recipe.branch,
            level=encoder.level,
            dim=encoder.dim,
            encoder=self.recipe.encoder,
            weights=self.checkpoint.name,
            weights_sha256=self.checkpoint.sha256 or encoder.weights_digest(),
            fingerprint=self.fingerprint,
            config=self.config,
            states_of=self.recipe.states_of,
        )


def plan_streams(settings: Settings) -> dict[str, StreamPlan]:
    """A plan for every stream of the profile, by name.

    Raises:
        WeightsError: checkpoints are missing; the message shows the first and counts the others.
    """
    plans: dict[str, StreamPlan] = {}
    missing: list[WeightsError] = []
    found: dict[str, Checkpoint] = {}  # streams may share a file: it is read and hashed once
    for recipe in settings.profile.streams:
        if registry.encoder_class(recipe.encoder).weightless:
            plans[recipe.name] = StreamPlan(recipe, NO_WEIGHTS, settings)
            continue
        source = canonical_json(recipe.source)
        try:
            if source not in found:
                found[source] = find_checkpoint(
                    recipe.name,
                    recipe.source,
                    settings.weights,
                    fetched_with=f"--profile {shlex.quote(settings.profile.called)}",
                )
        except WeightsError as error:
            missing.append(error)
            continue
        plans[recipe.name] = StreamPlan(recipe, found[source], settings)
    if missing:
        more = f" (and {len(missing) - 1} more streams lack theirs)" if len(missing) > 1 else ""
        raise WeightsError(f"{missing[0]} (or `weights='random'` to try without){more}")
    return plans
