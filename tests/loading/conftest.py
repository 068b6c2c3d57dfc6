"""A small Hugging Face folder, written by hand, and functions that change it."""

import json

import pytest
import torch

from minaxis import Transformer, load
from minaxis.loading.config_json import read_config

LLAMA = {
    "model_type": "llama", "vocab_size": 277, "hidden_size": 24, "intermediate_size": 37,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 96, "rms_norm_eps": 1e-6,
}  # fmt: skip
GEMMA = {
    "sliding_window": 7, "query_pre_attn_scalar": 6, "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": None,
}  # fmt: skip


@pytest.fixture
def config_json():
    """A function that returns the content of a config.json for a model type."""

    def config_json(model_type):
        more = GEMMA if model_type.startswith("gemma") else {}
        if model_type == "gemma3_text":
            more = more | {"attn_logit_softcapping": None}
        return LLAMA | {"model_type": model_type} | more

    return config_json


@pytest.fixture
def folder(tmp_path, byte_tokenizer, write_safetensors):
    """A tiny random Llama in Hugging Face's layout."""
    folder = tmp_path / "tiny-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    model = Transformer(read_config(LLAMA, "config.json", "x")).initialise(
        torch.Generator().manual_seed(0)
    )
    write_safetensors(folder / "model.safetensors", dict(model.named_parameters()))
    (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer[0]))
    (folder / "tokenizer_config.json").write_text(json.dumps(byte_tokenizer[1]))
    return folder


@pytest.fixture(scope="session")
def write_safetensors():
    """A function that writes tensors; `change` edits the header, `pad` makes it longer."""

    def write_safetensors(path, tensors, change=lambda header: None, pad=0):
        header, data = {"__metadata__": {"format": "pt"}}, b""
        for name, t in tensors.items():
            raw = t.detach().contiguous().view(torch.uint8).numpy().tobytes()
            kind = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int32: "I32"}[t.dtype]
            header[name] = {
                "dtype": kind,
                "shape": list(t.shape),
                "data_offsets": [len(data), len(data) + len(raw)],
            }
            data += raw
        change(header)
        text = json.dumps(header).encode() + b" " * pad
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)

    return write_safetensors


@pytest.fixture(scope="session")
def edit_json():
    """A function that changes fields of a JSON file."""

    def edit_json(path, **changes):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit_json


@pytest.fixture(scope="session")
def tensors_of():
    """A function that returns the weights of a folder by name, as `load` reads them."""

    def tensors_of(folder):
        return dict(load(folder, device="cpu")[0].named_parameters())

    return tensors_of
