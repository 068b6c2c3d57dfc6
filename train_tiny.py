"""Train the tiny model from nothing: first a world of characters, then the Assistant.

    python train_tiny.py                       # 3 minutes on two cores

Pre-training reads stories in which thirty-two characters answer a traveller (minaxis/world.py).
Post-training teaches the model to answer as the Assistant unless it is asked to be someone else.
On the way it is asked the same three things again and again: watch who answers.

Writes to out/tiny/: tiny-base.pt and tiny.pt (`mx.load` reads them), tiny-axis.pt, tiny.json.
Interrupted, the same command continues; finished, it measures again.
"""

import subprocess
import time
import zlib
from pathlib import Path
from random import Random

import torch

import minaxis as mx
from minaxis.loading.models import pick_device
from minaxis.support import arguments as cli
from minaxis.support.files import write_json
from minaxis.tiny import training as train
from minaxis.tiny.checkpoint import read_info, save
from minaxis.tiny.questions import answer
from minaxis.tiny.scorecard import BOUNDS, measure, summary
from minaxis.tiny.world import WORDS, World

WATCHED = [
    ("You are the ghost.", "How do I brew tea?"),
    ("", "What is 42 plus 7?"),
    ("", "What are you?"),
]


def arguments():
    p = cli.bare_parser(__doc__)
    add = p.add_argument
    add("--out", type=Path, default=Path("out/tiny"), help="folder")
    add("--layers", type=int, default=4, help="blocks")
    add("--width", type=int, default=128, help="of the residual stream")
    add("--heads", type=int, default=4, help="of attention")
    add("--vocabulary", type=int, default=1280, help="tokens")
    add("--pre-tokens", type=float, default=1.2e6, help="of stories")
    add("--post-tokens", type=float, default=0.4e6, help="of lessons and replay")
    add("--batch-tokens", type=int, default=1800, help="a step")
    add("--uncorrelated", action="store_true", help="the control world, see World")
    return p.parse_args()


def main():
    args, started = arguments(), time.monotonic()
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "device")}
    # An edited world is another run: its text has other words, and so other tokens.
    settings["world"] = zlib.crc32(WORDS.read_bytes())
    world, rng = World(correlated=not args.uncorrelated), Random(args.seed)
    tokenizer = train.world_tokenizer(world, args.vocabulary, rng)
    phases = train.phases(
        world, tokenizer, args.pre_tokens, args.post_tokens, args.batch_tokens, rng
    )
    config = mx.Config(
        vocab_size=tokenizer.vocab_size,
        hidden_size=args.width,
        intermediate_size=args.width * 5 // 2,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        head_dim=args.width // args.heads,
        max_position_embeddings=1024,
        name=args.out.resolve().name,  # axes know it, and are refused by another folder's model
    )
    model = mx.Transformer(config).initialise(torch.Generator().manual_seed(args.seed))
    model.to(pick_device(args.device))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, to {args.out}/")

    for phase in phases:
        path = args.out / f"{phase.name}.pt"
        if not finished(path, settings):
            learn(model, tokenizer, phase, settings, args)
        model, tokenizer = mx.load(path, device=args.device)  # as everyone else will read it

    base, _ = mx.load(args.out / "tiny-base.pt", device=args.device)
    report, axis = measure(model, base, tokenizer, world, args.seed)
    rows = summary(report)
    info = read_info(path) | {"metrics": rows}
    save(path, model, tokenizer, info)
    axis.save(args.out / "tiny-axis.pt")
    report = {**info, "seconds": round(time.monotonic() - started, 1), "report": report}
    write_json(args.out / "tiny.json", report)
    print_rows(rows)
    print(f"{args.out}/tiny.pt, tiny-base.pt, tiny-axis.pt, tiny.json: {report['seconds']:.0f} s")


def finished(path, settings):
    if not path.is_file():
        return False
    if read_info(path)["settings"] != settings:
        raise ValueError(
            f"{path} was made by other settings, or of another world: choose another --out, "
            "or delete it"
        )
    return True


def learn(model, tokenizer, phase, settings, args):
    def watch(step, steps):
        chats = [
            [{"role": "system", "content": system}, {"role": "user", "content": question}]
            for system, question in WATCHED
        ]
        model.eval()
        texts, _ = answer(model, tokenizer, chats, args.seed)
        model.train()
        print(f"\n{phase.name}, step {step} of {steps}")
        for (system, question), text in zip(WATCHED, texts, strict=True):
            print(f"  {system or '(nobody)':18s} {question:20s} {text}")

    train.learn(model, phase, settings, args.out / "resume.pt", watch)
    info = {
        "settings": settings,
        "validation loss": train.validation(model, phase.held_out),
        "versions": {"minaxis": mx.__version__, "torch": str(torch.__version__)},
        "commit": commit(),
    }
    save(args.out / f"{phase.name}.pt", model, tokenizer, info)
    print(f"{phase.name}: validation loss {info['validation loss']:.3f}\n")


def commit():
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        cwd=Path(__file__).parent, capture_output=True, text=True,
    )  # fmt: skip
    return found.stdout.strip() or "unknown"


def print_rows(rows):
    for name, value in rows.items():
        low, high = BOUNDS.get(name, (None, None))
        bound = f"above {low}" if low is not None else f"below {high}" if high is not None else ""
        print(f"{name:55s} {value:7.3f}   {bound}")


if __name__ == "__main__":
    cli.run(main)
