"""Run by test_tensor_parallel.py: ranks share models, and each compares them with whole ones.

    python share_models.py RANKS FOLDER        writes FOLDER/0.json, FOLDER/1.json, ...

The ranks are forked after the imports, which take longer than everything else.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import multiprocessing

import minaxis as mx
from minaxis.distributed.tensor_parallel import Share, tensor_group
from minaxis.fast.install import install
from minaxis.generation import sample
from minaxis.loading.folder import read_folder
from minaxis.loading.gemma2 import Gemma2Config
from minaxis.loading.gemma3 import Gemma3Config
from minaxis.loading.models import MODELS, build
from minaxis.loading.olmo2 import Olmo2Config
from minaxis.loading.rope_scaling import TwoBases
from minaxis.loading.smollm3 import SmolLM3Config

NUMBERS = {
    "vocab_size": 301, "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
    "max_position_embeddings": 64, "name": "random",
}  # fmt: skip
GEMMA = {"sliding_window": 7, "query_pre_attn_scalar": 13.0}
# For 2 and 4 ranks: head counts that they divide and do not divide, fewer key heads than ranks, and
# key heads whose query heads are on several ranks.
CONFIGS = {
    "llama": mx.Config(**NUMBERS),
    "qwen 2": mx.Config(**NUMBERS | {"num_key_value_heads": 1}, qkv_bias=True, output_bias=True),
    "qwen 3": mx.Config(**NUMBERS | {"head_dim": 10}, qk_norm=True, tie_word_embeddings=False),
    "9 heads, 3 key heads": mx.Config(
        **NUMBERS | {"num_attention_heads": 9, "num_key_value_heads": 3}
    ),
    "5 heads, 1 key head": mx.Config(
        **NUMBERS | {"num_attention_heads": 5, "num_key_value_heads": 1}
    ),
    "gemma 2": Gemma2Config(**NUMBERS, **GEMMA),
    "gemma 3": Gemma3Config(
        **NUMBERS,
        **GEMMA,
        slides=(True, False),
        rope_scaling=TwoBases(local_theta=30.0, factor=8.0),
    ),
    "smollm 3": SmolLM3Config(**NUMBERS, rotates=(True, False)),
    "olmo 2": Olmo2Config(**NUMBERS | {"num_attention_heads": 10}),
    "olmo 2, 7 heads": Olmo2Config(
        **NUMBERS | {"num_attention_heads": 7, "num_key_value_heads": 7}
    ),
}
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 20 + i] for i in range(3)] + [[300, 150, 3], [7]]
IDS = torch.randint(0, 301, (3, 20), generator=torch.Generator().manual_seed(2))
GREEDY = mx.SamplingParams(max_new_tokens=4, temperature=0)
NO_TEXT = SimpleNamespace(stop=[2])  # all that `generate` needs of a tokenizer


def whole_model(config):
    model = MODELS[type(config)](config).initialise(torch.Generator().manual_seed(0)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():  # norms and biases must matter, too
            p += torch.randn(p.shape, generator=generator) * (0.3 if p.ndim == 1 else 0.15)
    return model


@torch.inference_mode()
def measure(model, axis):
    """Streams (L, B, T, D); logits and greedy tokens as they are, capped and steered."""
    logits, tokens = [], []
    for intervention in (
        nullcontext(), mx.capping(model, axis), mx.steering(model, axis, coefficient=0.5)
    ):  # fmt: skip
        with intervention, mx.capture(model) as seen:
            logits.append(model(IDS))
            if len(logits) == 1:
                streams = torch.stack(list(seen.values()))
            tokens.append(mx.generate(model, NO_TEXT, PROMPTS, GREEDY))
    return streams, torch.stack(logits), tokens


def make_axis(model):
    """A random axis; three quarters of the tokens of IDS are below the default cap."""
    with torch.inference_mode(), mx.capture(model) as seen:
        model(IDS)
    streams = torch.stack(list(seen.values()))
    vectors = torch.randn(len(streams), 24, generator=torch.Generator().manual_seed(3))
    axis = mx.Axis(vectors, norms=streams.norm(dim=-1).mean((1, 2)))
    axis.projections = torch.einsum("lbtd,ld->btl", streams, axis.unit()).flatten(0, 1)
    return axis


def share_model(whole, group):
    share = Share(whole.config, group)
    kind = {"dtype": whole.dtype, "device": whole.device}
    return build(whole.config, whole.named_parameters(), "whole", share=share, **kind)


def compare(whole, group):
    """How far a shared model is from the whole one."""
    shared, axis = share_model(whole, group), make_axis(whole)
    streams, logits, tokens = measure(whole, axis)
    shared_streams, shared_logits, shared_tokens = measure(shared, axis)
    install(shared)
    shared.share.sample_on_first_rank(shared)
    sampling = mx.SamplingParams(max_new_tokens=4, temperature=1.0)
    return {
        "streams": (streams - shared_streams).abs().max().item(),
        "logits": (logits - shared_logits).abs().max().item(),
        "effects": [(x - logits[0]).abs().max().item() for x in logits[1:]],
        "tokens": tokens,
        "shared tokens": shared_tokens,
        "sampled": mx.generate(whole, NO_TEXT, PROMPTS, sampling),
        "fast sampled": mx.generate(shared, NO_TEXT, PROMPTS, sampling),
    }


def disagree(whole, group):
    """Greedy tokens, though the ranks do not agree on the likeliest ones."""
    shared = share_model(whole, group)
    shared.fast_sample = lambda *args: (sample(*args)[0] + dist.get_rank(group), sample(*args)[1])
    shared.share.sample_on_first_rank(shared)
    return mx.generate(shared, NO_TEXT, PROMPTS, GREEDY)


def peak(folder, group):
    """Bytes of weights, and by how many the process grew at most while it read them."""

    def resident(name):
        status = Path("/proc/self/status").read_text()
        return next(int(x.split()[1]) * 1024 for x in status.splitlines() if x.startswith(name))

    config, tensors, dtype = read_folder(folder, "model")
    share = Share(config, group)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    model = build(config, tensors, folder, dtype=dtype, device=torch.device("cpu"), share=share)
    weights = sum(p.nbytes for p in model.parameters())
    return {"grown": resident("VmHWM") - before, "weights": weights}


def message(function, *args):
    try:
        function(*args)
    except ValueError as e:
        return str(e)


def run(rank, ranks, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store{ranks}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    group = tensor_group(ranks)
    results = {
        "families": {name: compare(whole_model(c), group) for name, c in CONFIGS.items()},
        "disagree": disagree(whole_model(CONFIGS["llama"]), group),
        "memory": peak(folder / "model", group),
        "no group": message(tensor_group, 3),
        "few heads": message(
            Share,
            mx.Config(**NUMBERS | {"num_attention_heads": 1, "num_key_value_heads": 1}),
            group,
        ),
    }
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    ranks, folder = int(sys.argv[1]), Path(sys.argv[2])
    multiprocessing.start_processes(run, (ranks, folder), nprocs=ranks, start_method="fork")
