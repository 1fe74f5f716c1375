"""From features to a score: the trainable part of CLIP-MSA, its training and its metrics."""

from .coattention import CoAttentionUnit
from .metrics import regression_metrics
from .model import ClipMSA

__all__ = ["ClipMSA", "CoAttentionUnit", "regression_metrics"]
