"""How fast is capping? Type `python benchmarks/cap.py` (about 2 minutes on two CPU cores).

Everything is measured in one run, the contestants taking turns; times are medians.

    einsum     the formula as plain PyTorch, the way the reference code goes about it
    compiled   the same under torch.compile
    cap        minaxis, out of place
    cap_       minaxis, in place: what `capping` runs during inference
    copy       h copied to memory that is already there: the machine's limit
    project    h @ v alone
    read       h.sum() alone

GB/s counts the bytes that cap_ must move: each row read once, each capped row written once.
`--generate` measures instead what capping and steering cost a whole model, SmolLM2 at batch 32,
ours and transformers' with the reference's hooks.
"""

import argparse
import json
import platform
import statistics
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from pipeline import transformers_model
from torch.profiler import ProfilerActivity, profile

import minaxis as mx
from minaxis.activation_cap import default_layers
from minaxis.generation import decode_steps, pad_left, row_noise
from minaxis.loading.models import pick_device

RISE = 0.05  # how much tau rises from call to call, so that cap_ finds the same rows below it
ABOVE, BELOW = 1000.0, -1.0  # where the projections are planted


def einsum(h, v, tau):
    excess = (torch.einsum("nd,d->n", h, v) - tau).clamp(max=0)
    return h - torch.einsum("n,d->nd", excess, v)


def clock(function, calls: int, device: torch.device) -> float:
    """Seconds a call; on a GPU until the last one is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def take_turns(contestants: dict, rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, every round measuring all of them one after the other."""
    calls, times = {}, {name: [] for name in contestants}
    for name, function in contestants.items():
        function()  # compiles, allocates
        # Short calls are repeated for 3 ms; never so often that tau would reach ABOVE.
        once = clock(function, 1, device)
        calls[name] = max(1, min(int(0.003 / once), int(ABOVE / RISE / (rounds + 1)) - 2))
    for _ in range(rounds):
        for name, function in contestants.items():
            times[name].append(clock(function, calls[name], device))
    return {name: statistics.median(t) for name, t in times.items()}


def measure(rows, width, dtype, share, rounds, device, compiled) -> dict:
    """One line of the table."""
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

    def in_place():
        nonlocal tau
        tau += RISE
        mx.cap_(changed, v, tau)

    contestants = {
        "einsum": lambda: einsum(h, v_same, 0.0),
        "compiled": compiled and (lambda: compiled(h, v_same, 0.0)),
        "cap": lambda: mx.cap(h, v, 0.0),
        "cap_": in_place,
        "copy": lambda: target.copy_(h),
        "project": lambda: h @ v_same,
        "read": lambda: h.sum(),
    }
    seconds = take_turns({k: f for k, f in contestants.items() if f}, rounds, device)
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


def operators(args, device) -> dict:
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
    return {"operators": lines}


@contextmanager
def reference_hooks(blocks, change):
    """Hooks that replace a block's output, as the reference repository does it."""
    handles = [block.register_forward_hook(lambda m, a, h: change(h)) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def generation(args, device) -> dict:
    """Generation plain, capped and steered, in turns, ours and transformers' with plain hooks.

    Capped is at six layers, with half of the tokens below the floor; steered at one.
    """
    model, tokenizer = mx.load("smollm2", device=device)
    text = "You are a {}. Tell me about your day, and about what you would rather be doing."
    people = ["pirate", "judge", "hermit", "nurse", "poet", "clerk", "witch", "pilot"] * 4
    prompts = [
        mx.encode_chat(tokenizer, [{"role": "user", "content": text.format(p)}]) for p in people
    ]
    config = model.config
    vectors = torch.randn(
        config.num_hidden_layers, config.hidden_size, generator=torch.Generator().manual_seed(0)
    )
    axis = mx.Axis(vectors=vectors)
    with torch.inference_mode(), mx.capture(model) as seen:
        model(torch.tensor(prompts[:1], device=device))
    axis.projections = torch.stack([axis.project(seen[i][0], i).cpu() for i in seen], 1)  # (T, L)
    axis.norms = torch.stack([seen[i][0].norm(dim=-1).mean().cpu() for i in seen])

    def ours():
        # No stop tokens: all do the same number of steps with all of the batch.
        sampling = mx.SamplingParams(max_new_tokens=args.tokens, temperature=0)
        for _ in decode_steps(
            model, prompts, row_noise(0, len(prompts), args.tokens), [], sampling
        ):
            pass

    ways = {
        "minaxis": (ours, nullcontext),
        "minaxis, capped": (ours, lambda: mx.capping(model, axis, percentile=50)),
        "minaxis, steered": (ours, lambda: mx.steering(model, axis, 0.1)),
    }
    try:
        theirs = transformers_model(torch.float32).to(device)
    except ImportError:
        print("transformers is not installed (extra `parity`): ours alone")
    else:
        layers, middle = default_layers(config.num_hidden_layers), config.num_hidden_layers // 2
        blocks, unit = theirs.model.layers, axis.unit().to(device)
        tau = axis.thresholds(50)[layers[0]].item()
        push = 0.1 * axis.norms[middle].item() * unit[middle]
        ids, padding = pad_left(prompts, device)
        mask = torch.ones_like(ids)
        if padding is not None:
            mask = (torch.arange(ids.shape[1], device=device) >= padding[:, None]).long()
        new = args.tokens + 1  # decode reads its last tokens too

        def usual():
            theirs.generate(
                ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False,
                pad_token_id=0,
            )  # fmt: skip

        def floor(h):
            return einsum(h.flatten(0, 1), unit[layers[0]], tau).view_as(h)

        ways["transformers"] = (usual, nullcontext)
        ways["transformers, capped"] = (
            usual, lambda: reference_hooks([blocks[i] for i in layers], floor)
        )  # fmt: skip
        ways["transformers, steered"] = (
            usual, lambda: reference_hooks([blocks[middle]], lambda h: h + push)
        )  # fmt: skip

    seconds = {name: [] for name in ways}
    for turn in range(args.rounds + 1):
        # Every other round backward: who comes later may find a warmer or a slower machine.
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            run, intervention = ways[name]
            with intervention():
                now = clock(run, 1, device)
            if turn:  # the first warms up
                seconds[name].append(now)
    print(f"SmolLM2, batch {len(prompts)}, {args.tokens} tokens, {args.rounds} rounds")
    slower = {}
    for name, found in seconds.items():
        plain = seconds[name.split(",")[0]]
        ratios = sorted(b / a - 1 for a, b in zip(plain, found, strict=True))
        slower[name] = statistics.median(ratios)
        print(
            f"{name:22s} {statistics.median(found):7.3f} s (median)  {slower[name]:+6.1%} "
            f"({ratios[0]:+.1%} to {ratios[-1]:+.1%}) against its own plain"
        )
    # Whole runs vary by more than a cap costs, so count what is spent inside of it, too.
    with mx.capping(model, axis, percentile=50), profile(activities=[ProfilerActivity.CPU]) as seen:
        total = clock(ours, 1, device)
    spent = sum(e.cpu_time_total for e in seen.key_averages() if e.key == "minaxis::cap_") / 1e6
    print(f"inside the operator: {spent * 1e3:.1f} ms of {total:.2f} s, {spent / total:.2%}")
    return {"seconds": seconds, "slower": slower, "inside": spent / total, "tokens": args.tokens}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", type=int, nargs="+", help="default: up to what the device bears")
    parser.add_argument("--widths", type=int, nargs="+")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5, help="turns (default: 5)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--generate", action="store_true", help="a whole model instead")
    parser.add_argument("--tokens", type=int, default=32, help="with --generate (default: 32)")
    parser.add_argument("--out", type=Path, help="write settings and results as JSON")
    args = parser.parse_args()
    device = pick_device(args.device)
    on_gpu = device.type == "cuda"
    args.rows = args.rows or ([1, 32, 128, 4096, 65536] if on_gpu else [1, 32, 128, 3200, 8192])
    args.widths = args.widths or ([576, 4096, 5120, 8192] if on_gpu else [576, 2048, 5120])
    settings = {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "minaxis": mx.__version__,
        "flags": {k: x for k, x in vars(args).items() if k != "out"},
    }
    print(json.dumps(settings))
    with torch.inference_mode():
        results = generation(args, device) if args.generate else operators(args, device)
    if args.out:
        args.out.write_text(json.dumps({"settings": settings, **results}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted")
