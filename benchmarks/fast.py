"""What each fast twin saves, end to end: one job with all twins, and without each of them.

    python benchmarks/fast.py                # 9 minutes on two cores

The job is a shorter form of the job of pipeline.py: SmolLM2 answers 4 questions under each of 16
system prompts (64 responses of 24 tokens), and the mean activation at every layer is computed. The
same job, capped at the default layers, shows what the fast cap saves. The variants take turns.
Prints seconds (medians of the rounds) and how much longer the job takes without one twin (median of
the paired ratios, and their range).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from smollm2 import make_prompts, random_axis
from torch import nn

import minaxis as mx
from minaxis import generation
from minaxis.fast.attention import SteppedAttention
from minaxis.fast.decoding import QuickLinear, QuickNorm
from minaxis.fast.install import install
from minaxis.model import Attention, RMSNorm
from minaxis.rollouts import generate_with_activations
from minaxis.support import arguments as cli
from minaxis.support.files import write_json

TWINS = ("attention", "decoding", "prefix", "sampling")
Variant = Callable[[], AbstractContextManager[None]]  # prepares the model, and makes a context


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    p.add_argument("--tokens", type=int, default=24, help="tokens in a response (default: 24)")
    p.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="weight dtypes")
    p.add_argument("--out", type=Path, default=Path("out/benchmarks/fast.json"), help="JSON file")
    args = p.parse_args()
    results = {}
    for name in args.dtypes:
        model, tokenizer = mx.load("smollm2", getattr(torch, name), "cpu")
        prompts = make_prompts(tokenizer, roles=8)
        variants = {"all fast": with_twins(model, TWINS)}
        for twin in TWINS:
            variants[f"without {twin}"] = with_twins(model, [t for t in TWINS if t != twin])
        variants["all plain"] = with_twins(model, [])
        axis = random_axis(model, prompts[0])
        for cap, fast in (("capped", True), ("capped, plain formula", False)):
            capped = partial(mx.capping, model, axis, percentile=50, fast=fast)
            variants[cap] = with_twins(model, TWINS, capped)
        results[name] = measure(variants, model, prompts, args)
        report(name, results[name])
    write_json(args.out, {"settings": {**vars(args), "out": str(args.out)}, "seconds": results})


def with_twins(
    model: mx.Transformer, twins: Sequence[str], intervention: Variant = nullcontext
) -> Variant:
    """A function that gives the model these twins and no others, and makes the intervention."""

    def prepare() -> AbstractContextManager[None]:
        install(model)
        plain: dict[type[nn.Module], type[nn.Module]] = {}
        if "decoding" not in twins:
            plain |= {QuickLinear: nn.Linear, QuickNorm: RMSNorm}
        if "attention" not in twins:
            plain[SteppedAttention] = Attention
        for module in model.modules():
            module.__class__ = plain.get(type(module), type(module))
        if "prefix" not in twins:
            setattr(model, "fast_prepare", generation.prepare)  # noqa: B010 (as in install.py)
        if "sampling" not in twins:
            setattr(model, "fast_sample", generation.sample)  # noqa: B010
        return intervention()

    return prepare


def measure(
    variants: dict[str, Variant],
    model: mx.Transformer,
    prompts: list[list[int]],
    args: argparse.Namespace,
) -> dict[str, list[float]]:
    """Seconds of the job in every round, for each variant."""
    noise = generation.row_noise(0, len(prompts), args.tokens)
    sampling = mx.SamplingParams(max_new_tokens=args.tokens)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(args.rounds + 1):
        # Every other round runs backward, because the machine may get warmer or slower.
        for name in list(variants)[:: 1 if turn % 2 else -1]:
            with variants[name]():
                start = time.perf_counter()
                generate_with_activations(model, prompts, noise, [], sampling)
                if turn:  # the first round only warms up
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def report(dtype: str, seconds: dict[str, list[float]]) -> None:
    """Print a line for each variant."""
    print(f"\n{dtype:24s} seconds   longer than with all twins (median; least to most)")
    for name, values in seconds.items():
        against = seconds["capped" if name.startswith("capped") else "all fast"]
        ratios = sorted(a / b - 1 for a, b in zip(values, against, strict=True))
        print(
            f"{name:24s} {statistics.median(values):7.2f}   {statistics.median(ratios):+7.1%}   "
            f"({ratios[0]:+.1%} to {ratios[-1]:+.1%})",
            flush=True,
        )


if __name__ == "__main__":
    cli.run(main)
