"""One chat at a time: tokens per second of minaxis, transformers and llama.cpp.

    python benchmarks/decode.py              # 3 minutes on two cores

SmolLM2 continues one prompt by `--tokens` tokens, always the most likely one, with a KV cache. The
variants take turns, `--rounds` times. A round's time per token is the difference between a run of
`--tokens` tokens and a run of one, so reading the prompt does not count.

Prints tokens per second (medians), the ratio to transformers in bfloat16 and to transformers in
the same dtype (medians of the paired ratios, least and most in brackets), and the share of the
memory's reading speed, which is measured in the same run: the bytes of the weights that a token
reads, times tokens per second. llama.cpp runs where llama-cpp-python is installed, on the package's
own 4-bit file. "Linear" or "QuickLinear" is minaxis with the linear layers that it would not take
on this processor (fast/decoding.py). The second table has the speed of the kernels, and the last
lines say what 8-bit weights change. Writes JSON (--out).
"""

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pipeline import installed
from smollm2 import make_prompts, transformers_model
from torch import Tensor, nn

import minaxis as mx
from minaxis.chat import encode_chat
from minaxis.fast.decoding import QuickLinear, is_amd
from minaxis.fast.int8 import round_weight
from minaxis.loading.models import find
from minaxis.support import arguments as cli
from minaxis.support.files import write_json

Run = Callable[[int], object]  # generates so many tokens
THEIRS = "transformers bfloat16"


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("--rounds", type=int, default=7, help="number of rounds (default: 7)")
    add("--tokens", type=int, default=64, help="tokens of a response (default: 64)")
    add("--out", type=Path, default=Path("out/benchmarks/decode.json"), help="JSON file")
    args = p.parse_args()
    models = {
        "float32": mx.load("smollm2", torch.float32, "cpu")[0],
        "bfloat16": mx.load("smollm2", torch.bfloat16, "cpu")[0],
        "int8": mx.load("smollm2", device="cpu", int8=True)[0],
    }
    tokenizer = mx.load_tokenizer("smollm2")
    tokenizer.stop = []
    prompt = make_prompts(tokenizer, roles=1)[0]
    runs: dict[str, tuple[Run, float]] = {}  # and the bytes that a token reads
    if find_spec("transformers"):
        for dtype in (torch.float32, torch.bfloat16):
            name = f"transformers {str(dtype).removeprefix('torch.')}"
            runs[name] = transformers_run(dtype, prompt), weight_bytes(models[name.split()[1]])
    for name, model in models.items():
        run = minaxis_run(model, tokenizer, prompt)
        runs[f"minaxis {name}"] = run, weight_bytes(model)
        if name != "int8":
            other = nn.Linear if is_amd() else QuickLinear  # what `load` has not chosen
            run = with_layers(other, model, run)
            runs[f"minaxis {name}, {other.__name__}"] = run, weight_bytes(model)
    if find_spec("llama_cpp"):
        runs["llama.cpp 4-bit"] = llama_cpp_run(prompt), find("smollm2").stat().st_size
    seconds, speeds = measure(runs, args.rounds, args.tokens)
    report(seconds, {name: size for name, (_, size) in runs.items()}, max(speeds))
    report_kernels()
    changes = what_int8_changes(models["bfloat16"], models["int8"], tokenizer)
    settings = {**vars(args), "out": str(args.out)}
    write_json(args.out, {"settings": settings, "seconds": seconds, "reading": speeds, **changes})


def weight_bytes(model: mx.Transformer) -> float:
    """Bytes of the weights that one token reads: all, but of the input embedding only a row."""
    tensors = list(model.model.layers.state_dict().values()) + list(model.lm_head.buffers())
    tensors += list(model.lm_head.parameters())
    return sum(t.nbytes for t in tensors)


def minaxis_run(model: mx.Transformer, tokenizer: Any, prompt: list[int]) -> Run:
    def run(tokens: int) -> object:
        sampling = mx.SamplingParams(max_new_tokens=tokens, temperature=0)
        return mx.generate(model, tokenizer, [prompt], sampling)

    return run


def with_layers(kind: type[nn.Linear], model: mx.Transformer, run: Run) -> Run:
    """The same run with linear layers of this kind."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]

    def run_with_layers(tokens: int) -> object:
        before = [type(layer) for layer in layers]
        for layer in layers:
            layer.__class__ = kind
        result = run(tokens)
        for layer, own in zip(layers, before, strict=True):
            layer.__class__ = own
        return result

    return run_with_layers


def transformers_run(dtype: torch.dtype, prompt: list[int]) -> Run:
    model, ids = transformers_model(dtype), torch.tensor([prompt])

    @torch.inference_mode()
    def run(tokens: int) -> object:
        return model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
            min_new_tokens=tokens, do_sample=False, pad_token_id=0,
        )  # fmt: skip

    return run


def llama_cpp_run(prompt: list[int]) -> Run:
    model = import_module("llama_cpp").Llama(
        str(find("smollm2")), n_ctx=512, n_threads=torch.get_num_threads(), verbose=False
    )

    def run(tokens: int) -> object:
        model.reset()
        stream = model.generate(prompt, temp=0.0)
        return [token for _, token in zip(range(tokens), stream, strict=False)]

    return run


def measure(
    runs: dict[str, tuple[Run, float]], rounds: int, tokens: int
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds per token in every round, for each variant, and the memory's reading speeds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    memory = torch.ones(100_000_000)  # 400 MB, more than any cache holds
    speeds = []
    for turn in range(rounds + 1):
        speeds.append(memory.nbytes / clock(memory.sum))
        # Every other round runs backward, because the machine may get warmer or slower.
        for name in list(runs)[:: 1 if turn % 2 else -1]:
            one, all_ = (clock(partial(runs[name][0], n)) for n in (1, tokens))
            if turn:  # the first round only warms up
                seconds[name].append((all_ - one) / (tokens - 1))
    return seconds, speeds


def clock(function: Callable[[], object]) -> float:
    """The seconds that it takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def report(seconds: dict[str, list[float]], sizes: dict[str, float], speed: float) -> None:
    """Print a line for each variant."""
    print(
        f"torch {torch.__version__}, transformers {installed('transformers')}, llama-cpp-python "
        f"{installed('llama-cpp-python')}, {platform.machine()}, {torch.get_num_threads()} threads"
        f"\nmemory is read at {speed / 1e9:.0f} GB/s (best sum of 400 MB)"
        "\n\n                            tokens/s   to transformers bfloat16   in the same dtype"
        "     memory speed"
    )
    for name, values in seconds.items():
        same = f"transformers {name.split()[1].strip(',')}"
        rate = 1 / statistics.median(values)
        print(
            f"{name:27s} {rate:8.1f}   {ratio(seconds.get(THEIRS), values):24s}   "
            f"{ratio(seconds.get(same), values):20s}  {sizes[name] * rate / speed:6.0%}"
        )


@torch.inference_mode()
def report_kernels(height: int = 3072, width: int = 576) -> None:
    """Print how fast a product of one row reads the weights, copies of one matrix taken in turn."""
    print(f"\none row times a matrix of {height} x {width}, GB/s (best of 5)")
    for dtype, copies in ((torch.float32, 20), (torch.bfloat16, 40)):
        x = torch.randn(1, width).to(dtype)
        plain = [nn.Linear(width, height, bias=False).to(dtype) for _ in range(copies)]
        quick = [QuickLinear(width, height, bias=False).to(dtype) for _ in range(copies)]
        kinds: dict[str, Sequence[nn.Module]] = {"nn.Linear": plain, "QuickLinear": quick}
        if dtype == torch.bfloat16:
            kinds["Int8Linear"] = [round_weight(copy.deepcopy(layer)) for layer in 2 * plain]
        for kind, layers in kinds.items():
            seconds = min(clock(lambda: [layer(x) for layer in layers]) for _ in range(5))  # noqa: B023
            size = sum(tensor.nbytes for layer in layers for tensor in layer.state_dict().values())
            print(f"{str(dtype).removeprefix('torch.'):9s} {kind:12s} {size / seconds / 1e9:5.0f}")


def ratio(theirs: list[float] | None, ours: list[float]) -> str:
    """How many times as fast: the median of the paired ratios, the least and the most."""
    if theirs is None or theirs is ours:
        return "-"
    ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


@torch.inference_mode()
def what_int8_changes(
    plain: mx.Transformer, int8: mx.Transformer, tokenizer: Any
) -> dict[str, object]:
    """Print how far logits, axis and drift of 8-bit weights are from those of bfloat16."""
    prompts = make_prompts(tokenizer, roles=6)
    logits, means = zip(*(read(model, prompts) for model in (plain, int8)), strict=True)
    p, q = (x.log_softmax(-1) for x in logits)
    divergence = (p.exp() * (p - q)).sum(-1).mean().item()
    same = (p.argmax(-1) == q.argmax(-1)).float().mean().item()
    # The axis of these prompts: the first half of the roles minus the second half.
    axes = [x[: len(x) // 2].mean(0) - x[len(x) // 2 :].mean(0) for x in means]  # (L, D)
    cosine = torch.cosine_similarity(axes[0], axes[1], dim=-1)
    middle = len(cosine) // 2
    unit = axes[0][middle] / axes[0][middle].norm()
    drift = [trajectory(model, tokenizer, unit, middle) for model in (plain, int8)]
    shift = max(abs(a - b) for a, b in zip(*drift, strict=True))
    spread = max(drift[0]) - min(drift[0])
    print(
        f"\n8-bit weights against bfloat16, {len(prompts)} prompts\n"
        f"next token: the same in {same:.1%}, divergence {divergence:.4f} nats (mean)\n"
        f"axis: cosine of {cosine.min():.4f} to {cosine.max():.4f} over the layers, "
        f"median {cosine.median():.4f}\n"
        f"drift: projections of {len(drift[0])} turns at layer {middle} move by at most "
        f"{shift:.2f}, and range over {spread:.2f}"
    )
    return {"divergence": divergence, "same": same, "cosine": cosine.tolist(), "drift": drift}


def read(model: mx.Transformer, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Logits of all tokens (N, V) and mean activations of each prompt (B, L, D)."""
    logits, means = [], []
    for prompt in prompts:
        with mx.capture(model) as seen:
            logits.append(model(torch.tensor([prompt]))[0].float())
        means.append(torch.stack([seen[i][0].float().mean(0) for i in sorted(seen)]))
    return torch.cat(logits), torch.stack(means)


def trajectory(model: mx.Transformer, tokenizer: Any, unit: Tensor, layer: int) -> list[float]:
    """Projections of the turns of one conversation, whose words are given."""
    messages, projections = [], []
    for question in mx.read_questions()[:8]:
        messages.append({"role": "user", "content": question})
        start = len(encode_chat(tokenizer, messages))
        messages.append({"role": "assistant", "content": f"{question} I have often wondered."})
        ids = encode_chat(tokenizer, messages, add_generation_prompt=False)
        with mx.capture(model, [layer]) as seen:
            model(torch.tensor([ids]))
        projections.append((seen[layer][0, start:].float().mean(0) @ unit).item())
    return projections


if __name__ == "__main__":
    cli.run(main)
