"""CLIP-MSA: multimodal sentiment analysis of video clips (Huang et al.).

Four parts, in the order in which a clip becomes a score:

- ``clipmsa.extract``  clips on disk -> frozen encoders -> features
- ``clipmsa.cache``    the HDF5 feature store, all that passes between the two stages
- ``clipmsa.fusion``   features -> co-attention fusion -> score, trained and evaluated
- ``clipmsa.cli``      the ``clipmsa`` command over the three
"""

from importlib.metadata import version

__version__ = version("clipmsa")
