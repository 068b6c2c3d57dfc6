"""How do time and memory grow with the job? Some should grow linearly, and some not at all.

    python benchmarks/growth.py            # 4 minutes; the figure needs matplotlib

The job is `collect` on the tiny model, with more roles (up to the paper's 275, with 5 prompts and 8
questions), longer responses or larger batches, or with random weights at several widths. One
setting is varied at a time, and every point has a process of its own. Memory is the rise of the
peak memory above the memory after loading the model. No response stops early.

The last columns are the exponents of time and memory from the previous point to this one: 1 is
linear growth, 0 is none. Prints a table, and writes JSON and a figure (--out).
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import minaxis as mx
from minaxis.support import arguments as cli
from minaxis.support.files import write_json
from minaxis.tiny.world import World

# Setting -> its values. The other settings are as in `USUAL`.
VARIED = {
    "roles": [8, 16, 32, 64, 128, 275],
    "tokens": [8, 16, 32, 64, 128],
    "batch": [8, 16, 32, 64, 128, 256],
    "width": [64, 128, 256, 512],
}
USUAL = {"roles": 16, "tokens": 32, "batch": 64, "width": 128}


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--out", type=Path, default=Path("out/benchmarks/growth"), help="output folder")
    p.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.point:
        print(json.dumps(measure(**args.point)))
        return
    results: dict[str, list[dict[str, float]]] = {}
    print(f"{'':8s} {'':>6s} {'seconds':>8s} {'tokens/s':>9s} {'peak MiB':>9s}   exponents")
    for name, values in VARIED.items():
        results[name] = []
        for value in values:
            point = json.dumps(USUAL | {name: value})
            done = subprocess.run(
                [sys.executable, __file__, "--point", point],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            now = {name: value} | json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:8s} {value:6d} {now['seconds']:8.2f} {now['said'] / now['seconds']:9.0f} "
                f"{now['peak_mib']:9.0f}   {exponents(results[name][-1:], now, name)}",
                flush=True,
            )
            results[name].append(now)
    versions = {"torch": str(torch.__version__), "minaxis": mx.__version__}
    settings = {**versions, "threads": 1, "usual": USUAL}
    write_json(args.out / "growth.json", {"settings": settings, "points": results})
    draw(results, args.out / "growth.png")


def exponents(previous: list[dict[str, float]], now: dict[str, float], name: str) -> str:
    """The exponents of time and memory from the previous point, if there is one, to this one."""
    if not previous:
        return ""
    (before,) = previous
    step = math.log(now[name] / before[name])
    seconds = math.log(now["seconds"] / before["seconds"]) / step
    memory = math.log(now["peak_mib"] / before["peak_mib"]) / step
    return f"time {seconds:5.2f}, memory {memory:5.2f}"


def measure(*, roles: int, tokens: int, batch: int, width: int) -> dict[str, float]:
    """Seconds, rise of the peak memory, and number of generated tokens of one job."""
    torch.set_num_threads(1)  # the matrices are so small that two threads would mostly wait
    model, tokenizer = mx.load("tiny", device="cpu")
    if width != model.config.hidden_size:
        config = mx.Config(
            vocab_size=model.config.vocab_size, hidden_size=width, intermediate_size=width * 5 // 2,
            num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4, head_dim=width // 4,
            max_position_embeddings=512, name="random",
        )  # fmt: skip
        model = mx.Transformer(config).initialise(torch.Generator().manual_seed(0)).eval()
    tokenizer.stop = []
    names = list(World().characters)
    prompts = {"default": [""] * 5} | {
        f"{names[i % len(names)]} {i}": [f"You are the {names[i % len(names)]}."] * 5
        for i in range(roles - 1)
    }
    questions = World().topics["selfhood"]["questions"][:8]
    # The first call allocates memory that stays.
    mx.generate(model, tokenizer, [[1, 2, 3]] * 4, mx.SamplingParams(max_new_tokens=4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        mx.collect(
            model, tokenizer, prompts, questions, mx.SamplingParams(max_new_tokens=tokens),
            batch_size=batch, folder=Path(folder) / "a",
        )  # fmt: skip
    return {
        "seconds": time.perf_counter() - start,
        "peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "said": roles * 5 * len(questions) * tokens,
    }


def draw(results: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw seconds and memory against each setting."""
    try:
        from minaxis.paper.figures import BLUE, INK, ORANGE, STYLE, load_pyplot

        pyplot = load_pyplot()
    except ImportError as error:
        print(f"no figure: {error}")
        return
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(2, 4, figsize=(9.6, 4.4), layout="constrained")
        for (name, points), (top, bottom) in zip(results.items(), axes.T, strict=True):
            x = [p[name] for p in points]
            for ax, key, colour in ((top, "seconds", BLUE), (bottom, "peak_mib", ORANGE)):
                ax.plot(x, [p[key] for p in points], "o-", color=colour, markersize=4)
                ax.set_ylim(0)
                ax.set_xlim(0)
            bottom.set_xlabel(name, color=INK)
        axes[0, 0].set_ylabel("seconds")
        axes[1, 0].set_ylabel("rise of peak memory, MiB")
        figure.savefig(path, dpi=160)
        pyplot.close(figure)
    print(f"written: {path}")


if __name__ == "__main__":
    cli.run(main)
