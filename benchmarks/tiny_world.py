"""The table of the tiny world, for several training seeds and two controls.

    python benchmarks/tiny_world.py            # 10 minutes on two cores

`train_tiny.py` trains each model that is not yet in the folder, and measures it. The controls are a
model with random weights, and a model of a world in which any topic is asked of any character.

Writes to out/tiny-world/: report.json, and a folder for each model.
"""

import argparse
import platform
import subprocess
import sys
from pathlib import Path

import torch

import minaxis as mx
from minaxis.support import arguments as cli
from minaxis.support.files import read_json, write_json
from minaxis.tiny.scorecard import BOUNDS, measure, summary
from minaxis.tiny.world import World

ROOT = Path(__file__).parents[1]


def arguments() -> argparse.Namespace:
    p = cli.bare_parser(__doc__)
    seeds, out = [0, 1, 2], Path("out/tiny-world")
    p.add_argument("--seeds", type=int, nargs="+", default=seeds, help="random seeds of training")
    p.add_argument("--out", type=Path, default=out, help="output folder")
    return p.parse_args()


def main() -> None:
    args = arguments()
    runs = {f"seed {s}": ["--seed", str(s)] for s in args.seeds}
    runs["uncorrelated"] = ["--seed", str(args.seeds[0]), "--uncorrelated"]
    columns, details = {}, {}
    for name, flags in runs.items():
        folder = args.out / name.replace(" ", "-")
        command = [sys.executable, ROOT / "train_tiny.py", "--out", folder, *flags]
        subprocess.run([*command, "--device", args.device], check=True)
        details[name] = read_json(folder / "tiny.json")
        columns[name] = details[name]["metrics"]
    model, tokenizer = mx.load(args.out / f"seed-{args.seeds[0]}" / "tiny.pt", device=args.device)
    assert isinstance(tokenizer, mx.Tokenizer)  # train_tiny.py writes no other
    model.initialise(torch.Generator().manual_seed(args.seeds[0]))
    report, _ = measure(model, model, tokenizer, World(), args.seeds[0])
    columns["random weights"] = summary(report)

    width = max(map(len, columns["random weights"]))
    print(f"{'metric':{width}s}{'bound':>8s}" + "".join(f"{name:>16s}" for name in columns))
    for row in columns["random weights"]:
        low, high = BOUNDS.get(row, (None, None))
        bound = f"> {low}" if low is not None else f"< {high}" if high is not None else ""
        values = "".join(f"{metrics[row]:16.3f}" for metrics in columns.values())
        print(f"{row:{width}s}{bound:>8s}{values}")
    machine = {"platform": platform.platform(), "threads": torch.get_num_threads()}
    path = args.out / "report.json"
    write_json(path, {"machine": machine, "bounds": BOUNDS, "columns": columns, "runs": details})
    print(f"\nWrote {path}")


if __name__ == "__main__":
    cli.run(main)
