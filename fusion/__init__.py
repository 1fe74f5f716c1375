"""From features to a score: the trainable part of CLIP-MSA, its training and its metrics."""

from clipmsa.fusion.metrics.regression import regression_metrics
from clipmsa.fusion.networks.clip_msa import ClipMSA
from clipmsa.fusion.networks.coattention import CoAttentionUnit

__all__ = ["ClipMSA", "CoAttentionUnit", "regression_metrics"]
