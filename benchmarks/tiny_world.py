"""The tiny world's table: every claim about it, on several seeds, beside its controls.

    python benchmarks/tiny_world.py            # 13 minutes on two cores

Trains with `train_tiny.py` what is not yet in the folder, and measures. The controls: a model with
random weights, and a world in which who speaks does not decide what is talked about.

Writes to out/tiny-world/: report.json, and a folder a model.
"""

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


def arguments():
    p = cli.bare_parser(__doc__)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training")
    p.add_argument("--out", type=Path, default=Path("out/tiny-world"), help="folder")
    return p.parse_args()


def main():
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
    model.initialise(torch.Generator().manual_seed(args.seeds[0]))
    columns["random weights"] = summary(measure(model, model, tokenizer, World(), args.seeds[0])[0])

    print(f"{'':57s}{'bound':>7s}" + "".join(f"{name:>15s}" for name in columns))
    for row in columns["random weights"]:
        low, high = BOUNDS.get(row, (None, None))
        bound = f"> {low}" if low is not None else f"< {high}" if high is not None else ""
        print(f"{row:57s}{bound:>7s}" + "".join(f"{c[row]:15.3f}" for c in columns.values()))
    machine = {"platform": platform.platform(), "threads": torch.get_num_threads()}
    write_json(
        args.out / "report.json",
        {"machine": machine, "bounds": BOUNDS, "columns": columns, "runs": details},
    )
    print(f"{args.out}/report.json")


if __name__ == "__main__":
    cli.run(main)
