"""What do capping and steering cost a whole model?

    python benchmarks/capped_generation.py        # several minutes on two cores

SmolLM2 generates at batch size 32, in minaxis and in transformers with the hooks of the reference
code: without an intervention (the baseline), capped and steered. The contestants take turns. Prints
seconds (medians of the rounds), how much slower than its baseline each contestant is (median of the
paired ratios, and their range), and the time that is spent inside the operator.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from cap import clock, describe, einsum
from smollm2 import random_axis, transformers_model
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import minaxis as mx
from minaxis.activation_cap import default_layers
from minaxis.generation import decode_steps, pad_left, row_noise
from minaxis.loading.models import pick_device
from minaxis.support import arguments as cli
from minaxis.support.files import write_json

Contestant = tuple[Callable[[], None], Callable[[], AbstractContextManager[Any]]]  # run, context


@contextmanager
def reference_hooks(blocks: Sequence[nn.Module], change: Callable[[Tensor], Tensor]) -> Iterator:
    """Hooks that replace a block's output, as in the reference code."""
    handles = [block.register_forward_hook(lambda m, a, h: change(h)) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def in_transformers(
    prompts: list[list[int]], axis: mx.Axis, tokens: int, device: torch.device
) -> dict[str, Contestant]:
    """Generation by transformers: the baseline, capped at the default layers, and steered."""
    model = transformers_model(torch.float32).to(device)
    assert axis.norms is not None
    layers, middle = default_layers(len(axis.vectors)), len(axis.vectors) // 2
    blocks, unit = model.model.layers, axis.unit().to(device)
    tau = axis.thresholds(50)[layers[0]].item()
    push = 0.1 * axis.norms[middle].item() * unit[middle]
    ids, padding = pad_left(prompts, device)
    mask = torch.ones_like(ids)
    if padding is not None:
        mask = (torch.arange(ids.shape[1], device=device) >= padding[:, None]).long()
    new = tokens + 1  # decode_steps also reads its last tokens

    def run() -> None:
        model.generate(
            ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip

    def floor(h: Tensor) -> Tensor:
        return einsum(h.flatten(0, 1), unit[layers[0]], tau).view_as(h)

    return {
        "transformers": (run, nullcontext),
        "transformers, capped": (
            run, lambda: reference_hooks([blocks[i] for i in layers], floor)
        ),
        "transformers, steered": (
            run, lambda: reference_hooks([blocks[middle]], lambda h: h + push)
        ),
    }  # fmt: skip


def generation(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Measure and print what capping and steering cost in generation.

    Half of the tokens are capped, at six layers. Steering acts at one layer.
    """
    model, tokenizer = mx.load("smollm2", device=device)
    text = "You are a {}. Tell me about your day, and about what you would rather be doing."
    people = ["pirate", "judge", "hermit", "nurse", "poet", "clerk", "witch", "pilot"] * 4
    prompts = [
        mx.encode_chat(tokenizer, [{"role": "user", "content": text.format(p)}]) for p in people
    ]
    axis = random_axis(model, prompts[0])

    def run() -> None:
        # There are no stop tokens, so all contestants do equally many steps with the whole batch.
        sampling = mx.SamplingParams(max_new_tokens=args.tokens, temperature=0)
        for _ in decode_steps(
            model, prompts, row_noise(0, len(prompts), args.tokens), [], sampling
        ):
            pass

    contestants: dict[str, Contestant] = {
        "minaxis": (run, nullcontext),
        "minaxis, capped": (run, lambda: mx.capping(model, axis, percentile=50)),
        "minaxis, steered": (run, lambda: mx.steering(model, axis, 0.1)),
    }
    try:
        contestants |= in_transformers(prompts, axis, args.tokens, device)
    except ImportError:
        print("transformers is not installed: minaxis alone (pip install -e '.[dev]')")

    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(args.rounds + 1):
        # Every other round runs backward, because the machine may get warmer or slower.
        for name in list(contestants)[:: -1 if turn % 2 else 1]:
            function, intervention = contestants[name]
            with intervention():
                now = clock(function, 1, device)
            if turn:  # the first round warms up
                seconds[name].append(now)
    print(f"SmolLM2, batch size {len(prompts)}, {args.tokens} tokens, {args.rounds} rounds")
    slower = {}
    for name, times in seconds.items():
        baseline = seconds[name.split(",")[0]]
        ratios = sorted(b / a - 1 for a, b in zip(baseline, times, strict=True))
        slower[name] = statistics.median(ratios)
        print(
            f"{name:22s} {statistics.median(times):7.3f} s (median)  {slower[name]:+6.1%} "
            f"({ratios[0]:+.1%} to {ratios[-1]:+.1%}) against its own baseline"
        )
    # Whole runs vary by more than a cap costs, so the time inside the operator is counted, too.
    with mx.capping(model, axis, percentile=50), profile(activities=[ProfilerActivity.CPU]) as seen:
        total = clock(run, 1, device)
    spent = sum(e.cpu_time_total for e in seen.key_averages() if e.key == "minaxis::cap_") / 1e6
    print(f"inside the operator: {spent * 1e3:.1f} ms of {total:.2f} s, {spent / total:.2%}")
    return {"seconds": seconds, "slower": slower, "inside": spent / total, "tokens": args.tokens}


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("--device", default="auto", help="device: auto, cpu, cuda or mps (default: auto)")
    add("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    add("--tokens", type=int, default=32, help="number of tokens in a reply (default: 32)")
    add("--out", type=Path, help="JSON file for settings and results")
    args = p.parse_args()
    device = pick_device(args.device)
    settings = describe(args, device)
    with torch.inference_mode():
        results = generation(args, device)
    if args.out:
        write_json(args.out, {"settings": settings, **results})


if __name__ == "__main__":
    cli.run(main)
