"""From prompts to an axis, four ways: how long, how much memory, how close to the machine's limit?

    python benchmarks/pipeline.py            # 17 minutes on two cores

The job: 12 roles x 2 prompts x 4 questions on SmolLM2, 96 responses of 48 tokens, and at every
layer the mean activation over each response. The usual way, in our own words after the reference
repository: let transformers generate, then run every response through the model a second time,
with hooks on all layers. Ours adds the activations up while it generates.

Every way runs in a process of its own, in turn, `--rounds` times; the best round counts. Prefill is
the time to the first token, what prompts share read once where it is ours; its share of the peak is
that of one plain pass over all prompts, 16 at a time. Prints a table and writes JSON (--out).
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

import minaxis as mx
from minaxis.generation import length_batches, pad_left, row_noise
from minaxis.loading.models import find
from minaxis.loading.transformers_model import adapt
from minaxis.rollouts import generate_with_activations, prompt_ids
from minaxis.support.files import write_json

WAYS = {
    "transformers float32": ("transformers", torch.float32),
    "transformers bfloat16": ("transformers", torch.bfloat16),
    "minaxis float32": ("minaxis", torch.float32),
    "minaxis bfloat16": ("minaxis", torch.bfloat16),
}
SAMPLING = {"temperature": 0.7, "top_p": 0.9}


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 64, 96], help="try these")
    p.add_argument("--tokens", type=int, default=48)
    p.add_argument("--out", type=Path, default=Path("out/benchmarks/pipeline.json"))
    p.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    p.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.way:
        print(json.dumps(measure(*WAYS[args.way], args.batch, args.tokens)))
        return

    runs = {way: [] for way in WAYS}
    for round_ in range(args.rounds):
        for way in WAYS:
            # The first round finds each way's best batch size, the others keep to it.
            best = min(runs[way], key=lambda r: r["seconds"], default=None)
            for batch in args.batch_sizes if round_ == 0 else [best["batch"]]:
                command = [sys.executable, __file__, "--way", way, "--batch", str(batch)]
                command += ["--tokens", str(args.tokens)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs[way].append(json.loads(done.stdout.splitlines()[-1]))
                now = runs[way][-1]
                print(
                    f"round {round_} {way}, batch {batch}: {now['seconds']:.1f} s, "
                    f"decode {now['decode_rate']:.0f} tokens/s",
                    flush=True,
                )
    best = {way: min(runs[way], key=lambda r: r["seconds"]) for way in WAYS}
    report(best)
    write_json(args.out, {"settings": vars(args) | {"out": str(args.out)}, "runs": runs})


def report(best):
    print(
        "\n                        end to end           second    prefill   decode  share of peak"
        "   peak"
        "\n                         seconds  ratio batch  pass s   tokens/s tokens/s prefill decode"
        "  memory"
    )
    slowest = best["transformers float32"]["seconds"]
    for way, r in best.items():
        print(
            f"{way:23s} {r['seconds']:8.1f} {slowest / r['seconds']:6.1f} {r['batch']:5d} "
            f"{r['second_pass']:7.1f} {r['prefill_rate']:10.0f} {r['decode_rate']:8.0f} "
            f"{r['prefill_share']:7.0%} {r['decode_share']:6.0%} {r['memory_gib']:5.1f} GiB"
        )
    for way in ("minaxis float32", "minaxis bfloat16"):
        print(f"{way}: {best[way]['difference']}")
    any_run = best["minaxis float32"]
    print(f"{any_run['versions']}")


def measure(library, dtype, batch, tokens):
    model, tokenizer = mx.load("smollm2", dtype=dtype, device="cpu")
    prompts = make_prompts(tokenizer)
    config = model.config
    block_weights = sum(p.numel() for p in model.model.layers.parameters() if p.ndim > 1)
    head_weights = config.vocab_size * config.hidden_size
    peak = matmul_peak(dtype)
    if library == "transformers":
        model = transformers_model(dtype)
        generate, read = transformers_generate, transformers_second_pass
    else:
        generate, read = minaxis_collect, None
    generate(model, prompts[:8], batch, 2)  # warm up

    clock = time.perf_counter
    start = clock()
    generate(model, prompts, batch, 1)
    one = clock() - start
    start = clock()
    answers = generate(model, prompts, batch, tokens)
    first_pass = clock() - start
    second_pass = 0.0
    if read:
        start = clock()
        read(model, answers, batch)
        second_pass = clock() - start
    start = clock()
    read_prompts(model, prompts, 16)  # what 16 of them need stays in the cache
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
        "difference": difference(model, dtype, answers, batch) if not read else None,
        "versions": f"torch {torch.__version__}, transformers {version('transformers')}, "
        f"{platform.machine()}, {torch.get_num_threads()} threads",
    }


@torch.inference_mode()
def read_prompts(model, prompts, batch):
    """One pass over whole prompts, without what they share and without sampling."""
    model = adapt(model)
    for some in length_batches([len(p) for p in prompts], batch):
        ids, padding = pad_left([prompts[i] for i in some], "cpu")
        model(ids, padding=padding, last=1)


def make_prompts(tokenizer):
    roles = mx.read_roles()
    names = [r for r in roles if r != "default"][2::4][:12]
    asked = [
        {"system": system, "question": question}
        for name in names for system in roles[name][:2] for question in mx.read_questions()[:4]
    ]  # fmt: skip
    return [prompt_ids(tokenizer, a) for a in asked]


def matmul_peak(dtype, n=2048):
    a, b = torch.randn(2, n, n).to(dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def version(package):
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as find

    try:
        return find(package)
    except PackageNotFoundError:
        return "not installed"


def minaxis_collect(model, prompts, batch, tokens):
    """[(prompt, response ids, mean activation (L, D))], in one pass."""
    noise, answers = row_noise(0, len(prompts), tokens), []
    sampling = mx.SamplingParams(max_new_tokens=tokens, **SAMPLING)
    for i in range(0, len(prompts), batch):  # roles stay together, as in `collect`
        some = prompts[i : i + batch]
        ids, seen = generate_with_activations(model, some, noise[i : i + batch], [], sampling)
        answers += zip(some, ids, seen["mean"], strict=True)
    return answers


def transformers_model(dtype):
    from transformers import AutoModelForCausalLM

    path = find("smollm2")
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
    return model.eval()


@torch.inference_mode()
def transformers_generate(model, prompts, batch, tokens):
    answers = {}
    for some in length_batches([len(p) for p in prompts], batch):
        ids, padding = pad_left([prompts[i] for i in some], "cpu")
        columns = torch.arange(ids.shape[1])
        mask = torch.ones_like(ids) if padding is None else (columns >= padding[:, None]).long()
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens,
            do_sample=True, top_k=0, pad_token_id=0, **SAMPLING,
        )  # fmt: skip
        for i, row in zip(some, out[:, ids.shape[1] :].tolist(), strict=True):
            answers[i] = (prompts[i], row)
    return [answers[i] for i in range(len(prompts))]


@torch.inference_mode()
def transformers_second_pass(model, answers, batch):
    """Mean activation of each response, (N, L, D): hooks on all layers, one more forward pass."""
    means = {}
    texts = [prompt + ids for prompt, ids, *_ in answers]
    for some in length_batches([len(t) for t in texts], batch):
        longest = max(len(texts[i]) for i in some)
        ids = torch.tensor([texts[i] + [0] * (longest - len(texts[i])) for i in some])
        mask = torch.tensor([[1] * len(texts[i]) + [0] * (longest - len(texts[i])) for i in some])
        with mx.capture(model) as seen:
            model.model(ids, attention_mask=mask)
        for row, i in enumerate(some):
            start, end = len(answers[i][0]), len(texts[i])
            h = torch.stack([seen[layer][row, start:end] for layer in sorted(seen)])
            means[i] = h.float().mean(1).cpu()
    return torch.stack([means[i] for i in range(len(answers))])


def difference(model, dtype, answers, batch):
    """The same responses read by transformers in float32, in two passes: how far are we off?"""
    try:
        theirs = transformers_second_pass(transformers_model(torch.float32), answers, batch)
    except ImportError:
        return "transformers is not installed: nothing to compare with"
    ours = torch.stack([mean for *_, mean in answers])
    # An axis of these: the first half of the roles against the second.
    axes = [x[: len(x) // 2].mean(0) - x[len(x) // 2 :].mean(0) for x in (ours, theirs)]
    cosine = torch.cosine_similarity(*axes, dim=-1)
    relative = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)
    return (
        f"means within {relative.max():.1e} of transformers' float32 (relative), axis cosine at "
        f"least {cosine.min():.6f} over the layers"
    )


if __name__ == "__main__":
    main()
