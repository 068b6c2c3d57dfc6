"""What each fast twin saves, end to end: the same job without it, in turn with the job with all.

    python benchmarks/fast.py                # 15 minutes on two cores

The job is that of pipeline.py, shorter: SmolLM2 answers 4 questions under each of 16 system
prompts (64 responses of 24 tokens), and the mean activation at every layer is kept. The cap is
measured on the same job, capped at the default layers. Prints seconds (medians of the rounds) and
how much longer the job takes without one twin (median of the paired ratios, and their range).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch

import minaxis as mx
from minaxis import generation
from minaxis.fast import install as fast_install
from minaxis.fast.attention import SteppedAttention
from minaxis.model import Attention
from minaxis.rollouts import generate_with_activations, prompt_ids
from minaxis.support.files import write_json
from minaxis.tokenizer import Tokenizer

TWINS = ("attention", "prefix", "sampling")


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--rounds", type=int, default=5, help="number of rounds")
    p.add_argument("--tokens", type=int, default=24, help="tokens of each response")
    p.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="weight dtypes")
    p.add_argument("--out", type=Path, default=Path("out/benchmarks/fast.json"), help="JSON file")
    args = p.parse_args()
    results = {}
    for name in args.dtypes:
        model, tokenizer = mx.load("smollm2", getattr(torch, name), "cpu")
        prompts = make_prompts(tokenizer)
        ways = {"all fast": with_twins(model, TWINS)}
        for twin in TWINS:
            ways[f"without {twin}"] = with_twins(model, [t for t in TWINS if t != twin])
        ways["all plain"] = with_twins(model, [])
        axis = random_axis(model, prompts)
        for cap, fast in (("capped", True), ("capped, plain formula", False)):
            capped = partial(mx.capping, model, axis, percentile=50, fast=fast)
            ways[cap] = with_twins(model, TWINS, capped)
        results[name] = measure(ways, model, prompts, args)
        report(name, results[name])
    write_json(args.out, {"settings": {**vars(args), "out": str(args.out)}, "seconds": results})


def make_prompts(tokenizer: Tokenizer) -> list[list[int]]:
    roles = mx.read_roles()
    names = [r for r in roles if r != "default"][2::4][:8]
    return [
        prompt_ids(tokenizer, {"system": system, "question": question})
        for name in names
        for system in roles[name][:2]
        for question in mx.read_questions()[:4]
    ]


def with_twins(
    model: mx.Transformer,
    twins: list[str] | tuple[str, ...],
    intervention: Callable[[], AbstractContextManager] = nullcontext,
) -> Callable[[], AbstractContextManager]:
    """A function that gives the model these twins and no others, and begins the intervention."""

    def prepare() -> AbstractContextManager:
        fast_install.install(model)
        if "attention" not in twins:
            for module in model.modules():
                if type(module) is SteppedAttention:
                    module.__class__ = Attention
        if "prefix" not in twins:
            model.fast_prepare = generation.prepare
        if "sampling" not in twins:
            model.fast_sample = generation.sample
        return intervention()

    return prepare


def random_axis(model: mx.Transformer, prompts: list[list[int]]) -> mx.Axis:
    """Random directions, calibrated on the tokens of a prompt so that half of them are capped."""
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    vectors = torch.randn(layers, width, generator=torch.Generator().manual_seed(0))
    axis = mx.Axis(vectors=vectors)
    with torch.inference_mode(), mx.capture(model) as seen:
        model(torch.tensor(prompts[:1]))
    axis.projections = torch.stack([axis.project(seen[i][0], i) for i in seen], 1)  # (T, L)
    return axis


def measure(
    ways: dict[str, Callable[[], AbstractContextManager]],
    model: mx.Transformer,
    prompts: list[list[int]],
    args: argparse.Namespace,
) -> dict[str, list[float]]:
    noise = generation.row_noise(0, len(prompts), args.tokens)
    sampling = mx.SamplingParams(max_new_tokens=args.tokens)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.rounds + 1):
        # Every other round backward: who comes later may meet a warmer or a slower machine.
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            with ways[name]():
                start = time.perf_counter()
                generate_with_activations(model, prompts, noise, [], sampling)
                if turn:  # the first round only warms up
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def report(dtype: str, seconds: dict[str, list[float]]) -> None:
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
    main()
