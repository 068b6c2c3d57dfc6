"""What the paper's own runs need: memory of a GPU, disk, bytes over the wire, hours. A computation.

    python benchmarks/scale_plan.py
    python benchmarks/scale_plan.py --gpus 16 --memory 40 --tokens-per-second 500

A run has 276 roles (the default is one), 1,200 responses a role, 512 tokens a response. For each of
the paper's three models, the smallest number K of GPUs is taken that can share it: 1, 2, 4 or 8.
A GPU must hold its weights, and what the greater need is: the cache of a batch that is generated,
or the cache and the logits of the 32 whole responses that the judge reads at once. Main memory is
what a rank keeps of a role until it is written: its activations, twice while they are joined.
All other GPUs form more groups of K, which share out the roles. Nothing here was run: the shapes
are those of the models' config.json, and the weights are in bfloat16. The speed is to be measured:
`fit_axis.py` prints the tokens per second of all groups.
"""

import argparse

import torch

from minaxis import Config
from minaxis.distributed.tensor_parallel import config_of_rank
from minaxis.loading.gemma2 import Gemma2Config
from minaxis.loading.models import MODELS
from minaxis.support import arguments as cli

ROLES, TOKENS = 276, 512
RESPONSES = ROLES * 1200
PROMPT = 100  # tokens; a generous guess for a system prompt and a question
JUDGED = 32  # responses that the judge reads at once
COPIES = 3  # of the logits: as parts and together, or before, in and after the soft cap
HEADROOM = 1.1  # for activations and fragments
BFLOAT16 = 2  # bytes

PAPER = [
    Gemma2Config(256000, 4608, 36864, 46, 32, 16, 128, name="Gemma 2 27B"),
    Config(
        151936, 5120, 25600, 64, 64, 8, 128,
        qk_norm=True, tie_word_embeddings=False, name="Qwen 3 32B",
    ),
    Config(128256, 8192, 28672, 80, 64, 8, 128, tie_word_embeddings=False, name="Llama 3.3 70B"),
]  # fmt: skip


def weights(config: Config, ranks: int) -> int:
    """Bytes of the first rank's weights."""
    with torch.device("meta"):
        part = config_of_rank(config, 0, ranks) if ranks > 1 else config
        model = MODELS[type(config)](part)
    return BFLOAT16 * sum(p.numel() for p in model.parameters())


def cache(config: Config, ranks: int, batch: int) -> int:
    """Bytes of the first rank's keys and values of a batch."""
    heads = config_of_rank(config, 0, ranks).num_key_value_heads
    columns = config.num_hidden_layers * heads * config.head_dim
    return BFLOAT16 * 2 * columns * batch * (PROMPT + TOKENS)


def logits(config: Config) -> int:
    """Bytes of the logits of the judge, which sees every token of its responses."""
    return BFLOAT16 * COPIES * JUDGED * (TOKENS + 1) * config.vocab_size


def needed(config: Config, ranks: int, batch: int) -> float:
    """Bytes of memory that the first rank's GPU must have."""
    judging = cache(config, ranks, JUDGED) + logits(config)
    return HEADROOM * (weights(config, ranks) + max(cache(config, ranks, batch), judging))


def sent(config: Config, ranks: int) -> float:
    """Bytes that a rank sends for a token: benchmarks/tensor_parallel.py counts them."""
    sums = (2 * config.num_hidden_layers + 1) * config.hidden_size
    return (ranks - 1) / ranks * (2 * sums + config.vocab_size) * BFLOAT16


def disk(config: Config) -> int:
    """Bytes of all rollouts: two activations of each layer in float32, and norms."""
    layers, width = config.num_hidden_layers, config.hidden_size
    return 4 * RESPONSES * (2 * layers * width + layers + 1)


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole = cli.number(int, 1, 10**6)
    p.add_argument("--gpus", type=whole, default=8, help="number of GPUs")
    p.add_argument("--memory", type=whole, default=80, help="memory of a GPU, in GB")
    p.add_argument("--batch-size", type=whole, default=64, help="responses generated together")
    p.add_argument(
        "--tokens-per-second", type=whole, default=1000, help="speed of one group, in tokens/s"
    )
    args = p.parse_args()
    print(
        f"{args.gpus} GPUs of {args.memory} GB, batches of {args.batch_size}; "
        f"{RESPONSES:,} responses of {TOKENS} tokens, at {args.tokens_per_second} tokens/s a group"
    )
    print(
        "                              one GPU                    sent for    main\n"
        "model            K  groups  weights    cache   logits    a token  memory     disk   hours"
    )
    for config in PAPER:
        fitting = [
            k for k in (1, 2, 4, 8)
            if k <= args.gpus and needed(config, k, args.batch_size) < args.memory * 1e9
        ]  # fmt: skip
        if not fitting:
            print(f"{config.name:13s} does not fit: take more or larger GPUs")
            continue
        k = fitting[0]
        groups = args.gpus // k
        hours = RESPONSES * TOKENS / (groups * args.tokens_per_second) / 3600
        print(
            f"{config.name:13s} {k:4d} {groups:7d} {weights(config, k) / 1e9:5.1f} GB"
            f" {cache(config, k, args.batch_size) / 1e9:5.1f} GB {logits(config) / 1e9:5.1f} GB"
            f" {sent(config, k) / 1e3:7.0f} kB {2 * disk(config) / ROLES / 1e9:4.1f} GB"
            f" {disk(config) / 1e9:5.0f} GB {hours:7.1f}"
        )


if __name__ == "__main__":
    cli.run(main)
