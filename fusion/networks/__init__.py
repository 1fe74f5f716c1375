"""Baselines of the paper's Table 1 on frozen features: TFN, LMF, MulT and MISA.

They differ from CLIP-MSA in the network alone: streams, seeds, loss, schedule and metrics are those
of every run, but that MISA adds its own terms to the loss. Each takes all that CLIP-MSA takes, a
modality's own and CLIP streams together: side by side, as means over their rows (TFN, LMF) or a
recurrent layer's vectors (MISA), or as sequences, one after the other (MulT). Where a stream has no
rows there is a learned vector, as in CLIP-MSA. A modality without streams takes no part: the tensor
has one axis less, and the others attend to one less.

- TFN: Zadeh, Chen, Poria, Cambria, Morency. Tensor Fusion Network for Multimodal Sentiment
  Analysis. EMNLP 2017.
- LMF: Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency. Efficient Low-rank Multimodal Fusion
  with Modality-Specific Factors. ACL 2018.
- MulT: Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov. Multimodal Transformer for Unaligned
  Multimodal Language Sequences. ACL 2019.
- MISA: Hazarika, Zimmermann, Poria. MISA: Modality-Invariant and -Specific Representations for
  Multimodal Sentiment Analysis. ACM Multimedia 2020.
"""

from clipmsa.fusion.networks.misa import MISA
from clipmsa.fusion.networks.mult import MulT
from clipmsa.fusion.networks.tfn_lmf import LMF, TFN

__all__ = ["LMF", "MISA", "TFN", "MulT"]
