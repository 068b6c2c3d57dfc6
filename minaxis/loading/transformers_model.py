"""Models of the library transformers: for architectures that minaxis does not implement.

`capture`, `edit`, `steering` and `capping` only need a model's blocks, and hook any model as it is.
`generate`, `collect`, `replay` and `judge` also call the model, as they call `Transformer`. `adapt`
wraps a transformers model so that it can be called in that way. The weights, the forward pass and
the cache are still those of transformers.

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    rollouts = minaxis.collect(model, minaxis.load_tokenizer(folder), roles, questions)
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minaxis.fast.sampling import sample
from minaxis.hooks import describe
from minaxis.model import Cache, Transformer


def adapt(model: "nn.Module | HuggingFace") -> "Transformer | HuggingFace":
    """A model that is called like `Transformer`: ours as it is, a transformers model in a wrapper.

    Raises:
        ValueError: the model is neither of the two.
    """
    if isinstance(model, Transformer | HuggingFace):
        return model
    if hasattr(model, "prepare_inputs_for_generation") and hasattr(model, "config"):
        return HuggingFace(model)
    raise ValueError(
        f"expected a minaxis Transformer or a transformers causal language model, got "
        f"{type(model).__name__}"
    )


@dataclass(frozen=True)
class Numbers:
    """The fields of `Config` that minaxis needs from any model."""

    name: str
    vocab_size: int
    num_hidden_layers: int
    hidden_size: int
    max_position_embeddings: int


class HuggingFace:
    """A transformers model, called like `Transformer`."""

    fast_sample = staticmethod(sample)

    def __init__(self, model: Any) -> None:  # Any: transformers is not a dependency
        self.inner = model
        name, layers, width = describe(model)
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        vocabulary = len(model.get_input_embeddings().weight)
        self.config = Numbers(name, vocabulary, layers, width, context or 2**31)
        # Not every architecture accepts position ids, or can leave out logits.
        self.accepts = inspect.signature(model.forward).parameters

    @property
    def device(self) -> torch.device:
        """The device for token ids: the embedding's, even if other layers are elsewhere."""
        weight: Tensor = self.inner.get_input_embeddings().weight
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        dtype: torch.dtype = self.inner.dtype
        return dtype

    def new_cache(self) -> "HuggingFaceCache":
        """An empty cache, which grows as tokens are appended."""
        return HuggingFaceCache(self.inner.config, self.config.max_position_embeddings)

    def __call__(
        self,
        ids: Tensor,
        cache: Cache | None = None,
        padding: Tensor | None = None,
        last: int = 0,
    ) -> Tensor:
        """Logits (B, T, V); the arguments are those of `Transformer`."""
        assert cache is None or isinstance(cache, HuggingFaceCache)
        start = cache.length if cache else 0
        end = start + ids.shape[1]
        columns = torch.arange(end, device=ids.device).expand(len(ids), -1)  # (B, S)
        left = torch.zeros_like(ids[:, :1]) if padding is None else padding[:, None]  # (B, 1)
        optional: dict[str, Any] = {}
        if "position_ids" in self.accepts:
            optional["position_ids"] = (columns[:, start:] - left).clamp(min=0)
        if "logits_to_keep" in self.accepts:
            optional["logits_to_keep"] = last  # 0 keeps all, as in `Transformer`
        output = self.inner(
            input_ids=ids,
            attention_mask=(columns >= left).long(),
            past_key_values=cache and cache.inner,
            use_cache=cache is not None,
            **optional,
        )
        if cache is not None:
            cache.length = end
        logits: Tensor = output.logits.to(ids.device)
        return logits[:, -last:]


class HuggingFaceCache:
    """A transformers cache, used like `KVCache`."""

    def __init__(self, config: Any, max_length: int) -> None:
        from transformers import DynamicCache

        self.inner = DynamicCache(config=config)
        self.length = 0  # tokens stored, padding included
        self.max_length = max_length

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As `KVCache.append`; a transformers model calls `update` by itself."""
        all_k, all_v = self.inner.update(k, v, layer)
        return all_k, all_v

    def select_rows(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        self.inner.batch_select_indices(rows)
