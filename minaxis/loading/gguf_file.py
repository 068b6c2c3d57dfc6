"""A GGUF file (llama.cpp's format): the whole model in one file, or in several shards.

    its header: fields and tensors          gguf_header.py
    the fields of the model, to a config    gguf_config.py
    the tensors, dequantised                gguf_weights.py
    the fields of the tokenizer             gguf_tokenizer.py

All of it is downloaded data. Nothing is executed, and everything but the weights is checked before
the first weight is read.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from minaxis.loading.gguf_config import Fields, gguf_config
from minaxis.loading.gguf_header import Stored, read_header
from minaxis.loading.gguf_tokenizer import gguf_tokenizer
from minaxis.loading.gguf_weights import check_tensors, read_weights
from minaxis.model import Config
from minaxis.tokenizer import AnyTokenizer

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})")  # the shards of a model end so


def read_gguf(
    path: Path, dtype: torch.dtype = torch.float32
) -> tuple[Config, Iterator[tuple[str, Tensor]], AnyTokenizer]:
    """A model's config, its weights one tensor at a time, and its tokenizer.

    Args:
        path: the file, or any of its shards.
        dtype: the dtype of the weights.

    Returns:
        The config; (Hugging Face's name, tensor) pairs; the tokenizer.

    Raises:
        ValueError: a damaged file, or a kind of model that minaxis does not have.
        ImportError: the package gguf is needed and is not installed.
    """
    try:
        import gguf  # noqa: F401 (the other files need it)
    except ImportError:
        raise ImportError(
            "reading a .gguf file needs the package gguf: pip install 'minaxis[open]'"
        ) from None
    fields, tensors = _read_shards(path)
    architecture = fields.text("general.architecture")
    config = gguf_config(fields, tensors, _model_name(path))
    weights = [t for t in tensors.values() if t.name != "rope_freqs.weight"]  # the config has that
    check_tensors(weights, architecture)
    tokenizer = gguf_tokenizer(fields, config.vocab_size)
    return config, read_weights(weights, architecture, config.head_dim, dtype), tokenizer


def _read_shards(path: Path) -> tuple[Fields, dict[str, Stored]]:
    """The fields, which the first shard has, and the tensors of all shards."""
    shard = _SHARD.fullmatch(path.stem)
    count = int(shard[3]) if shard else 1
    if not 1 <= count <= 1000:
        raise ValueError(f"{path}: a model of {count} shards, expected 1 to 1000")
    paths = [path]
    if shard:
        paths = [path.with_name(f"{shard[1]}-{i + 1:05}-of-{shard[3]}.gguf") for i in range(count)]
    first: Fields | None = None
    tensors: dict[str, Stored] = {}
    for number, part in enumerate(paths):
        if not part.is_file():
            raise ValueError(f"{part}: this shard is missing, but {path.name} is one of {count}")
        read, stored = read_header(part)
        fields = Fields(read, part)
        says = fields.whole("split.count", 1) if "split.count" in read else 1
        if says != count or (shard and fields.whole("split.no", 0) != number):
            raise ValueError(
                f"{part}: split.count is {says} and split.no {read.get('split.no', 0)!r}, expected "
                f"{count} and {number} from the file's name (NAME-00001-of-00003.gguf)"
            )
        if twice := next((t.name for t in stored if t.name in tensors), None):
            raise ValueError(f"{part}: the tensor {twice} is in another shard, too")
        tensors |= {t.name: t for t in stored}
        first = first or fields
    assert first is not None
    if shard and first.whole("split.tensors.count", len(tensors)) != len(tensors):
        raise ValueError(
            f"{path}: split.tensors.count is {first.data['split.tensors.count']}, but the shards "
            f"have {len(tensors)} tensors"
        )
    return first, tensors


def _model_name(path: Path) -> str:
    """The name without shard and quantisation: "SmolLM2-135M-Instruct.Q4_1" loses ".Q4_1"."""
    shard = _SHARD.fullmatch(path.stem)
    stem = shard[1] if shard else path.stem
    kinds = r"(i1-|UD-)?([IT]?Q\d\w*|MXFP4\w*|B?F16|FP16|FP?32)"
    return re.sub(rf"[.-]{kinds}$", "", stem, flags=re.IGNORECASE) or stem
