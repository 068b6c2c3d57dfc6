"""Conversations from files, placed on an axis: the projection of each turn of the assistant."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minaxis.axis import Axis
from minaxis.loading.transcripts import Transcript, read_turns
from minaxis.model import Transformer
from minaxis.paper.figures import STYLE, load_pyplot
from minaxis.tokenizer import AnyTokenizer


def place(
    model: Transformer,
    tokenizer: AnyTokenizer,
    axis: Axis,
    transcripts: Sequence[Transcript],
    layer: int,
) -> list[dict[str, Any]]:
    """Print the projections of each conversation, and return them in a form for JSON.

    The versions of a conversation stand next to each other.
    """
    print(f"projections at layer {layer}, as {model.config.name} reads each turn of the assistant")
    placed = []
    for transcript in sorted(transcripts, key=lambda t: (t.name, str(t.path.parent), t.version)):
        turns = read_turns(model, tokenizer, axis, transcript, layer)
        numbers = " ".join("      -" if p is None else f"{p:7.1f}" for p in turns)
        print(f"{transcript.name:24s} {transcript.version:8s} {numbers}")
        placed.append(
            {
                "file": str(transcript.path),
                "name": transcript.name,
                "version": transcript.version,
                "model": transcript.model,
                "projections": turns,
            }
        )
    return placed


def draw(placed: Sequence[dict[str, Any]], layer: int, path: Path) -> None:
    """Plot projections by turn. The versions of a conversation have one colour.

    Raises:
        ImportError: matplotlib is missing.
    """
    pyplot = load_pyplot()
    with pyplot.rc_context(STYLE):
        figure, ax = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
        names = list(dict.fromkeys((str(Path(t["file"]).parent), t["name"]) for t in placed))
        for t in placed:
            number = names.index((str(Path(t["file"]).parent), t["name"]))
            heights = [float("nan") if p is None else p for p in t["projections"]]
            ax.plot(
                range(1, len(heights) + 1), heights, color=f"C{number % 10}", marker="o",
                linestyle="--" if t["version"] == "capped" else "-",
                label=f"{t['name']}, {t['version']}",
            )  # fmt: skip
        ax.set(xlabel="turn", ylabel=f"projection on the axis, layer {layer}")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(fontsize=8)
        figure.savefig(path, dpi=160)
        pyplot.close(figure)
