"""Hugging Face models in the place of ours: for architectures that minaxis does not implement.

`capture`, `edit`, `steering` and `capping` only need a model's blocks, and hook any model as it
is. `generate`, `collect`, `replay` and `judge` also call the model, in our way. `adapt` puts
that way of calling around a transformers model; the weights, the forward pass and the cache stay
its own.

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    rollouts = minaxis.collect(model, minaxis.load_tokenizer(folder), roles, questions)
"""

import inspect
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from minaxis.fast.sampling import sample
from minaxis.hooks import describe
from minaxis.model import Transformer


def adapt(model: nn.Module) -> "Transformer | HuggingFace":
    """A model that is called like `Transformer`: ours as it is, a transformers model in a wrapper.

    Raises:
        ValueError: neither of the two.
    """
    if isinstance(model, Transformer | HuggingFace):
        return model
    if hasattr(model, "prepare_inputs_for_generation") and hasattr(model, "config"):
        return HuggingFace(model)
    raise ValueError(
        f"expected a minaxis Transformer or a transformers causal language model, got "
        f"{type(model).__name__}"
    )


class HuggingFace:
    """A transformers model, called like `Transformer`."""

    fast_sample = staticmethod(sample)

    def __init__(self, model: nn.Module):
        self.inner = model
        name, layers, width = describe(model)
        text = model.config.get_text_config()
        self.config = SimpleNamespace(
            name=name,
            num_hidden_layers=layers,
            hidden_size=width,
            max_position_embeddings=getattr(text, "max_position_embeddings", None) or 2**31,
        )
        # Not every architecture takes positions, or can leave out logits.
        self.accepts = inspect.signature(model.forward).parameters

    @property
    def device(self) -> torch.device:
        """Where token ids must be: with its embedding, whatever holds the other layers."""
        return self.inner.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.inner.dtype

    def new_cache(self) -> "Cache":
        return Cache(self.inner.config)

    def __call__(
        self,
        ids: Tensor,
        cache: "Cache | None" = None,
        padding: Tensor | None = None,
        last: int = 0,
    ) -> Tensor:
        """Logits (B, T, V), or those of the `last` columns."""
        start = cache.length if cache else 0
        end = start + ids.shape[1]
        columns = torch.arange(end, device=ids.device).expand(len(ids), -1)  # (B, S)
        left = torch.zeros_like(ids[:, :1]) if padding is None else padding[:, None]
        more = {}
        if "position_ids" in self.accepts:
            more["position_ids"] = (columns[:, start:] - left).clamp(min=0)
        if "logits_to_keep" in self.accepts:
            more["logits_to_keep"] = last  # 0 keeps all
        output = self.inner(
            input_ids=ids,
            attention_mask=(columns >= left).long(),
            past_key_values=cache and cache.inner,
            use_cache=cache is not None,
            **more,
        )
        if cache is not None:
            cache.length = end
        logits = output.logits.to(ids.device)
        return logits[:, -last:]


class Cache:
    """A transformers cache with what `decode` asks of a `KVCache`."""

    def __init__(self, config):
        from transformers import DynamicCache

        self.inner = DynamicCache(config=config)
        self.length = 0

    def select_rows(self, rows: Tensor) -> None:
        self.inner.batch_select_indices(rows)
