"""Read or edit the residual stream of any decoder, with ordinary forward hooks.

    with capture(model, layers=[14]) as seen:
        model(ids)
    seen[14]  # (B, T, D): what block 14 returned, counted from 0

    with edit(model, {14: lambda h: h + vector}):
        model(ids)  # block 15 reads the edited stream

Both work on minaxis's `Transformer` and on any module whose decoder blocks can be found, Hugging
Face's included. They run in order of registration, so a `capture` inside a `with edit` sees the
edited stream. On leaving the `with`, however that happens, exactly these hooks are removed.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

# Where the decoder blocks live: Llama-like models, GPT-2, GPT-NeoX, OPT, vision-language models.
_PATHS = ("model.layers", "transformer.h", "gpt_neox.layers", "model.decoder.layers",
          "model.language_model.layers", "layers")  # fmt: skip


def find_blocks(model: nn.Module) -> Sequence[nn.Module]:
    """The list of a model's decoder blocks, first to last.

    Raises:
        ValueError: no list of blocks where the common architectures keep it.
    """
    for path in _PATHS:
        blocks: object = model
        for name in path.split("."):
            blocks = getattr(blocks, name, None)
        if isinstance(blocks, nn.ModuleList) and len(blocks):
            return list(blocks)
    raise ValueError(
        f"no list of decoder blocks found in {type(model).__name__} (looked for "
        f"{', '.join(_PATHS)}): pass it yourself, for example blocks=model.backbone.layers"
    )


def describe(model: nn.Module) -> tuple[str, int, int]:
    """(name, number of layers, width) of a model, ours or Hugging Face's."""
    config: Any = model.config
    if hasattr(config, "get_text_config"):  # of a model that also sees or hears
        config = config.get_text_config()
    # transformers keeps the path or "organisation/name" that a model was loaded from.
    name = getattr(config, "name", None) or getattr(model.config, "_name_or_path", "")
    name = str(name).rstrip("/").rsplit("/", 1)[-1] or "unnamed"
    return name, config.num_hidden_layers, config.hidden_size


def check_layers(layers: Iterable[int], count: int) -> list[int]:
    """The layers as a list, or a ValueError that names the first one out of range."""
    if isinstance(layers, int):
        raise ValueError(f"layers must be a list of layer numbers, got {layers}")
    layers = list(layers)
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < count:
            raise ValueError(
                f"layer {layer!r} is out of range: this model has {count} layers (0 to {count - 1})"
            )
    return layers


@contextmanager
def edit(
    model: nn.Module,
    functions: Mapping[int, Callable[[Tensor], Tensor | None]],
    *,
    blocks: Sequence[nn.Module] | None = None,
) -> Iterator[None]:
    """Replace each chosen block's output by a function of that output, at every token.

    Args:
        functions: layer -> function from the block's output (B, T, D) to the edited (B, T, D),
            or to None, which leaves the output as it is.
        blocks: the decoder blocks, where `find_blocks` does not know the architecture.

    Raises:
        ValueError: a layer out of range, no blocks found, or another thread is inside a `with` on
            this model; no hook is left then.
    """
    chosen = find_blocks(model) if blocks is None else blocks
    check_layers(functions, len(chosen))

    with ExitStack() as stack:
        # Compiled code does not notice hooks that come or go: torch.compile must compile again.
        stack.callback(_forget_compiled_code)
        for layer, function in functions.items():
            handle = chosen[layer].register_forward_hook(_Hook(function))
            stack.callback(handle.remove)
        hooks = [hook for block in chosen for hook in list(block._forward_hooks.values())]
        if any(isinstance(hook, _Hook) and hook.thread != get_ident() for hook in hooks):
            raise ValueError(
                "another thread is inside a `with` on this model, and both would see both "
                "interventions: let one finish first, or give each thread its own model"
            )
        _forget_compiled_code()
        yield


class _Hook:
    """A forward hook that replaces a block's output, and knows the thread that registered it."""

    def __init__(self, function: Callable[[Tensor], Tensor | None]) -> None:
        self.function, self.thread = function, get_ident()

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        # Some architectures return (hidden states, attention weights, ...).
        h = output[0] if isinstance(output, tuple) else output
        edited = self.function(h)
        if edited is None:
            return None
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    def __reduce__(self) -> NoReturn:
        """What copy.deepcopy and pickle call."""
        raise ValueError(
            "this model is inside a `with` of edit, capture, steering or capping, and a copy would "
            "keep the hook for ever: copy it before or after the `with`"
        )


def _forget_compiled_code() -> None:
    if "torch._dynamo" in sys.modules:  # else nothing was compiled, and importing it takes seconds
        torch.compiler.reset()


@contextmanager
def capture(
    model: nn.Module,
    layers: Iterable[int] | None = None,
    *,
    blocks: Sequence[nn.Module] | None = None,
) -> Iterator[dict[int, Tensor]]:
    """Keep copies of blocks' outputs. Yields a dict that each forward pass overwrites.

    Args:
        layers: which blocks; all by default.
        blocks: as for `edit`.

    Yields:
        layer -> residual stream after that block, (B, T, D), of the latest forward pass. It is a
        copy: an intervention that works in place cannot change what was seen before it.

    Raises:
        ValueError: a layer out of range, or no blocks found.
    """
    chosen = find_blocks(model) if blocks is None else blocks
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[[Tensor], None]:
        def keep_copy(h: Tensor) -> None:
            seen[layer] = h.clone()

        return keep_copy

    layers = range(len(chosen)) if layers is None else check_layers(layers, len(chosen))
    with edit(model, {layer: keep(layer) for layer in layers}, blocks=chosen):
        yield seen
