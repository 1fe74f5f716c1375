"""CLIP-MSA as one would write it down first, for `bench_train.py` to be compared with.

A Dataset that reads HDF5 an utterance at a time, a DataLoader that pads, torch's own layers, and
the co-attention either exactly as the paper prints it or with torch's fused attention in heads of
width d_h. It takes its weights from `clipmsa.fusion.ClipMSA`, so that losses can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import Dataset

from clipmsa.fusion.networks.clip_msa import ClipMSAConfig

Attention = Literal["printed", "fused"]
Item = dict[str, Tensor]

VECTORS = ("albert", "clip_text", "wav2vec2", "esresnext")
SEQUENCES = ("face_vgg", "clip_image")


class Utterances(Dataset[Item]):
    """One utterance at a time out of an open HDF5 file."""

    def __init__(self, path: Path) -> None:
        self.file = h5py.File(path, "r", locking=False)
        self.labels = torch.from_numpy(self.file["utterances/label"][:])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> Item:
        item = {"label": self.labels[row]}
        for name in (*VECTORS, *SEQUENCES):
            stream = self.file[f"streams/{name}"]
            start, end = stream["offsets"][row : row + 2]
            rows = torch.from_numpy(stream["values"][start:end]).float()
            item[name] = rows[0] if name in VECTORS else rows
        return item


def collate(items: Sequence[Item]) -> Item:
    """Vectors stacked, sequences padded to the longest, with their lengths."""
    batch = {key: torch.stack([item[key] for item in items]) for key in (*VECTORS, "label")}
    for name in SEQUENCES:
        batch[name] = pad_sequence([item[name] for item in items], batch_first=True)
        batch[f"{name}_length"] = torch.tensor([len(item[name]) for item in items])
    return batch


class Unit(nn.Module):
    """A CT unit (paper, Sec. 2.3.1), with its d x d attention maps or torch's fused attention."""

    def __init__(self, d: int, heads: int, d_ff: int, attention: Attention) -> None:
        super().__init__()
        self.attention_kind = attention
        d_h = d // heads
        self.W_Q, self.W_K, self.W_V, self.W_O = (
            nn.Parameter(torch.empty(heads, d_h)) for _ in range(4)
        )
        self.norm_attention, self.norm_ffn = nn.LayerNorm(d), nn.LayerNorm(d)
        self.ffn = nn.Sequential(nn.Linear(d, d_ff), nn.ReLU(), nn.Dropout(0.0), nn.Linear(d_ff, d))

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        # (B, d) as d tokens of width 1, and heads of width d_h: (B, heads, d, d_h)
        q = x1[:, None, :, None] * self.W_Q[:, None, :]
        k = x2[:, None, :, None] * self.W_K[:, None, :]
        v = x2[:, None, :, None] * self.W_V[:, None, :]
        if self.attention_kind == "printed":
            h_i = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1) @ v
        else:
            h_i = F.scaled_dot_product_attention(q, k, v)
        h = h_i.transpose(1, 2).flatten(2) @ self.W_O.flatten()
        z = self.norm_attention(x1 + h * x1)
        out: Tensor = self.norm_ffn(z + self.ffn(z))
        return out


class PlainClipMSA(nn.Module):
    """The whole model, variant `full`, without dropout."""

    def __init__(
        self, config: ClipMSAConfig, dims: Mapping[str, int], attention: Attention
    ) -> None:
        super().__init__()
        d = config.d
        self.face_project = nn.Linear(dims["face_vgg"], d)
        self.face_encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                d, config.transformer_heads, config.transformer_ff, 0.0, batch_first=True
            ),
            config.transformer_layers,
            enable_nested_tensor=False,
        )
        self.face_missing = nn.Parameter(torch.zeros(d))
        self.lstm = nn.LSTM(dims["clip_image"], d, batch_first=True)
        widths = {
            "text": dims["albert"] + dims["clip_text"],
            "audio": dims["wav2vec2"] + dims["esresnext"],
            "vision": 2 * d,
        }
        self.linear = nn.ModuleDict({m: nn.Linear(width, d) for m, width in widths.items()})
        self.norm = nn.ModuleDict({m: nn.BatchNorm1d(d) for m in widths})
        self.units = nn.ModuleList(Unit(d, config.heads, config.d_ff, attention) for _ in range(4))
        self.stage = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(2))
        hidden = config.predictor_hidden
        self.predictor = nn.Sequential(
            nn.Linear(d, hidden), nn.ReLU(), nn.Dropout(0.0), nn.Linear(hidden, 1)
        )
        self.register_buffer("positions", _positions(64, d), persistent=False)

    def forward(self, batch: Item) -> Tensor:
        f_t = self._project("text", batch["albert"], batch["clip_text"])
        f_a = self._project("audio", batch["wav2vec2"], batch["esresnext"])
        f_v = self._project("vision", self._faces(batch), self._frames(batch))
        f_av = self._meet(0, f_a, f_v)
        y: Tensor = self.predictor(self._meet(1, f_av, f_t)).squeeze(-1)
        return y

    def _project(self, modality: str, own: Tensor, clip: Tensor) -> Tensor:
        out: Tensor = self.norm[modality](self.linear[modality](torch.cat([own, clip], dim=-1)))
        return out

    def _meet(self, stage: int, x1: Tensor, x2: Tensor) -> Tensor:
        one, two = self.units[2 * stage], self.units[2 * stage + 1]
        out: Tensor = self.stage[stage](torch.cat([one(x1, x2), two(x2, x1)], dim=-1))
        return out

    def _faces(self, batch: Item) -> Tensor:
        length = batch["face_vgg_length"]
        x = self.face_project(batch["face_vgg"])
        x = x + self.get_buffer("positions")[: x.shape[1]]
        mask = torch.arange(x.shape[1]) < length.clamp_min(1)[:, None]
        x = self.face_encoder(x, src_key_padding_mask=~mask)
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.where(length[:, None] > 0, mean, self.face_missing)

    def _frames(self, batch: Item) -> Tensor:
        length = batch["clip_image_length"]
        packed = pack_padded_sequence(
            batch["clip_image"], length, batch_first=True, enforce_sorted=False
        )
        _, (h_n, _) = self.lstm(packed)
        last: Tensor = h_n.squeeze(0)
        return last


def weights_from(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a `ClipMSA` under the names of `PlainClipMSA`."""
    renamed: dict[str, Any] = {}
    for key, value in state.items():
        if key.endswith(".missing") and not key.startswith("branches.vision/own"):
            continue
        for old, new in _NAMES:
            if key.startswith(old):
                key = new + key.removeprefix(old)
                break
        renamed[key] = value
    return renamed


_NAMES = (
    ("branches.vision/own.project", "face_project"),
    ("branches.vision/own.missing", "face_missing"),
    ("branches.vision/own.layers.0.qkv.", "face_encoder.layers.0.self_attn.in_proj_"),
    ("branches.vision/own.layers.0.out", "face_encoder.layers.0.self_attn.out_proj"),
    ("branches.vision/own.layers.0.ffn.0", "face_encoder.layers.0.linear1"),
    ("branches.vision/own.layers.0.ffn.2", "face_encoder.layers.0.linear2"),
    ("branches.vision/own.layers.0.norm_attention", "face_encoder.layers.0.norm1"),
    ("branches.vision/own.layers.0.norm_ffn", "face_encoder.layers.0.norm2"),
    ("branches.vision/clip.lstm", "lstm"),
    *((f"projections.{m}.{part}", f"{part}.{m}") for m in ("text", "audio", "vision")
      for part in ("linear", "norm")),
    *((f"fusion.stages.{s}.{unit}", f"units.{2 * s + i}") for s in range(2)
      for i, unit in enumerate(("unit_12", "unit_21"))),
    *((f"fusion.stages.{s}.linear", f"stage.{s}") for s in range(2)),
    ("predictor.layers", "predictor"),
)  # fmt: skip


def _positions(T: int, d: int) -> Tensor:
    """Sinusoids of Vaswani et al. (2017), (T, d)."""
    angle = torch.arange(T)[:, None] / 10000 ** (torch.arange(0, d, 2) / d)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
