"""What the three scripts share: how they end, and the arguments that they all take."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from minaxis.distributed import ranks
from minaxis.support.files import write_bytes

Number = int | float
_RANK_HAS_ENDED = "by peer"  # the error of a rank that waits for one whose connection is closed
_MEMORY_IS_FULL = ("allocate memory", "out of memory")  # PyTorch's errors have no kind of their own


def run(main: Callable[[], None], *, over_ranks: bool = False) -> None:
    """Run a script, and end it with one line if it fails or is interrupted.

    Bad input, an unwritable path or a full disk ends it with status 2, and Ctrl-C with status 130.

    Args:
        over_ranks: whether it shares its work with other ranks, if torchrun starts it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ranks.start()
        if ranks.count() > 1 and not over_ranks:
            raise ValueError("this script runs in one process: start it with python, not torchrun")
        main()
        sys.stdout.flush()  # the disk to which it is redirected may be full
    except (ValueError, ImportError, OSError) as e:
        _end(2, f"{sys.argv[0]}: error: {' '.join(str(e).split())}")
    except (MemoryError, RuntimeError) as e:
        if ranks.count() > 1 and _RANK_HAS_ENDED in str(e):
            _end(2, "another rank has ended")
        full = isinstance(e, MemoryError) or any(sign in str(e) for sign in _MEMORY_IS_FULL)
        if not full:
            raise
        _end(2, f"{sys.argv[0]}: error: the memory is full: choose smaller numbers")
    except KeyboardInterrupt:
        _end(130, "\ninterrupted; finished work is kept")
    finally:
        ranks.stop()
        # A script is over now. (Its own handler, for the imports, would not last until its end.)
        by_script = before is not signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN if by_script else before)


def _end(status: int, line: str) -> NoReturn:
    ranks.print_error(line)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try once more, and end with a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


class _Parser(argparse.ArgumentParser):
    """Its errors are a ValueError, which `run` prints in one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """The help text, with the default if there is one to show."""
        if action.default in (None, False, "") or "default:" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def bare_parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser that shows the script's docstring, with the arguments of every script."""
    p = _Parser(description=doc, formatter_class=_Help)
    p.add_argument("--seed", type=number(int, 0, 2**63 - 1), default=0, help="random seed")
    p.add_argument("--device", type=device, default="auto", help="device: auto, cpu, cuda or mps")
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


def check_effect(
    p: argparse.ArgumentParser, args: argparse.Namespace, uses: Mapping[str, str]
) -> None:
    """Refuse two tasks at once, and every option that would have no effect.

    Args:
        uses: an argument that asks for a task -> the names of the options that the task looks at;
            under "" those that are looked at if no task is asked for.
    """

    def written(name: str) -> str:
        return 'messages (as in "Hi")' if name == "messages" else f"--{name.replace('_', '-')}"

    asked = [task for task in uses if task and getattr(args, task)]
    if len(asked) > 1:
        p.error(f"{written(asked[0])} and {written(asked[1])} do not go together: ask for one")
    task = asked[0] if asked else ""
    for name in sorted(set(" ".join(uses.values()).split()) - {*uses[task].split()}):
        if getattr(args, name) != p.get_default(name):
            place = f"with {written(task)}" if task else "here"
            others = [written(t) for t, names in uses.items() if t and name in names.split()]
            hint = f": it is for {', '.join(others)}" if others else ""
            p.error(f"{written(name)} has no effect {place}{hint}")


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


def number(kind: type[int] | type[float], low: Number, high: Number) -> Callable[[str], Number]:
    """A number from `low` to `high`, as a `type` for argparse. NaN is no such number."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {what} from {low} to {high}, got {text!r}")
        return value

    return parse


def check_writable(folder: Path) -> None:
    """Make a folder, and write a file in it: an error now is better than one after the work."""
    file = folder / f".writable.{os.getpid()}"
    write_bytes(file, b"")
    file.unlink()


def device(name: str) -> str:
    """A device, as a `type` for argparse. `pick_device` says whether this machine has it."""
    if name.startswith("meta"):
        raise argparse.ArgumentTypeError(f"{name!r} holds shapes and no numbers")
    return name


def dtype(name: str) -> torch.dtype:
    """The torch dtype with this name, as a `type` for argparse."""
    if name not in ("float32", "bfloat16", "float16"):
        raise argparse.ArgumentTypeError(f"{name!r}: expected float32, bfloat16 or float16")
    value: torch.dtype = getattr(torch, name)
    return value
