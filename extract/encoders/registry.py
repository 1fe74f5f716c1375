"""Encoders by the name that profiles use."""

from __future__ import annotations

from importlib import import_module

from clipmsa.cache.errors import ProfileError

from .encoder import Encoder

_ENCODERS = {
    "transformers-text": "transformers_text:TransformersText",
    "transformers-speech": "transformers_speech:TransformersSpeech",
    "open-clip-text": "openclip:OpenClipText",
    "open-clip-image": "openclip:OpenClipImage",
    "esresnext": "audioclip:AudioClipSound",
    "mtcnn-vgg": "faces:MtcnnVgg",
    "mtcnn-inception-resnet": "faces:MtcnnInceptionResnet",
}


def encoder_class(name: str) -> type[Encoder]:
    """An encoder's class by its name in a profile.

    Raises:
        ProfileError: no such encoder.
    """
    if name not in _ENCODERS:
        raise ProfileError(f"no encoder '{name}'; there are {', '.join(_ENCODERS)}")
    module, _, attribute = _ENCODERS[name].partition(":")
    found: type[Encoder] = getattr(import_module(f"clipmsa.extract.encoders.{module}"), attribute)
    return found
