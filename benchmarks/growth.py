"""How do time and memory grow with the job? A straight line, or flat, where it should be.

    python benchmarks/growth.py            # 4 minutes; the picture needs matplotlib

`collect` on the tiny model: more roles (of 5 prompts x 8 questions, up to the paper's 275), longer
responses, larger batches; and a model with random weights at several widths. One thing is varied
at a time, every point in a process of its own; memory is the rise of its peak over what it held
when the model was loaded. Nothing stops a response early.

The last column is the exponent between a point and the one before: 1 is a straight line through
zero, 0 is flat. Prints a table, writes JSON and a picture (--out).
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
from minaxis.support.files import write_json
from minaxis.tiny.world import World

# What is varied -> its values; all else is as in `USUAL`.
VARIED = {
    "roles": [8, 16, 32, 64, 128, 275],
    "tokens": [8, 16, 32, 64, 128],
    "batch": [8, 16, 32, 64, 128, 256],
    "width": [64, 128, 256, 512],
}
USUAL = {"roles": 16, "tokens": 32, "batch": 64, "width": 128}


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--out", type=Path, default=Path("out/benchmarks/growth"), help="folder")
    p.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.point:
        print(json.dumps(measure(**args.point)))
        return
    found = {}
    print(f"{'':8s} {'':>6s} {'seconds':>8s} {'tokens/s':>9s} {'peak MiB':>9s}   exponents")
    for name, values in VARIED.items():
        found[name] = []
        for value in values:
            point = json.dumps(USUAL | {name: value})
            done = subprocess.run(
                [sys.executable, __file__, "--point", point],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            now = {name: value} | json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:8s} {value:6d} {now['seconds']:8.2f} {now['said'] / now['seconds']:9.0f} "
                f"{now['peak_mib']:9.0f}   {exponents(found[name][-1:], now, name)}",
                flush=True,
            )
            found[name].append(now)
    about = {"torch": torch.__version__, "threads": 1, "minaxis": mx.__version__, "usual": USUAL}
    write_json(args.out / "growth.json", {"settings": about, "points": found})
    draw(found, args.out / "growth.png")


def exponents(before, now, name):
    if not before:
        return ""
    (before,) = before
    step = math.log(now[name] / before[name])
    seconds = math.log(now["seconds"] / before["seconds"]) / step
    memory = math.log(now["peak_mib"] / before["peak_mib"]) / step
    return f"time {seconds:5.2f}, memory {memory:5.2f}"


def measure(roles, tokens, batch, width):
    torch.set_num_threads(1)  # with matrices this small, two would mostly wait for each other
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
    asked = {"default": [""] * 5} | {
        f"{names[i % len(names)]} {i}": [f"You are the {names[i % len(names)]}."] * 5
        for i in range(roles - 1)
    }
    questions = World().topics["selfhood"]["questions"][:8]
    mx.generate(
        model, tokenizer, [[1, 2, 3]] * 4, mx.SamplingParams(max_new_tokens=4)
    )  # what the first call allocates for good
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        mx.collect(
            model, tokenizer, asked, questions, mx.SamplingParams(max_new_tokens=tokens),
            batch_size=batch, folder=Path(folder) / "a",
        )  # fmt: skip
    return {
        "seconds": time.perf_counter() - start,
        "peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "said": roles * 5 * len(questions) * tokens,
    }


def draw(found, path):
    try:
        from minaxis.paper.figures import BLUE, INK, ORANGE, STYLE, load_pyplot

        pyplot = load_pyplot()
    except ImportError as error:
        print(f"no picture: {error}")
        return
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(2, 4, figsize=(9.6, 4.4), layout="constrained")
        for (name, points), (top, bottom) in zip(found.items(), axes.T, strict=True):
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
    print(path)


if __name__ == "__main__":
    main()
