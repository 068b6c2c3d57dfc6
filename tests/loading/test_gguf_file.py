"""GGUF files: the model that one gives, and files that do not fit."""

import struct

import pytest
import torch

from minaxis import load
from minaxis.loading.byte_level import byte_alphabet

gguf = pytest.importorskip("gguf", reason="pip install 'minaxis[open]'")

# Hugging Face's names in this file's order; GGUF's are written out beside them.
BLOCK = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip


def write_gguf(path, model, tokenizer, leave_out=(), drop=(), add=None, **changes):
    """The model as llama.cpp's converter would write it, query and key rows permuted."""
    c = model.config
    character = {b: ch for ch, b in byte_alphabet().items()}
    tokens = {i: "".join(character[b] for b in t) for t, i in tokenizer.ranks.items()}
    tokens |= {i: s for s, i in tokenizer.special.items()}
    tokens = [tokens[i] for i in range(len(tokens))]
    w = gguf.GGUFWriter(path, changes.pop("architecture", "llama"))
    fields = {
        "context_length": c.max_position_embeddings, "embedding_length": c.hidden_size,
        "block_count": c.num_hidden_layers, "feed_forward_length": c.intermediate_size,
        "attention.head_count": c.num_attention_heads,
        "attention.head_count_kv": c.num_key_value_heads, "attention.key_length": c.head_dim,
    }  # fmt: skip
    for name, value in fields.items():
        if name not in leave_out:
            w.add_uint32(f"llama.{name}", changes.get(name, value))
    w.add_float32("llama.attention.layer_norm_rms_epsilon", c.rms_norm_eps)
    w.add_float32("llama.rope.freq_base", c.rope_theta)
    if "scaling" in changes:
        w.add_string("llama.rope.scaling.type", changes["scaling"])
    w.add_tokenizer_model(changes.get("tokenizer_model", "gpt2"))
    w.add_tokenizer_pre(changes.get("pre", "gpt-2"))
    w.add_token_list(tokens[: changes.get("vocabulary")])
    w.add_token_types([3 if t in tokenizer.special else 1 for t in tokens])
    w.add_eos_token_id(tokenizer.stop[0])
    w.add_chat_template(tokenizer.chat_template)

    state = model.state_dict()
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for i in range(c.num_hidden_layers):
        names |= {f"blk.{i}.{g}": f"model.layers.{i}.{h}" for g, h in BLOCK.items()}
    for name, ours in names.items():
        if name in drop:
            continue
        t = state[f"{ours}.weight"]
        if "attn_q" in name or "attn_k" in name:
            t = t.unflatten(0, (-1, 2, c.head_dim // 2)).transpose(1, 2).reshape(t.shape)
        w.add_tensor(f"{name}.weight", changes.get(name, t).contiguous().numpy())
    if add:
        w.add_tensor(add, torch.ones(3).numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def test_a_gguf_file_gives_the_model_that_it_was_written_from(tiny, tokenizer, tmp_path):
    path = write_gguf(tmp_path / "odd-model.F32.gguf", tiny, tokenizer)
    model, read = load(path, device="cpu")
    for name, expected in tiny.state_dict().items():
        assert torch.equal(model.state_dict()[name], expected), name
    ids = torch.tensor([tokenizer.encode("the other")])
    assert torch.equal(model(ids), tiny(ids))
    assert model.config.name == "odd-model"
    assert not model.training
    assert read.stop == tokenizer.stop
    assert read.special == tokenizer.special
    assert read.chat_template == tokenizer.chat_template
    assert read.encode("the other") == tokenizer.encode("the other")


def test_without_an_output_matrix_the_embedding_is_used(tiny, tokenizer, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer, drop=["output"])
    model, _ = load(path, device="cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_weights_have_the_requested_dtype(tiny, tokenizer, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer)
    model, _ = load(path, dtype=torch.bfloat16, device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.tensor([[1, 2]])).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"architecture": "mamba"}, "architecture 'mamba' is unsupported, expected 'llama'"),
        ({"scaling": "yarn"}, "rope scaling of type 'yarn' is unsupported"),
        ({"tokenizer_model": "llama"}, "tokenizer of kind 'llama' is unsupported"),
        ({"pre": "mystery"}, "pre-tokenisation 'mystery' is unknown"),
        ({"leave_out": ["block_count"]}, "the field llama.block_count is missing"),
        ({"vocabulary": 200}, "the vocabulary has 200 tokens .*, but the weights are for 265"),
        ({"drop": ["blk.1.ffn_up"]}, r"first is model.layers.1.mlp.up_proj.weight"),
        ({"add": "rope_freqs.weight"}, "rope_freqs.weight has no place"),
        ({"add": "blk.9.attn_norm.weight"}, "model.layers.9.input_layernorm.weight has no place"),
        ({"feed_forward_length": 41}, r"mlp.*weight has shape .*, expected .* from the config"),
        ({"attention.head_count": 3}, "multiple of num_key_value_heads"),
    ],
)
def test_a_file_that_does_not_fit_is_an_error_that_says_why(
    tiny, tokenizer, tmp_path, how, message
):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer, **how)
    with pytest.raises(ValueError, match=message):
        load(path, device="cpu")


def test_a_truncated_file_is_an_error_wherever_it_is_cut(tiny, tokenizer, tmp_path):
    whole = write_gguf(tmp_path / "m.gguf", tiny, tokenizer).read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (0, 3, 10, 100, len(whole) // 4, len(whole) // 2, len(whole) - 64):
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut.gguf: not a readable GGUF file, or a truncated"):
            load(cut, device="cpu")
    cut.write_bytes(struct.pack("<I", 0xDEADBEEF) + whole[4:])
    with pytest.raises(ValueError, match="magic"):
        load(cut, device="cpu")


def test_a_type_that_cannot_be_dequantised_is_an_error_that_names_it(
    tiny, tokenizer, tmp_path, monkeypatch
):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer)

    def refuse(data, kind):
        raise NotImplementedError

    monkeypatch.setattr("gguf.quants.dequantize", refuse)
    with pytest.raises(ValueError, match=r"token_embd.weight has type F32, which"):
        load(path, device="cpu")
