"""Hugging Face folders: what is read from them, and what is refused."""

import json

import pytest
import torch

from minaxis import Transformer, load, load_tokenizer
from minaxis.loading.folder import read_config

LLAMA = {
    "model_type": "llama", "vocab_size": 277, "hidden_size": 24, "intermediate_size": 37,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 96, "rms_norm_eps": 1e-6,
}  # fmt: skip
GEMMA = LLAMA | {
    "model_type": "gemma2", "sliding_window": 7, "query_pre_attn_scalar": 6,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": None,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, byte_tokenizer):
    """A tiny random Llama in Hugging Face's layout, written by hand."""
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


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def tensors_of(folder):
    return dict(load(folder, device="cpu")[0].named_parameters())


@pytest.mark.parametrize("pad", range(8))
def test_tensors_at_any_offset_are_read(folder, pad):
    """A header of odd length puts numbers where no number may begin."""
    before = tensors_of(folder)
    for kind in (torch.float32, torch.bfloat16):
        stored = {name: t.to(kind) for name, t in before.items()}
        write_safetensors(folder / "model.safetensors", stored, pad=pad)
        after = tensors_of(folder)
        assert all(torch.equal(stored[name].float(), after[name]) for name in stored)


def test_the_dtype_is_the_stored_one_off_the_cpu_and_can_be_chosen(folder):
    edit_json(folder / "config.json", torch_dtype="bfloat16")
    assert load(folder, device="cpu")[0].dtype == torch.float32
    assert load(folder, device="meta")[0].dtype == torch.bfloat16
    assert load(folder, device="cpu", dtype=torch.float16)[0].dtype == torch.float16
    edit_json(folder / "config.json", torch_dtype="int8")
    with pytest.raises(ValueError, match="dtype is 'int8', expected float32"):
        load(folder, device="cpu")


def test_training_a_loaded_model_leaves_its_file_alone(folder):
    before = (folder / "model.safetensors").read_bytes()
    model, _ = load(folder, device="cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_model_is_named_by_its_folder(folder, monkeypatch):
    assert load(folder, device="cpu")[0].config.name == "tiny-llama"
    monkeypatch.chdir(folder)
    assert load(".", device="cpu")[0].config.name == "tiny-llama"


def test_all_stop_tokens_of_the_generation_config_end_a_turn(folder):
    assert load(folder, device="cpu")[1].stop == [2]  # the tokenizer's own <|im_end|>
    edit_json(folder / "config.json", eos_token_id=0)
    assert load(folder, device="cpu")[1].stop == [0]
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 1]}')
    tokenizer = load_tokenizer(folder)
    assert tokenizer.stop == [1, 2]
    assert tokenizer.eos == 2  # what the template calls eos_token


def test_a_template_in_its_own_file_comes_first(folder):
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}é")
    assert load_tokenizer(folder).chat_template == "{{ messages[0]['content'] }}é"
    (folder / "chat_template.jinja").unlink()
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    edit_json(folder / "tokenizer_config.json", chat_template=several)
    assert load_tokenizer(folder).chat_template == "yes"


def test_copies_of_tied_weights_and_old_buffers_are_left_out(folder):
    before = tensors_of(folder)
    before["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    write_safetensors(folder / "model.safetensors", before)
    edit_json(folder / "config.json", tie_word_embeddings=True)
    model, _ = load(folder, device="cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_local_cache_is_searched_by_name(folder, tmp_path, monkeypatch):
    cached = tmp_path / "hub" / "models--org--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc123")
    (cached / "snapshots").mkdir()
    folder.rename(cached / "snapshots" / "abc123")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert load("org/tiny", device="cpu")[0].config.name == "tiny"
    with pytest.raises(ValueError, match=r"none of that name in the .* cache .*--download"):
        load("org/other")
    for name in ("nothing", "a/b/c", ""):
        with pytest.raises(ValueError, match=f"unknown model {name!r}: expected 'tiny', 'smollm2'"):
            load(name)


# A shard missing, truncated, lying; a tensor that does not fit.


def test_a_truncated_or_missing_file_is_an_error(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors: \d+ bytes of tensors, but"):
            load(folder, device="cpu")
    for length in (100, 9, 8, 3, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors: not a .safetensors file"):
            load(folder, device="cpu")
    path.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match="truncated or damaged"):
        load(folder, device="cpu")
    path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pickled weights \(pytorch_model.bin\) can hold code"):
        load(folder, device="cpu")


NORM, EMBED = "model.norm.weight", "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h[NORM].update(data_offsets=[0, 96]), "begins at byte"),  # overlaps
        (lambda h: h[NORM].update(data_offsets=[10**9, 10**9 + 96]), "begins at byte"),
        (lambda h: h[NORM].update(data_offsets=[-96, 0]), "begins at byte -96"),
        (lambda h: h[NORM].update(data_offsets=[96, 0]), "takes 96 bytes, but .* gives it -96"),
        (lambda h: h[NORM].update(data_offsets=[0]), "the header is not one"),
        (lambda h: h[NORM].update(data_offsets=["0", "96"]), "header is not one|has shape"),
        (lambda h: h[NORM].update(shape=[25]), r"shape \[25\] and type F32 takes 100 bytes"),
        (lambda h: h[NORM].update(shape=[-1]), r"has shape \[-1\]"),
        (lambda h: h[NORM].update(shape=[2**62, 2**62]), "takes .* bytes, but"),
        (lambda h: h[NORM].update(shape="24"), "has shape '24'"),
        (lambda h: h[NORM].update(dtype="F8_E4M3"), "stored as 'F8_E4M3', expected F32, F16, BF16"),
        (lambda h: h.update({NORM: 3}), "the header is not one"),
        (lambda h: h.pop(NORM), "bytes of tensors|begins at byte"),
        (lambda h: h[NORM].update(shape=[4, 6]), r"weight has shape \(4, 6\), expected \(24,\)"),
        (lambda h: h.update(other=h.pop(NORM)), "tensor other has no place"),
    ],
)
def test_a_header_that_lies_is_an_error_that_names_the_tensor(folder, change, message):
    tensors = tensors_of(folder)
    write_safetensors(folder / "model.safetensors", tensors, change)
    with pytest.raises(ValueError, match=message):
        load(folder, device="cpu")


@pytest.mark.parametrize("header", [b"[]", b"3", b"{", b"\xff\xff", b"[" * 100_000, b""])
def test_a_header_that_is_none_is_an_error(folder, header):
    path = folder / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=r"header is not one|tensors are missing"):
        load(folder, device="cpu")
    path.write_bytes((2**63).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=r"not a \.safetensors file"):
        load(folder, device="cpu")


def test_integer_weights_are_an_error(folder):
    tensors = tensors_of(folder) | {NORM: torch.ones(24, dtype=torch.int32)}
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(ValueError, match=r"tensor model\.norm\.weight is stored as 'I32'"):
        load(folder, device="cpu")


def test_missing_tensors_are_counted_and_named(folder):
    tensors = tensors_of(folder)
    del tensors[NORM], tensors[EMBED]
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(ValueError, match=f"2 tensors are missing, the first is {EMBED}"):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("../outside.safetensors", "said to be in '../outside.safetensors', expected the name of"),
        ("/etc/passwd", "said to be in '/etc/passwd'"),
        ("..", "is missing"),
        (7, "said to be in 7"),
        ("absent.safetensors", "absent.safetensors: this file is missing"),
    ],
)
def test_an_index_cannot_lead_elsewhere(folder, file, message):
    tensors = tensors_of(folder)
    write_safetensors(folder.parent / "outside.safetensors", tensors)
    index = folder / "model.safetensors.index.json"
    names = dict.fromkeys(tensors, "model.safetensors")
    index.write_text(json.dumps({"weight_map": names}))
    assert torch.equal(tensors_of(folder)[NORM], tensors[NORM])
    index.write_text(json.dumps({"weight_map": names | {NORM: file}}))
    with pytest.raises(ValueError, match=message):
        load(folder, device="cpu")


def test_an_index_of_what_is_not_there_is_an_error(folder):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"ghost": "model.safetensors"}}))
    with pytest.raises(ValueError, match="no tensor ghost, though the index says"):
        load(folder, device="cpu")
    for nothing in ("[]", "{}", '{"weight_map": {}}', "nonsense"):
        index.write_text(nothing)
        with pytest.raises(ValueError, match=r"index\.json: (expected|not readable)"):
            load(folder, device="cpu")


# A config that changes the mathematics.


@pytest.mark.parametrize(
    ("base", "field", "value", "message"),
    [
        (LLAMA, "model_type", "gpt2", "'gpt2' is unsupported, expected one of llama, mistral"),
        (LLAMA, "model_type", None, "None is unsupported"),
        (LLAMA, "hidden_act", "gelu", "hidden_act = 'gelu' is unsupported"),
        (LLAMA, "mlp_bias", True, "mlp_bias = True is unsupported"),
        (LLAMA, "partial_rotary_factor", 0.5, "partial_rotary_factor = 0.5"),
        (LLAMA, "quantization_config", {"bits": 4}, "quantization_config"),
        (LLAMA, "auto_map", {"AutoModel": "x.py"}, "auto_map"),
        (LLAMA, "rope_scaling", {"type": "linear", "factor": 2.0}, "not 'linear'"),
        (LLAMA, "rope_scaling", {"rope_type": "dynamic", "factor": 2.0}, "not 'dynamic'"),
        (LLAMA, "rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "not 'yarn'"),
        (LLAMA, "rope_parameters", {"full_attention": {}}, "expected one set"),
        (LLAMA, "rope_parameters", {"partial_rotary_factor": 0.25}, "whole heads"),
        (LLAMA, "rope_parameters", {"rope_type": "llama3"}, "factor is None, expected a number"),
        (LLAMA, "rope_theta", "big", "rope_theta is 'big', expected a number above 0"),
        (LLAMA, "layer_types", ["full_attention", "linear_attention"], "layer_types"),
        (LLAMA, "hidden_size", "24", "hidden_size is '24', expected a whole number above 0"),
        (LLAMA, "hidden_size", None, "hidden_size is None"),
        (LLAMA, "num_hidden_layers", -1, "num_hidden_layers is -1"),
        (LLAMA, "num_hidden_layers", True, "num_hidden_layers is True"),
        (LLAMA, "vocab_size", 2**60, "vocab_size is 1152921504606846976"),
        (LLAMA, "rms_norm_eps", float("nan"), "rms_norm_eps is nan"),
        (LLAMA, "tie_word_embeddings", "yes", "tie_word_embeddings is 'yes', expected true"),
        (LLAMA, "num_key_value_heads", 3, r"must be a multiple of num_key_value_heads \(3\)"),
        (LLAMA, "head_dim", 7, "head_dim must be even"),
        (LLAMA | {"model_type": "mistral"}, "sliding_window", 32, "the context of 96 is longer"),
        (LLAMA | {"model_type": "qwen2"}, "use_sliding_window", True, "use_sliding_window = True"),
        (LLAMA | {"model_type": "qwen3"}, "layer_types", ["sliding_attention"] * 4, "layer_types"),
        (GEMMA, "hidden_activation", "silu", "hidden_activation = 'silu'"),
        (GEMMA, "layer_types", ["full_attention"] * 4, "every other layer to slide"),
        (GEMMA, "attention_bias", True, "attention_bias = True"),
        (GEMMA, "use_bidirectional_attention", True, "use_bidirectional_attention"),
        (GEMMA, "sliding_window", None, "sliding_window is None"),
        (GEMMA, "attn_logit_softcapping", 0, "attn_logit_softcapping is 0, expected a number"),
    ],
)
def test_a_setting_that_minaxis_does_not_compute_is_named(base, field, value, message):
    read_config(base, "config.json", "model")
    with pytest.raises(ValueError, match=r"^config\.json: .*" + message):
        read_config(base | {field: value}, "config.json", "model")


def test_a_vocabulary_larger_than_the_weights_is_an_error(folder):
    edit_json(folder / "config.json", vocab_size=200)
    with pytest.raises(ValueError, match="has 270 tokens, but the weights are for 200"):
        load(folder, device="cpu")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_file_that_is_not_json_is_named(folder, file, content):
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=f"{file}: (expected an object|not readable as JSON)"):
        load(folder, device="cpu")
