"""Is one commit slower than another? Both do the same jobs, in turn.

    python benchmarks/regression.py v0.1.0           # this checkout against a tag: 10 minutes
    python benchmarks/regression.py OLD NEW --jobs "one chat" "fit_axis.py"

A job is a command that both commits understand, in a process of its own. Each round runs it in the
old and in the new checkout, and the next round begins with the other one. Timings of a machine
drift, but the ratio of a pair drifts little. Prints the median of each job's ratios and their
range, and ends with status 1 if a job has become slower: a median above 1.05, and no ratio below 1.

Times are the whole process's for a script, and those of the work alone for the other jobs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from minaxis.support import arguments as cli

ROOT = Path(__file__).parents[1]
PREPARE = """
import time
import torch
import minaxis as mx
model, tokenizer = mx.load("smollm2", torch.bfloat16, "cpu")
messages = [{"role": "user", "content": "Tell me about the sea."}]
prompt = mx.encode_chat(tokenizer, messages)
def respond(count, tokens):
    mx.generate(model, tokenizer, [prompt] * count, mx.SamplingParams(max_new_tokens=tokens))
respond(1, 4)
started = time.perf_counter()
"""
STOP = "\nprint('seconds', time.perf_counter() - started)"
JOBS = {
    "import minaxis": ["-c", "import minaxis"],
    "cap_demo.py": ["cap_demo.py"],
    "fit_axis.py": ["fit_axis.py", "--out", "OUT"],
    "train_tiny.py, short": [
        "train_tiny.py", "--pre-tokens", "1e5", "--post-tokens", "5e4", "--out", "OUT",
    ],
    "one chat": ["-c", f"{PREPARE}respond(1, 64){STOP}"],
    "64 responses": ["-c", f"{PREPARE}respond(64, 24){STOP}"],
}  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("old", help="a commit")
    p.add_argument("new", nargs="?", help="a commit (default: the files as they are now)")
    p.add_argument("--rounds", type=cli.number(int, 2, 100), default=5, help="number of pairs")
    p.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="which jobs")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        old = check_out(args.old, Path(folder, "old"))
        new = check_out(args.new, Path(folder, "new")) if args.new else ROOT
        print(f"{'job':22s} {'old':>8s} {'new':>8s}   new / old (range of {args.rounds} pairs)")
        slower = []
        for job in args.jobs:
            pairs = [measure(job, old, new, i % 2 == 1) for i in range(args.rounds)]
            ratios = [b / a for a, b in pairs]
            middle, before, after = map(statistics.median, (ratios, *zip(*pairs, strict=True)))
            print(
                f"{job:22s} {before:6.2f} s {after:6.2f} s   {middle:.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )
            if middle > 1.05 and min(ratios) > 1:
                slower.append(job)
    if slower:
        sys.exit(f"slower: {', '.join(slower)}")


def check_out(commit: str, folder: Path) -> Path:
    """The files of a commit, in a new folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise ValueError(f"{commit!r} is no commit of this repository: git log lists them")
    folder.mkdir()
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


def measure(job: str, old: Path, new: Path, new_first: bool) -> tuple[float, float]:
    """Seconds of a job in the old and in the new checkout."""
    if new_first:
        after = seconds(job, new)
        return seconds(job, old), after
    return seconds(job, old), seconds(job, new)


def seconds(job: str, checkout: Path) -> float:
    """Run a job once."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, *(out if part == "OUT" else part for part in JOBS[job])]
        started = time.perf_counter()
        ended = subprocess.run(
            command, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)},
            capture_output=True, text=True,
        )  # fmt: skip
        whole = time.perf_counter() - started
    if ended.returncode:
        raise ValueError(f"{job!r} fails in {checkout}: {ended.stderr[-300:]}")
    timed = [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("seconds ")]
    return float(timed[-1]) if timed else whole


if __name__ == "__main__":
    cli.run(main)
