"""What the three scripts share: how they end, and the arguments that they all take."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def run(main: Callable[[], None]) -> None:
    """Run a script, and end it with one line if it fails or is interrupted.

    Bad input, an unwritable path or a full disk ends it with status 2, and Ctrl-C with status 130.
    """
    try:
        main()
    except (ValueError, ImportError, OSError) as e:
        print(f"{sys.argv[0]}: error: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted; finished work is kept", file=sys.stderr)
        sys.exit(130)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """The help text, with the default if there is one to show."""
        if action.default in (None, False, "") or "default:" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def bare_parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser that shows the script's docstring, with the arguments of every script."""
    p = argparse.ArgumentParser(description=doc, formatter_class=_Help)
    p.add_argument("--seed", type=int, default=0, help="random seed")
    p.add_argument("--device", default="auto", help="device: auto, cpu, cuda or mps")
    return p


def parser(doc: str) -> argparse.ArgumentParser:
    """`bare_parser` with the arguments of a script that loads a model and samples from it."""
    p = bare_parser(doc)
    p.add_argument(
        "--model", default="tiny", help="model: tiny, smollm2, organisation/name or a path"
    )
    p.add_argument("--download", action="store_true", help="download the model first")
    p.add_argument(
        "--temperature", type=float, default=0.7, help="sampling temperature; 0 is greedy"
    )
    p.add_argument("--top-p", type=float, default=0.9, help="probability mass of nucleus sampling")
    p.add_argument(
        "--dtype",
        type=dtype,
        help="weight dtype: float32, bfloat16 or float16 (default: as stored; float32 on a CPU)",
    )
    return p


def is_tiny(args: argparse.Namespace) -> bool:
    """Whether the model belongs to the tiny world: the embedded one, or a .pt of train_tiny.py."""
    return args.model in ("tiny", "tiny-base") or Path(args.model).suffix == ".pt"


def out(args: argparse.Namespace) -> Path:
    """The folder of a model's results: out/MODEL."""
    path = Path(args.model)
    return Path("out") / (path.stem if path.suffix in (".gguf", ".pt") else path.resolve().name)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments in a form for JSON. Scripts write them beside every result."""
    json_types = (str, int, float, list, type(None))
    return {k: v if isinstance(v, json_types) else str(v) for k, v in vars(args).items()}


def dtype(name: str) -> torch.dtype:
    """The torch dtype with this name, as a `type` for argparse."""
    if name not in ("float32", "bfloat16", "float16"):
        raise argparse.ArgumentTypeError(f"{name!r}: expected float32, bfloat16 or float16")
    value: torch.dtype = getattr(torch, name)
    return value
