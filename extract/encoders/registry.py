"""Encoders by the names that profiles use; how others are found is said in `cache/plugins.py`."""

from __future__ import annotations

from typing import Any

from clipmsa.cache.errors import PluginError
from clipmsa.cache.plugins import Registry
from clipmsa.cache.spec import LEVELS, MODALITIES

from .encoder import Encoder

_HERE = "clipmsa.extract.encoders"
_CONSUMED = ("text", "waveform", "frames")

ENCODERS = Registry(
    "encoder",
    {
        "transformers-text": f"{_HERE}.transformers_text:TransformersText",
        "transformers-speech": f"{_HERE}.transformers_speech:TransformersSpeech",
        "open-clip-text": f"{_HERE}.openclip:OpenClipText",
        "open-clip-image": f"{_HERE}.openclip:OpenClipImage",
        "esresnext": f"{_HERE}.audioclip:AudioClipSound",
        "mtcnn-vgg": f"{_HERE}.faces:MtcnnVgg",
        "mtcnn-inception-resnet": f"{_HERE}.faces:MtcnnInceptionResnet",
    },
)


def encoder_class(name: str, *, written: bool = False) -> type[Encoder]:
    """An encoder's class by its name in a profile; `written` where the profile is the user's.

    Raises:
        PluginError: there is none, or what has the name is no encoder.
    """
    found = ENCODERS.find(name, written=written)
    if not (isinstance(found, type) and issubclass(found, Encoder)):
        raise PluginError(
            f"encoder '{name}': is {found!r}, must be a class derived from "
            f"clipmsa.extract.encoders.Encoder"
        )
    for attribute, allowed in (("modality", MODALITIES), ("consumes", _CONSUMED)):
        if getattr(found, attribute, None) not in allowed:
            raise PluginError(
                f"encoder '{name}': its class sets no {attribute}, which must be one of "
                f"{', '.join(allowed)}"
            )
    return found


def identity(name: str) -> dict[str, Any]:
    """What a fingerprint has of an encoder's code: its version; of one from outside its class."""
    found = encoder_class(name)
    known = {"encoder": name, "preprocessing": found.version}  # as it was called before versions
    if name in ENCODERS.shipped:
        return known
    return {**known, "class": f"{found.__module__}:{found.__qualname__}"}


def refuse_unfinished(name: str, encoder: Encoder) -> None:
    """Raise PluginError unless a constructor has set all that the others rely on."""
    wanted = (
        ("module", "call super().__init__(setup, module)", hasattr(encoder, "module")),
        ("dim", "the width of its rows", type(getattr(encoder, "dim", None)) is int),
        ("level", " or ".join(LEVELS), getattr(encoder, "level", None) in LEVELS),
        ("sample_rate", "in Hz", encoder.consumes != "waveform" or encoder.sample_rate > 0),
    )
    for attribute, remedy, there in wanted:
        if not there:
            raise PluginError(f"encoder '{name}': has set no {attribute} ({remedy})")
