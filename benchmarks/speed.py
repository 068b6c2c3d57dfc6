"""What a reader waits for, in one table: the other benchmarks, shortened, and the scripts.

    python benchmarks/speed.py                       # 15 to 35 minutes on two cores
    python benchmarks/speed.py --parts chat start    # some parts
    python benchmarks/speed.py --parts open          # SmolLM2: 20 to 45 minutes

    chat            decode.py: one chat with SmolLM2, against transformers
    responses       pipeline.py: 96 responses of SmolLM2 and their activations, against transformers
    conversations   conversations.py: eight turns, against reading the whole conversation every turn
    start           cap_demo.py and fit_axis.py from start to end
    training        train_tiny.py: seconds of both phases, and of the whole script
    experiments     cap_demo.py --all on the tiny model, by one process and by two
    open            fit_axis.py, and cap_demo.py --all by two processes, on SmolLM2 in bfloat16

What is compared takes turns, in one run. The ratio is the median of the pairs, with the least and
the most in brackets; for `responses` it is that of the best runs.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from pipeline import installed

from minaxis.support import arguments as cli

HERE = Path(__file__).parent
SMOLLM2 = ["--model", "smollm2", "--dtype", "bfloat16"]
Rows = Iterable[tuple[str, str, str]]  # what; seconds or tokens/s; against what, and the ratio


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = [name for name in PARTS if name != "open"]
    p.add_argument("--parts", nargs="+", choices=PARTS, default=usual, help="which parts")
    args = p.parse_args()
    names = ("torch", "transformers")
    print(", ".join(f"{name} {installed(name)}" for name in names), end=", ")
    print(f"Python {platform.python_version()}, {torch.get_num_threads()} threads\n")
    with tempfile.TemporaryDirectory() as folder:
        for part in args.parts:
            for what, value, against in PARTS[part](Path(folder)):
                print(f"{what:44s} {value:>14s}   {against}".rstrip(), flush=True)


def run(
    script: Path | str, *arguments: object, threads: int | None = None, ranks: int = 0
) -> tuple[float, str]:
    """Seconds from start to end of a script, and what it printed.

    Args:
        ranks: start so many by torchrun.
    """
    command = [sys.executable, str(HERE.parent / script), *map(str, arguments)]
    if ranks:
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
        command[1:1] = launcher
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    started = time.perf_counter()
    ended = subprocess.run(
        command, env=environment, check=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return time.perf_counter() - started, ended.stdout


def result(script: str, folder: Path, *arguments: object) -> Any:
    """What a benchmark wrote."""
    out = folder / f"{script}.json"
    run(HERE / script, *arguments, "--out", out)
    return json.loads(out.read_text())


def spread(ratios: Sequence[float]) -> str:
    """The median of ratios, with the least and the most."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def chat(folder: Path) -> Rows:
    seconds = result("decode.py", folder, "--rounds", 5, "--tokens", 48)["seconds"]
    for name in ("float32", "bfloat16", "int8"):
        theirs = f"transformers {'float32' if name == 'float32' else 'bfloat16'}"
        ours = seconds[f"minaxis {name}"]
        ratios = [a / b for a, b in zip(seconds[theirs], ours, strict=True)]
        speed = f"{1 / statistics.median(ours):.0f} tokens/s"
        yield f"one chat, {name}", speed, f"{theirs}: {spread(ratios)}"


def responses(folder: Path) -> Rows:
    runs = result("pipeline.py", folder, "--rounds", 1, "--batch-sizes", 64, 96)["runs"]
    best = {name: min(run["seconds"] for run in runs[name]) for name in runs}
    for dtype in ("float32", "bfloat16"):
        ours, theirs = best[f"minaxis {dtype}"], best[f"transformers {dtype}"]
        name = f"96 responses and activations, {dtype}"
        yield name, f"{ours:.1f} s", f"transformers {dtype}: {theirs / ours:.2f}"


def conversations(folder: Path) -> Rows:
    for name, found in result("conversations.py", folder)["results"].items():
        seconds = f"{statistics.median(found['seconds']['with']):.1f} s"
        yield f"eight turns, {name}", seconds, f"reading all every turn: {spread(found['ratios'])}"


def start(folder: Path) -> Rows:
    for script, arguments in (("cap_demo.py", []), ("fit_axis.py", ["--out", folder / "fit"])):
        yield script, f"{run(script, *arguments)[0]:.1f} s", ""


def training(folder: Path) -> Rows:
    whole, printed = run("train_tiny.py", "--out", folder / "tiny")
    phases = re.findall(r"^tiny.* done in (\d+) s", printed, re.M)
    yield "train_tiny.py, both phases", f"{sum(map(int, phases))} s", ""
    yield "train_tiny.py, with measuring", f"{whole:.0f} s", ""


def experiments(folder: Path) -> Rows:
    arguments = ("cap_demo.py", "--all", "--out", folder / "report")
    one, two = run(*arguments, threads=1)[0], run(*arguments, threads=1, ranks=2)[0]
    yield "cap_demo.py --all", f"{one:.0f} s", ""
    yield "cap_demo.py --all, two processes", f"{two:.0f} s", f"one process: {one / two:.2f}"


def open_model(folder: Path) -> Rows:
    fitted = folder / "smollm2"
    yield "fit_axis.py, SmolLM2", f"{run('fit_axis.py', *SMOLLM2, '--out', fitted)[0]:.0f} s", ""
    arguments = [*SMOLLM2, "--all", "--axis", fitted / "axis.pt", "--out", folder / "open"]
    seconds = run("cap_demo.py", *arguments, threads=1, ranks=2)[0]
    yield "cap_demo.py --all, SmolLM2, two processes", f"{seconds:.0f} s", ""


PARTS: dict[str, Callable[[Path], Rows]] = {
    "chat": chat,
    "responses": responses,
    "conversations": conversations,
    "start": start,
    "training": training,
    "experiments": experiments,
    "open": open_model,
}

if __name__ == "__main__":
    cli.run(main)
