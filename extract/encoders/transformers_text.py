"""Text through a transformers encoder: ALBERT's [CLS] vector (paper, Sec. 2.2.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from clipmsa.cache.errors import ProfileError

from .encoder import Setup, StatesEncoder, in_batches
from .transformers_models import (
    HashedWords,
    load_pretrained,
    load_tokenizer,
    random_model,
    vectors_of,
)

_BATCH = 32


class TransformersText(StatesEncoder):
    """Any transformers text encoder; one vector from the last layer.

    `pooling` is "cls", the first token (not the pooler's output, which is a further layer), "mean"
    over the tokens, or "none": a sequence of all tokens, [CLS] and [SEP] among them. Shorter texts
    of a batch are padded under an attention mask, which these encoders respect exactly.
    """

    modality = "text"
    consumes = "text"
    states = "tokens"
    poolings = ("cls", "mean", "none")

    def __init__(
        self,
        setup: Setup,
        *,
        pooling: Literal["cls", "mean", "none"] = "cls",
        max_tokens: int = 512,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        self.read(setup.stream, pooling)
        if max_tokens < 2:  # [CLS] and [SEP]
            raise ProfileError(
                f"stream '{setup.stream}': max_tokens is {max_tokens}, must be at least 2"
            )
        model: Any
        if setup.checkpoint is None:
            model = random_model(vectors_of(setup.stream, self.states, pooling), architecture)
            self.tokenizer: Any = HashedWords(model.config.vocab_size)
        else:
            model = load_pretrained(setup.checkpoint)
            self.tokenizer = load_tokenizer(setup.checkpoint)
        super().__init__(setup, model)
        self.max_tokens = max_tokens
        self.dim = int(model.config.hidden_size)

    def _states(self, items: Sequence[str]) -> list[Tensor]:
        return [rows for texts in in_batches(items, _BATCH) for rows in self._tokens(list(texts))]

    def _rows(self, states: Tensor) -> Tensor:
        if self.pooling == "cls":
            return states[:1]
        return states.mean(dim=0, keepdim=True) if self.pooling == "mean" else states

    def _tokens(self, texts: list[str]) -> list[Tensor]:
        """(T, dim) of each text, without the padding after it."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens)
        mask: list[list[int]] = tokens["attention_mask"]
        states: Tensor = self.module(
            input_ids=torch.tensor(tokens["input_ids"], device=self.device),
            attention_mask=torch.tensor(mask, device=self.device),
        ).last_hidden_state
        return [rows[: sum(kept)] for rows, kept in zip(states, mask, strict=True)]
