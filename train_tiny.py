"""Train the tiny model from random weights: first on stories, then as the Assistant.

    python train_tiny.py                       # 2 minutes on two cores
    torchrun --nproc-per-node 4 train_tiny.py  # four processes share every batch

Pre-training reads stories in which thirty-two characters answer a traveller; they are written by
minaxis/tiny/world.py. Post-training teaches the model to answer as the Assistant unless a system
prompt names a character. During training the model answers the same three questions again and
again: watch who speaks.

Writes to out/tiny/: tiny-base.pt and tiny.pt (`mx.load` reads them), tiny-axis.pt, tiny.json.
After an interruption, the same command continues. Once both models are trained, it only measures.
"""

import argparse
import os
import signal
import subprocess
import time
import zlib
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

if __name__ == "__main__":  # an interrupt ends the imports, which take seconds, without a word
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import torch

import minaxis as mx
from minaxis.distributed import ranks
from minaxis.loading.models import pick_device
from minaxis.support import arguments as cli
from minaxis.support.files import write_json
from minaxis.tiny.checkpoint import read_info, save_checkpoint
from minaxis.tiny.documents import train_tokenizer
from minaxis.tiny.phases import Phase, make_phases
from minaxis.tiny.questions import answer
from minaxis.tiny.scorecard import BOUNDS, measure, summary
from minaxis.tiny.training import train_phase, validation_loss
from minaxis.tiny.world import WORLD_FILE, World

WATCHED = [  # system prompt, question
    ("You are the ghost.", "How do I brew tea?"),
    ("", "What is 42 plus 7?"),
    ("", "What are you?"),
]


def arguments() -> argparse.Namespace:
    p = cli.bare_parser(__doc__)
    add = p.add_argument
    add("--out", type=Path, default=Path("out/tiny"), help="output folder")
    count, tokens = cli.number(int, 1, 10**6), cli.number(float, 1, 1e12)
    add("--layers", type=cli.number(int, 2, 10**6), default=4, help="number of blocks")
    add("--width", type=count, default=128, help="residual-stream width")
    add("--heads", type=count, default=4, help="attention heads in each block")
    add("--vocabulary", type=cli.number(int, 260, 65536), default=1280,
        help="vocabulary size in tokens")  # fmt: skip
    add("--pre-tokens", type=tokens, default=1.2e6, help="tokens of stories in pre-training")
    add("--post-tokens", type=tokens, default=0.4e6, help="tokens of lessons and replayed stories")
    add("--batch-tokens", type=count, default=1800, help="tokens in each training batch")
    add("--uncorrelated", action="store_true", help="control world: any topic for any character")
    args = p.parse_args()
    if args.width // args.heads % 2 or args.width < args.heads:
        p.error(f"--width / --heads must be even, got {args.width} / {args.heads}")
    return args


def main() -> None:
    args, started = arguments(), time.monotonic()
    ranks.check_same(vars(args))
    device = pick_device(args.device)
    if ranks.rank() == 0:
        cli.check_writable(args.out)
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "device")}
    # Training on an edited world is another run: its texts, and so its tokenizer, differ.
    settings["world"] = zlib.crc32(WORLD_FILE.read_bytes())
    world, rng = World(correlated=not args.uncorrelated), Random(args.seed)
    tokenizer = train_tokenizer(world, args.vocabulary, rng)
    phases = make_phases(
        world,
        tokenizer,
        pre_tokens=args.pre_tokens,
        post_tokens=args.post_tokens,
        batch_tokens=args.batch_tokens,
        rng=rng,
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
        name=args.out.resolve().name,  # an axis keeps it, and works with no model of another name
    )
    model = mx.Transformer(config).initialise(torch.Generator().manual_seed(args.seed))
    model.to(device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters; output folder {args.out}/")

    for phase in phases:
        path = args.out / f"{phase.name}.pt"
        if not is_trained(path, settings):
            train_and_save(model, tokenizer, phase, settings, args)
            ranks.wait()
        model, loaded = mx.load(path, device=args.device)  # the next phase starts from float16
        assert isinstance(loaded, mx.Tokenizer)  # save_checkpoint writes no other
        tokenizer = loaded
    if ranks.rank():
        return
    ranks.stop()  # rank 0 measures on its own
    (args.out / "resume.pt").unlink(missing_ok=True)

    base, _ = mx.load(args.out / "tiny-base.pt", device=args.device)
    report, axis = measure(model, base, tokenizer, world, args.seed)
    metrics = summary(report)
    info = read_info(path) | {"metrics": metrics}
    save_checkpoint(path, model, tokenizer, info)
    axis.save(args.out / "tiny-axis.pt")
    seconds = round(time.monotonic() - started, 1)
    write_json(args.out / "tiny.json", {**info, "seconds": seconds, "report": asdict(report)})
    print_metrics(metrics)
    print(f"\nWrote tiny.pt, tiny-base.pt, tiny-axis.pt and tiny.json to {args.out}/", end=" ")
    print(f"after {seconds:.0f} seconds")


def is_trained(path: Path, settings: dict[str, Any]) -> bool:
    """Does the checkpoint of a finished phase exist? A checkpoint of another run is an error."""
    if not path.is_file():
        return False
    if read_info(path)["settings"] != settings:
        raise ValueError(
            f"{path} was trained with other settings or on another world: choose another --out, "
            "or delete it"
        )
    return True


def train_and_save(
    model: mx.Transformer,
    tokenizer: mx.Tokenizer,
    phase: Phase,
    settings: dict[str, Any],
    args: argparse.Namespace,
) -> None:
    """Train through a phase, printing replies on the way, and write its checkpoint."""

    def watch(step: int, steps: int) -> None:
        chats = [
            [{"role": "system", "content": system}, {"role": "user", "content": question}]
            for system, question in WATCHED
        ]
        model.eval()
        replies, _ = answer(model, tokenizer, chats, args.seed)
        model.train()
        print(f"\n{phase.name}, step {step} of {steps}")
        for (system, question), reply in zip(WATCHED, replies, strict=True):
            print(f"  {system or '(no system prompt)':18s}  {question:18s}  {reply}")

    file = args.out / "resume.pt"
    train_phase(model, phase, settings=settings, file=file, watch=watch)
    if ranks.rank():
        return  # rank 0 writes
    info = {
        "settings": settings,
        "validation loss": validation_loss(model, phase.held_out),
        "versions": {"minaxis": mx.__version__, "torch": str(torch.__version__)},
        "commit": commit(),
    }
    save_checkpoint(args.out / f"{phase.name}.pt", model, tokenizer, info)
    print(f"{phase.name}: validation loss {info['validation loss']:.3f} nats per token\n")


def commit() -> str:
    """The commit of this code, with a mark if files have changed since."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        cwd=Path(__file__).parent, capture_output=True, text=True,
    )  # fmt: skip
    return described.stdout.strip() or "unknown"


def print_metrics(metrics: dict[str, float]) -> None:
    """Print the table of metrics with their bounds."""
    width = max(map(len, metrics))
    print(f"{'metric':{width}s}  {'value':>7s}   bound")
    for name, value in metrics.items():
        low, high = BOUNDS.get(name, (None, None))
        bound = f"above {low}" if low is not None else f"below {high}" if high is not None else ""
        print(f"{name:{width}s}  {value:7.3f}   {bound}".rstrip())


if __name__ == "__main__":
    cli.run(main, over_ranks=True)
