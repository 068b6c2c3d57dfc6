"""From prompts to mean activations, in minaxis and in transformers: seconds and memory.

    python benchmarks/pipeline.py            # 17 minutes on two cores

The job: SmolLM2 answers 12 roles x 2 prompts x 4 questions with 96 responses of 48 tokens, and at
every layer the mean activation over each response is computed. transformers generates first, and
then reads every response a second time, with hooks on all layers. This is the usual pipeline, and
that of the reference code. minaxis adds the activations up while it generates.

Each library runs in two dtypes. The four pipelines take turns, `--rounds` times, each time in a
process of its own. The best round counts. Prefill is the time to the first token; minaxis reads
shared prefixes once. The prefill's share of the peak is measured on a plain pass over all prompts,
16 at a time. Prints a table and writes JSON (--out).
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from smollm2 import make_prompts, transformers_model
from torch import Tensor, nn

import minaxis as mx
from minaxis.generation import length_batches, pad_left, row_noise
from minaxis.loading.transformers_model import adapt
from minaxis.rollouts import generate_with_activations
from minaxis.support import arguments as cli
from minaxis.support.files import write_json

PIPELINES = {
    "transformers float32": ("transformers", torch.float32),
    "transformers bfloat16": ("transformers", torch.bfloat16),
    "minaxis float32": ("minaxis", torch.float32),
    "minaxis bfloat16": ("minaxis", torch.bfloat16),
}
TEMPERATURE, TOP_P = 0.7, 0.9


class Response(NamedTuple):
    """A prompt, the ids of a response, and the mean activations (L, D) if they are known."""

    prompt: list[int]
    ids: list[int]
    mean: Tensor | None = None


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("--rounds", type=int, default=2, help="number of rounds (default: 2)")
    add("--batch-sizes", type=int, nargs="+", default=[32, 64, 96],
        help="batch sizes to try in the first round (default: 32, 64 and 96)")  # fmt: skip
    add("--tokens", type=int, default=48, help="tokens in a response (default: 48)")
    add("--out", type=Path, default=Path("out/benchmarks/pipeline.json"), help="JSON file")
    add("--pipeline", choices=PIPELINES, help=argparse.SUPPRESS)
    add("--batch", type=int, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.pipeline:
        print(json.dumps(measure(*PIPELINES[args.pipeline], args.batch, args.tokens)))
        return

    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in PIPELINES}
    for round_ in range(args.rounds):
        for name in PIPELINES:
            # The first round tries all batch sizes. The other rounds use the best one.
            for batch in [fastest(runs[name])["batch"]] if round_ else args.batch_sizes:
                command = [sys.executable, __file__, "--pipeline", name, "--batch", str(batch)]
                command += ["--tokens", str(args.tokens)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                now = json.loads(done.stdout.splitlines()[-1])
                runs[name].append(now)
                print(
                    f"round {round_} {name}, batch size {batch}: {now['seconds']:.1f} s, "
                    f"decode {now['decode_rate']:.0f} tokens/s",
                    flush=True,
                )
    report({name: fastest(runs[name]) for name in PIPELINES})
    settings = {k: v for k, v in cli.settings(args).items() if k not in ("pipeline", "batch")}
    write_json(args.out, {"settings": settings, "runs": runs})


def fastest(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run that took the fewest seconds."""
    return min(runs, key=lambda run: run["seconds"])


def report(best: dict[str, dict[str, Any]]) -> None:
    """Print the table, with the best run of each pipeline."""
    print(
        "\n                        end to end           second    prefill   decode  share of peak"
        "   peak"
        "\n                         seconds  ratio batch  pass s   tokens/s tokens/s prefill decode"
        "  memory"
    )
    slowest = best["transformers float32"]["seconds"]
    for name, r in best.items():
        print(
            f"{name:23s} {r['seconds']:8.1f} {slowest / r['seconds']:6.1f} {r['batch']:5d} "
            f"{r['second_pass']:7.1f} {r['prefill_rate']:10.0f} {r['decode_rate']:8.0f} "
            f"{r['prefill_share']:7.0%} {r['decode_share']:6.0%} {r['memory_gib']:5.1f} GiB"
        )
    for name in ("minaxis float32", "minaxis bfloat16"):
        print(f"{name}: {best[name]['difference']}")
    print(best["minaxis float32"]["versions"])


def measure(library: str, dtype: torch.dtype, batch: int, tokens: int) -> dict[str, Any]:
    """Run one pipeline: seconds, rates in tokens/s, shares of the machine's peak, memory."""
    model: Any  # ours, or transformers'
    model, tokenizer = mx.load("smollm2", dtype=dtype, device="cpu")
    prompts = make_prompts(tokenizer, roles=12)
    config = model.config
    block_weights = sum(p.numel() for p in model.model.layers.parameters() if p.ndim > 1)
    head_weights = config.vocab_size * config.hidden_size
    peak = matmul_peak(dtype)
    if library == "transformers":
        model = transformers_model(dtype)
        generate = transformers_generate
    else:
        generate = minaxis_generate
    generate(model, prompts[:8], batch, 2)  # warm up

    clock = time.perf_counter
    start = clock()
    generate(model, prompts, batch, 1)
    one = clock() - start
    start = clock()
    responses = generate(model, prompts, batch, tokens)
    first_pass = clock() - start
    second_pass = 0.0
    if library == "transformers":
        start = clock()
        transformers_second_pass(model, responses, batch)
        second_pass = clock() - start
    start = clock()
    read_prompts(model, prompts, 16)  # the activations of 16 prompts stay in the CPU's cache
    whole = clock() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    prompt_tokens, new = sum(map(len, prompts)), len(prompts) * (tokens - 1)
    prefill_flops = 2 * (block_weights * prompt_tokens + head_weights * len(prompts))
    decode_flops = 2 * (block_weights + head_weights) * new
    return {
        "batch": batch,
        "seconds": first_pass + second_pass,
        "second_pass": second_pass,
        "prefill_rate": prompt_tokens / one,
        "decode_rate": new / (first_pass - one),
        "prefill_share": prefill_flops / whole / peak,
        "decode_share": decode_flops / (first_pass - one) / peak,
        "matmul_peak_gflops": peak / 1e9,
        "memory_gib": memory,
        "difference": difference(responses, batch) if library == "minaxis" else None,
        "versions": f"torch {torch.__version__}, transformers {installed('transformers')}, "
        f"{platform.machine()}, {torch.get_num_threads()} threads",
    }


@torch.inference_mode()
def read_prompts(model: nn.Module, prompts: list[list[int]], batch: int) -> None:
    """One pass over whole prompts, with shared prefixes read every time and without sampling."""
    run = adapt(model)
    for rows in length_batches([len(p) for p in prompts], batch):
        ids, padding = pad_left([prompts[i] for i in rows], "cpu")
        run(ids, padding=padding, last=1)


def matmul_peak(dtype: torch.dtype, n: int = 2048) -> float:
    """Operations per second of the best of six products of n x n matrices."""
    a, b = torch.randn(2, n, n).to(dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def installed(package: str) -> str:
    """The version of a package, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def minaxis_generate(
    model: mx.Transformer, prompts: list[list[int]], batch: int, tokens: int
) -> list[Response]:
    """Responses with their mean activations, in one pass."""
    noise = row_noise(0, len(prompts), tokens)
    sampling = mx.SamplingParams(max_new_tokens=tokens, temperature=TEMPERATURE, top_p=TOP_P)
    responses: list[Response] = []
    for i in range(0, len(prompts), batch):  # roles stay together, as in `collect`
        rows = prompts[i : i + batch]
        ids, seen = generate_with_activations(model, rows, noise[i : i + batch], [], sampling)
        responses += map(Response, rows, ids, seen["mean"])
    return responses


@torch.inference_mode()
def transformers_generate(
    model: Any, prompts: list[list[int]], batch: int, tokens: int
) -> list[Response]:
    """Responses without activations."""
    responses = {}
    for rows in length_batches([len(p) for p in prompts], batch):
        ids, padding = pad_left([prompts[i] for i in rows], "cpu")
        columns = torch.arange(ids.shape[1])
        mask = torch.ones_like(ids) if padding is None else (columns >= padding[:, None]).long()
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens,
            do_sample=True, temperature=TEMPERATURE, top_p=TOP_P, top_k=0, pad_token_id=0,
        )  # fmt: skip
        for i, row in zip(rows, out[:, ids.shape[1] :].tolist(), strict=True):
            responses[i] = Response(prompts[i], row)
    return [responses[i] for i in range(len(prompts))]


@torch.inference_mode()
def transformers_second_pass(model: Any, responses: Sequence[Response], batch: int) -> Tensor:
    """Mean activations of N responses (N, L, D), from one more pass with hooks on all layers."""
    means = {}
    texts = [response.prompt + response.ids for response in responses]
    for rows in length_batches([len(t) for t in texts], batch):
        longest = max(len(texts[i]) for i in rows)
        ids = torch.tensor([texts[i] + [0] * (longest - len(texts[i])) for i in rows])
        mask = torch.tensor([[1] * len(texts[i]) + [0] * (longest - len(texts[i])) for i in rows])
        with mx.capture(model) as seen:
            model.model(ids, attention_mask=mask)
        for row, i in enumerate(rows):
            start, end = len(responses[i].prompt), len(texts[i])
            h = torch.stack([seen[layer][row, start:end] for layer in sorted(seen)])
            means[i] = h.float().mean(1).cpu()
    return torch.stack([means[i] for i in range(len(responses))])


def difference(responses: Sequence[Response], batch: int) -> str:
    """How far our means are from those of transformers in float32, for the same responses."""
    try:
        theirs = transformers_second_pass(transformers_model(torch.float32), responses, batch)
    except ImportError:
        return "transformers is not installed: nothing to compare with"
    ours = torch.stack([response.mean for response in responses if response.mean is not None])
    # The axis of these means is the first half of the roles minus the second half.
    our_axis, their_axis = (
        x[: len(x) // 2].mean(0) - x[len(x) // 2 :].mean(0) for x in (ours, theirs)
    )
    cosine = torch.cosine_similarity(our_axis, their_axis, dim=-1)
    relative = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)
    return (
        f"means within {relative.max():.1e} of transformers' float32 (relative), axis cosine at "
        f"least {cosine.min():.6f} over the layers"
    )


if __name__ == "__main__":
    cli.run(main)
