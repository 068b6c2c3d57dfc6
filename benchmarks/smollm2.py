"""What the benchmarks on SmolLM2 share: prompts, a random axis, and the model in transformers."""

from typing import Any

import torch

import minaxis as mx
from minaxis.loading.models import find
from minaxis.rollouts import prompt_ids
from minaxis.tokenizer import AnyTokenizer


def make_prompts(tokenizer: AnyTokenizer, roles: int) -> list[list[int]]:
    """Token ids of 8 prompts for each role: 2 system prompts x 4 questions."""
    system_prompts = mx.read_roles()
    names = [role for role in system_prompts if role != "default"][2::4][:roles]
    return [
        prompt_ids(tokenizer, {"system": system, "question": question})
        for name in names
        for system in system_prompts[name][:2]
        for question in mx.read_questions()[:4]
    ]


def random_axis(model: mx.Transformer, prompt: list[int]) -> mx.Axis:
    """An axis of random directions, calibrated on the tokens of a prompt.

    At percentile 50, half of the tokens are capped.
    """
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    vectors = torch.randn(layers, width, generator=torch.Generator().manual_seed(0))
    axis = mx.Axis(vectors=vectors)
    with torch.inference_mode(), mx.capture(model) as seen:
        model(torch.tensor([prompt], device=model.device))
    axis.projections = torch.stack([axis.project(seen[i][0], i).cpu() for i in seen], 1)  # (T, L)
    axis.norms = torch.stack([seen[i][0].norm(dim=-1).mean().cpu() for i in seen])
    return axis


def transformers_model(dtype: torch.dtype) -> Any:
    """SmolLM2 as transformers loads it. Raises ImportError if transformers is not installed."""
    from transformers import AutoModelForCausalLM

    path = find("smollm2")
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
    return model.eval()
