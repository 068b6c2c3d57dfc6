"""How fast is the cap? Milliseconds of the operator, beside the same formula in plain PyTorch.

    python benchmarks/cap.py        # 2 minutes on two cores

Everything is measured in one run, and the contestants take turns. Times are medians.

    einsum     the formula as plain PyTorch, like the reference code
    compiled   the same under torch.compile
    cap        minaxis, out of place
    cap_       minaxis, in place: `capping` runs it during inference
    copy       a copy of h to memory that exists already: the machine's limit
    project    h @ v alone
    read       h.sum() alone

GB/s counts the bytes that cap_ must move: each row is read once, and each capped row is written
once.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import minaxis as mx
from minaxis.loading.models import pick_device
from minaxis.support import arguments as cli
from minaxis.support.files import write_json

RISE = 0.05  # how much tau rises from call to call, so that each call of cap_ caps the same rows
ABOVE, BELOW = 1000.0, -1.0  # the planted projections of rows above and below tau


def einsum(h: Tensor, v: Tensor, tau: float) -> Tensor:
    """The formula as the reference code has it."""
    excess = (torch.einsum("nd,d->n", h, v) - tau).clamp(max=0)
    return h - torch.einsum("n,d->nd", excess, v)


def clock(function: Callable[[], object], calls: int, device: torch.device) -> float:
    """Seconds for a call. On a GPU, the clock stops when the last call is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def take_turns(
    contestants: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each contestant. Every round measures all of them, one after the other."""
    calls: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for name, function in contestants.items():
        function()  # compiles, allocates
        # Short calls are repeated for 3 ms, but not so often that tau would reach ABOVE.
        once = clock(function, 1, device)
        calls[name] = max(1, min(int(0.003 / once), int(ABOVE / RISE / (rounds + 1)) - 2))
    for _ in range(rounds):
        for name, function in contestants.items():
            times[name].append(clock(function, calls[name], device))
    return {name: statistics.median(t) for name, t in times.items()}


def measure(
    rows: int,
    width: int,
    dtype: torch.dtype,
    share: float,
    rounds: int,
    device: torch.device,
    compiled: Callable[[Tensor, Tensor, float], Tensor] | None,
) -> dict[str, Any]:
    """One line of the table of operators, for h (rows, width) with a share of capped rows."""
    g = torch.Generator().manual_seed(0)
    v = torch.randn(width, generator=g)
    v = v / v.norm()
    h = torch.randn(rows, width, generator=g)
    low = torch.arange(rows) < round(share * rows)
    low = low[torch.randperm(rows, generator=g)]
    h = h.addr_(torch.where(low, BELOW, ABOVE) - h @ v, v).to(device, dtype)
    v_same, v = v.to(device, dtype), v.to(device)  # the reference rounds v to the dtype of h
    changed, target = h.clone(), torch.empty_like(h)
    tau = 0.0

    def in_place() -> None:
        nonlocal tau
        tau += RISE
        mx.cap_(changed, v, tau)

    contestants: dict[str, Callable[[], object]] = {"einsum": lambda: einsum(h, v_same, 0.0)}
    if compiled:
        contestants["compiled"] = lambda: compiled(h, v_same, 0.0)
    contestants |= {
        "cap": lambda: mx.cap(h, v, 0.0),
        "cap_": in_place,
        "copy": lambda: target.copy_(h),
        "project": lambda: h @ v_same,
        "read": lambda: h.sum(),
    }
    seconds = take_turns(contestants, rounds, device)
    size = h.numel() * h.element_size()
    speed = size * (1 + low.float().mean().item()) / seconds["cap_"]
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "rows": rows,
        "width": width,
        "capped": low.float().mean().item(),
        "milliseconds": {name: s * 1e3 for name, s in seconds.items()},
        "gb_per_s": speed / 1e9,
        "of_copy": speed / (2 * size / seconds["copy"]),
    }


def describe(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Print and return the machine, the versions and the flags of a run."""
    on_gpu = device.type == "cuda"
    settings = {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "minaxis": mx.__version__,
        "flags": {k: x for k, x in vars(args).items() if k != "out"},
    }
    print(json.dumps(settings))
    return settings


def operators(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Measure and print the table of operators, and return its lines."""
    compiled = None if args.no_compile else torch.compile(einsum, dynamic=True)
    print(
        "dtype     rows x width  capped    einsum compiled     cap    cap_    copy  ms | "
        "  GB/s of copy | einsum/cap einsum/cap_ read/cap_ project/cap_"
    )
    lines = []
    for dtype in args.dtypes:
        for width in args.widths:
            for rows in args.rows:
                for share in (0.0, 0.1, 1.0) if rows > 1 else (0.0, 1.0):
                    kind = getattr(torch, dtype)
                    line = measure(rows, width, kind, share, args.rounds, device, compiled)
                    lines.append(line)
                    t = line["milliseconds"]
                    print(
                        f"{dtype:8} {rows:5} x {width:<5}  {line['capped']:6.1f}  "
                        f"{t['einsum']:8.3f} "
                        f"{t.get('compiled', float('nan')):8.3f} {t['cap']:7.3f} {t['cap_']:7.3f} "
                        f"{t['copy']:7.3f}     | {line['gb_per_s']:6.1f} {line['of_copy']:7.2f} | "
                        f"{t['einsum'] / t['cap']:10.1f} {t['einsum'] / t['cap_']:11.1f} "
                        f"{t['read'] / t['cap_']:9.2f} {t['project'] / t['cap_']:12.2f}",
                        flush=True,
                    )
    return lines


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("--device", default="auto", help="device: auto, cpu, cuda or mps (default: auto)")
    add("--rows", type=int, nargs="+", help="numbers of rows (default: depends on the device)")
    add("--widths", type=int, nargs="+", help="row widths (default: depends on the device)")
    add("--dtypes", nargs="+", default=["float32", "bfloat16"],
        help="dtypes of h (default: float32 and bfloat16)")  # fmt: skip
    add("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    add("--no-compile", action="store_true", help="leave torch.compile out")
    add("--out", type=Path, help="JSON file for settings and results")
    args = p.parse_args()
    device = pick_device(args.device)
    on_gpu = device.type == "cuda"
    args.rows = args.rows or ([1, 32, 128, 4096, 65536] if on_gpu else [1, 32, 128, 3200, 8192])
    args.widths = args.widths or ([576, 4096, 5120, 8192] if on_gpu else [576, 2048, 5120])
    settings = describe(args, device)
    with torch.inference_mode():
        lines = operators(args, device)
    if args.out:
        write_json(args.out, {"settings": settings, "operators": lines})


if __name__ == "__main__":
    cli.run(main)
