"""Baselines of the paper's Table 1 on frozen features: TFN, LMF and MulT.

They differ from CLIP-MSA in the network alone: streams, seeds, loss, schedule and metrics are those
of every run. Each takes all that CLIP-MSA takes, a modality's own and CLIP streams together: as the
means over their rows, side by side (TFN, LMF), or as sequences, one after the other (MulT). Where a
stream has no rows there is a learned vector, as in CLIP-MSA. A modality without streams takes no
part: the tensor has one axis less, and the others attend to one less.

- TFN: Zadeh, Chen, Poria, Cambria, Morency. Tensor Fusion Network for Multimodal Sentiment
  Analysis. EMNLP 2017.
- LMF: Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency. Efficient Low-rank Multimodal Fusion
  with Modality-Specific Factors. ACL 2018.
- MulT: Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov. Multimodal Transformer for Unaligned
  Multimodal Language Sequences. ACL 2019.
"""

from .mult import MulT
from .tensors import LMF, TFN

__all__ = ["LMF", "TFN", "MulT"]
