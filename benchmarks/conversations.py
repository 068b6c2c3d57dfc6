"""What the memory of conversations saves: eight turns, with and without it, in turns.

    python benchmarks/conversations.py             # 2 minutes on one thread

192 conversations of the tiny model (see `TinyLab.run_conversations`), without an intervention and
under the cap. Prints processor seconds (medians of the rounds), and how many times as long it takes
without the memory (median of the paired ratios, and their range). The replies must be the same.
"""

import argparse
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

import minaxis as mx
from minaxis.fast.install import install
from minaxis.loading.models import find
from minaxis.support import arguments as cli
from minaxis.support.files import write_json
from minaxis.tiny.lab import TinyLab
from minaxis.tiny.world import World

SUBJECTS = ("feelings", "selfhood", "feelings", "selfhood", "arithmetic", "howto")


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    p.add_argument("--turns", type=int, default=8, help="turns of a conversation (default: 8)")
    p.add_argument("--each", type=int, default=32, help="conversations a subject (default: 32)")
    p.add_argument("--out", type=Path, default=Path("out/benchmarks/conversations.json"))
    args = p.parse_args()
    torch.set_num_threads(1)  # as cap_demo.py does for the tiny model
    model, tokenizer = mx.load("tiny", device="cpu")
    axis = mx.Axis.load(find("tiny").with_name("tiny-axis.pt"))
    lab = TinyLab(model=model, tokenizer=tokenizer, axis=axis, world=World())
    results = {}
    for name in ("baseline", "capped"):
        seconds: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(args.rounds):
            replies = {}
            for variant, times in seconds.items():
                context: AbstractContextManager[None] = nullcontext()
                if name == "capped":
                    context = lab.capped()
                if variant == "without":  # `remembering` leaves a model without this twin alone
                    del model.fast_prepare
                begin = time.process_time()
                with context:
                    replies[variant] = lab.run_conversations(
                        SUBJECTS, each=args.each, turns=args.turns
                    ).replies
                times.append(time.process_time() - begin)
                install(model)
            if replies["with"] != replies["without"]:
                raise SystemExit("the replies differ")
        ratios = sorted(b / a for a, b in zip(seconds["with"], seconds["without"], strict=True))
        medians = {variant: statistics.median(times) for variant, times in seconds.items()}
        print(
            f"{name}: {medians['with']:.1f} s with the memory, {medians['without']:.1f} s without: "
            f"{statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )
        results[name] = {"seconds": seconds, "ratios": ratios}
    write_json(args.out, {"settings": {**vars(args), "out": str(args.out)}, "results": results})


if __name__ == "__main__":
    cli.run(main)
