"""A Hugging Face folder: what each of its files contains.

    config.json                     the config of the model              config_json.py
    *.safetensors                   the weights, in one file or many     safetensors.py
    model.safetensors.index.json    the file of each tensor
    tokenizer.json                  the vocabulary                       tokenizer_json.py
    tokenizer_config.json           the special tokens of a chat, and the chat template
    chat_template.jinja             the chat template, in newer folders
    generation_config.json          the tokens that end a turn

All of this is downloaded data. Nothing in it is executed, and every number is checked before use.
A setting that changes what the model computes, and that minaxis does not compute, is an error.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minaxis.loading.config_json import read_config
from minaxis.loading.safetensors import read_safetensors
from minaxis.loading.tokenizer_json import read_tokenizer_json
from minaxis.model import Config
from minaxis.support.files import read_json, read_text
from minaxis.support.schema import Whole, show
from minaxis.tokenizer import AnyTokenizer

# What we read of each file; all of them have more keys.
_DTYPE = ("float32", "float16", "bfloat16", None)
_ID = Whole(0, 2**28)
CONFIG = {"dtype?": _DTYPE, "torch_dtype?": _DTYPE, str: object}  # config_json.py checks the rest
STOP = {"eos_token_id?": (None, _ID, [_ID]), str: object}
_TOKEN = (None, str, {"content": str, str: object})
TOKENIZER_CONFIG = {
    "bos_token?": _TOKEN,
    "eos_token?": _TOKEN,
    "chat_template?": (None, str, [{"name": str, "template": str, str: object}]),
    str: object,
}
INDEX = {"weight_map": {str: str}, str: object}


def read_folder(
    folder: Path, name: str
) -> tuple[Config, Iterator[tuple[str, Tensor]], torch.dtype]:
    """A model's config, its weights one tensor at a time, and the dtype in which they are stored.

    Args:
        name: the model's name in the config.

    Returns:
        The config; (name, tensor) pairs in the stored dtype; this dtype.

    Raises:
        ValueError: a file that is missing, is damaged or contradicts another, or a model that
            minaxis does not have.
    """
    path = folder / "config.json"
    data = read_json(path, CONFIG)
    config = read_config(data, path, name)
    stored = data.get("dtype") or data.get("torch_dtype") or "float32"
    tensors = (
        (name, tensor)
        for path, names in _shards(folder).items()
        for name, tensor in read_safetensors(path, names)
        # If the two matrices are tied, lm_head.weight is a copy. Old files have inv_freq, too.
        if not (name == "lm_head.weight" and config.tie_word_embeddings)
        and not name.endswith("rotary_emb.inv_freq")
    )
    return config, tensors, getattr(torch, stored)


def read_tokenizer(folder: Path, *, vocab_size: int | None = None) -> AnyTokenizer:
    """The tokenizer of a folder, with its chat template and the tokens that end a turn.

    Args:
        vocab_size: the model's vocabulary size, which may be larger than the tokenizer's, but not
            smaller.

    Raises:
        ValueError: a file that is missing or malformed, or a part that minaxis does not have.
        ImportError: the package tokenizers is needed and is not installed.
    """
    path = folder / "tokenizer.json"
    settings = folder / "tokenizer_config.json"
    config = read_json(settings, TOKENIZER_CONFIG) if settings.is_file() else {}
    eos = _token(config.get("eos_token"))

    # Several tokens may end a turn. generation_config.json comes before the other files.
    stop = None
    for file in ("generation_config.json", "config.json"):
        if stop is None and (folder / file).is_file():
            stop = read_json(folder / file, STOP).get("eos_token_id")
    if stop is None:
        stop = [] if eos is None else [eos]
    tokenizer = read_tokenizer_json(
        read_json(path),
        str(path),
        chat_template=_template(folder, config),
        stop=stop if isinstance(stop, list) else [stop],
        bos=_token(config.get("bos_token")),
        eos=eos,
    )
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"{path}: the vocabulary has {tokenizer.vocab_size} tokens, but the weights are for "
            f"{vocab_size}"
        )
    return tokenizer


def _shards(folder: Path) -> Mapping[Path, list[str] | None]:
    """Each file with weights -> the names of the tensors to read from it; None reads all."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        path = folder / "model.safetensors"
        if not path.is_file():
            pickled = ", ".join(sorted(p.name for p in folder.glob("*.bin")))
            raise ValueError(
                f"{folder}: no model.safetensors and no model.safetensors.index.json"
                + (f"; pickled weights ({pickled}) can hold code and are not read" * bool(pickled))
            )
        return {path: None}
    names = read_json(index, INDEX)["weight_map"]
    if not names:
        raise ValueError(f"{index}: expected a weight_map from tensor names to files")
    shards: dict[Path, list[str]] = {}
    for name, file in names.items():
        # A plain file name, so that an index cannot lead out of its folder.
        if Path(file).name != file or "\\" in file or "\0" in file:
            raise ValueError(
                f"{index}: tensor {show(name)} is said to be in {show(file)}, "
                "expected the name of a file in this folder"
            )
        shards.setdefault(folder / file, []).append(name)
    for path in shards:
        if not path.is_file():
            raise ValueError(f"{path}: this file is missing, but {index.name} names it")
    return shards


def _token(value: Any) -> str | None:
    """The string of a token in tokenizer_config.json: alone, or the "content" of an object."""
    token: str | None = value.get("content") if isinstance(value, dict) else value
    return token


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    """The chat template: in a file of its own or in tokenizer_config.json, alone or in a list."""
    if (file := folder / "chat_template.jinja").is_file():
        return read_text(file)
    template: str | list[dict[str, str]] | None = config.get("chat_template")
    if isinstance(template, list):
        return {t["name"]: t["template"] for t in template}.get("default")
    return template
