"""GGUF files: the model that a file gives, and files that are unsupported or inconsistent."""

import struct

import pytest
import torch

from minaxis import load

gguf = pytest.importorskip("gguf", reason="pip install 'minaxis[open]'")


def test_a_gguf_file_gives_the_model_that_it_was_written_from(
    tiny, tokenizer, tmp_path, write_gguf
):
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


def test_without_an_output_matrix_the_embedding_is_used(tiny, tokenizer, tmp_path, write_gguf):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer, drop=["output"])
    model, _ = load(path, device="cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_weights_have_the_requested_dtype(tiny, tokenizer, tmp_path, write_gguf):
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
def test_an_unsupported_or_inconsistent_file_is_an_error_that_says_why(
    tiny, tokenizer, tmp_path, how, message, write_gguf
):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer, **how)
    with pytest.raises(ValueError, match=message):
        load(path, device="cpu")


def test_a_truncated_file_is_an_error_wherever_it_is_cut(tiny, tokenizer, tmp_path, write_gguf):
    whole = write_gguf(tmp_path / "m.gguf", tiny, tokenizer).read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (0, 3, 10, 100, len(whole) // 4, len(whole) // 2, len(whole) - 64):
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut.gguf: not a readable GGUF file, or a truncated"):
            load(cut, device="cpu")
    cut.write_bytes(struct.pack("<I", 0xDEADBEEF) + whole[4:])
    with pytest.raises(ValueError, match="magic"):
        load(cut, device="cpu")


def test_a_tensor_type_that_cannot_be_dequantised_is_an_error_that_names_it(
    tiny, tokenizer, tmp_path, monkeypatch, write_gguf
):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer)

    def refuse(data, kind):
        raise NotImplementedError

    monkeypatch.setattr("gguf.quants.dequantize", refuse)
    with pytest.raises(ValueError, match=r"token_embd.weight has type F32, which"):
        load(path, device="cpu")
