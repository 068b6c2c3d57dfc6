"""What the three scripts share: how they end, and the arguments that they all have."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch


def run(main: Callable[[], None]) -> None:
    """Run a script: bad input ends with one line and status 2, Ctrl-C with one line and 130."""
    try:
        main()
    except (ValueError, ImportError) as e:
        print(f"{sys.argv[0]}: error: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def bare_parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser that shows the script's docstring, with a seed and a device."""
    p = argparse.ArgumentParser(description=doc, formatter_class=_Help)
    p.add_argument("--seed", type=int, default=0, help="of every random choice")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    return p


def parser(doc: str) -> argparse.ArgumentParser:
    """As `bare_parser`, with what a script needs that asks a model something."""
    p = bare_parser(doc)
    p.add_argument("--model", default="tiny", help="tiny, smollm2, organisation/name, or a path")
    p.add_argument("--download", action="store_true", help="organisation/name, if it is not here")
    p.add_argument("--temperature", type=float, default=0.7, help="of sampling; 0 is greedy")
    p.add_argument("--top-p", type=float, default=0.9, help="of nucleus sampling")
    p.add_argument("--dtype", type=dtype, help="float32, bfloat16, float16; None is as stored")
    return p


def is_tiny(args: argparse.Namespace) -> bool:
    """Is the model one of the tiny world, the embedded one or a .pt of train_tiny.py?"""
    return args.model in ("tiny", "tiny-base") or Path(args.model).suffix == ".pt"


def out(args: argparse.Namespace) -> Path:
    """Where a model's results are: out/MODEL."""
    path = Path(args.model)
    return Path("out") / (path.stem if path.suffix in (".gguf", ".pt") else path.resolve().name)


def settings(args: argparse.Namespace) -> dict:
    """The arguments as JSON takes them, to be written beside every result."""
    plain = (str, int, float, list, type(None))
    return {k: v if isinstance(v, plain) else str(v) for k, v in vars(args).items()}


def dtype(name: str) -> torch.dtype:
    """A torch dtype by its name, for argparse."""
    if name not in ("float32", "bfloat16", "float16"):
        raise argparse.ArgumentTypeError(f"{name!r}: expected float32, bfloat16 or float16")
    return getattr(torch, name)
