"""Networks: CLIP-MSA, and baselines of the paper's Table 1 on the same frozen features.

The baselines differ from CLIP-MSA in the network alone: streams, seeds, loss, schedule and metrics
are those of every run, but that some add terms of their own to the loss. Each takes all that
CLIP-MSA takes, a modality's own and CLIP streams together: side by side, as means over their rows
(TFN, LMF) or a recurrent layer's vectors (MISA), or as sequences, one after the other (MulT). Where
a stream has no rows there is a learned vector, as in CLIP-MSA. A modality without streams takes no
part: the tensor has one axis less, and the others attend to one less.

- TFN: Zadeh, Chen, Poria, Cambria, Morency. Tensor Fusion Network for Multimodal Sentiment
  Analysis. EMNLP 2017.
- LMF: Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency. Efficient Low-rank Multimodal Fusion
  with Modality-Specific Factors. ACL 2018.
- MulT: Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov. Multimodal Transformer for Unaligned
  Multimodal Language Sequences. ACL 2019.
- MISA: Hazarika, Zimmermann, Poria. MISA: Modality-Invariant and -Specific Representations for
  Multimodal Sentiment Analysis. ACM Multimedia 2020.
- MFN: Zadeh, Liang, Mazumder, Poria, Cambria, Morency. Memory Fusion Network for Multi-view
  Sequential Learning. AAAI 2018.
- MFM: Tsai, Liang, Zadeh, Morency, Salakhutdinov. Learning Factorized Multimodal Representations.
  ICLR 2019.
- MAG: Rahman, Hasan, Lee, Zadeh, Mao, Morency, Hoque. Integrating Multimodal Information in Large
  Pretrained Transformers. ACL 2020.
- Self-MM: Yu, Xu, Yuan, Wu. Learning Modality-Specific Representations with Self-Supervised
  Multi-Task Learning for Multimodal Sentiment Analysis. AAAI 2021.
- MMIM: Han, Chen, Poria. Improving Multimodal Fusion with Hierarchical Mutual Information
  Maximization for Multimodal Sentiment Analysis. EMNLP 2021.
- TPMSA: Yang, Wu, Zhu, Shao, Lin, Liu. Two-Phase Multi-Task Sentiment Analysis. IEEE/ACM TASLP
  2022.
- HyCon (our reading): Mai, Zeng, Zheng, Hu. Hybrid contrastive learning of tri-modal
  representation. IEEE Transactions on Affective Computing 2022.
- WSCL-CL (our reading): Mai, Sun, Hu. Curriculum learning meets weakly supervised correlation
  learning. EMNLP 2022.

MFN, MFM and MAG take sequences on the text's steps (aligned.py). Where the original tunes BERT
(MAG, Self-MM, MMIM, TPMSA, HyCon, WSCL-CL), rows of tables say "(frozen text)".

A network of one's own is a file as those here are: docs/extending.md.
"""

from .branches import SLSTM, Branch, FrameTransformer, MeanBranch, StackedBiLSTM, VectorBranch
from .network import Batch, Losses, Network, NetworkConfig, Pass, adamw, roles_by_modality
from .ragged import Padding, Ragged

__all__ = [
    "SLSTM",
    "Batch",
    "Branch",
    "FrameTransformer",
    "Losses",
    "MeanBranch",
    "Network",
    "NetworkConfig",
    "Padding",
    "Pass",
    "Ragged",
    "StackedBiLSTM",
    "VectorBranch",
    "adamw",
    "roles_by_modality",
]
