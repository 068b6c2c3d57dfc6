"""Time and memory of fit_axis.py over 1, 2 and 4 ranks of one machine.

    python benchmarks/scale.py               # two minutes on two cores; Linux only (wait4)

One job for each model, which has four equal batches of roles or more, with judge or exact reader,
and without the control. "whole run" is the seconds from start to end, with the imports and the
loading of each rank. "collecting" is the tokens per second of all ranks while they generate.
"memory" is the peak resident memory of the largest rank. Each rank has its own copy of the weights.
"processor" is the processor time of all ranks and of torchrun. The last column compares the words
of all responses with those of the first row.

All ranks share the cores and the memory bus of this machine: more ranks than cores can only lose.
So this says what ranks cost here, and nothing about several machines or GPUs.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from minaxis.support import arguments as cli

SCRIPT = Path(__file__).parents[1] / "fit_axis.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
JOBS = {
    "tiny": ["--tokens", "48", "--batch-size", "64"],
    "smollm2": [
        "--n-roles", "15", "--n-prompts", "1", "--n-questions", "2", "--default-samples", "1",
        "--tokens", "16", "--batch-size", "10",
    ],
}  # fmt: skip
SETUPS = [(1, 2), (1, 1), (2, 1), (4, 1)]  # ranks, threads of each


class Run(NamedTuple):
    """What one run took, and its responses."""

    seconds: float
    processor: float  # seconds
    memory: int  # bytes, of the largest process
    tokens_per_second: str
    responses: bytes


def measure(model: str, ranks: int, threads: int, folder: Path) -> Run:
    """Run the job of a model."""
    launcher = [*TORCHRUN, str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, str(SCRIPT), "--model", model, *JOBS[model]]
    command += ["--no-control", "--out", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, env=environment, stdout=printed, stderr=printed)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        printed.seek(0)
        text = printed.read()
    if status:
        raise RuntimeError(text)
    speeds = re.findall(r"responses .* ([\d,]+) tokens/s", text)
    return Run(
        seconds=seconds,
        processor=used.ru_utime + used.ru_stime,
        memory=used.ru_maxrss * 1024,
        tokens_per_second=speeds[-1],
        responses=(folder / "responses.jsonl").read_bytes(),
    )


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--models", nargs="+", choices=JOBS, default=list(JOBS), help="models to run")
    args = p.parse_args()
    print(
        f"{os.cpu_count()} cores\n"
        "model    ranks threads  whole run  processor    collecting  memory of a rank  responses"
    )
    for model in args.models:
        first = None
        for ranks, threads in SETUPS:
            with tempfile.TemporaryDirectory() as folder:
                run = measure(model, ranks, threads, Path(folder))
            first = first or run
            same = "the same" if run.responses == first.responses else "others"
            print(
                f"{model:8s} {ranks:5d} {threads:7d} {run.seconds:8.1f} s {run.processor:8.1f} s "
                f"{run.tokens_per_second:>7s} tok/s {run.memory / 1e6:14.0f} MB  {same}",
                flush=True,
            )


if __name__ == "__main__":
    cli.run(main)
