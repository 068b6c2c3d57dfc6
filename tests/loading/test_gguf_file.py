"""GGUF files: the model that a file gives, shards, names, and files that are refused."""

import struct

import numpy as np
import pytest
import torch

from minaxis import encode_chat, load
from minaxis.loading import gguf_weights
from minaxis.loading.gguf_file import _model_name, read_gguf
from minaxis.loading.gguf_header import Stored, read_header

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
    assert not model.training
    assert read.stop == tokenizer.stop
    assert read.special == tokenizer.special
    assert read.chat_template == tokenizer.chat_template
    assert read.encode("the other") == tokenizer.encode("the other")


@pytest.mark.parametrize(
    "end",
    ["Q4_1", "F32", "bf16", "fp16", "q4_k_m", "IQ4_XS", "UD-Q4_K_XL", "i1-Q4_K_M", "Q4_0_4_4",
     "TQ1_0", "MXFP4_MOE"],
)  # fmt: skip
@pytest.mark.parametrize("dot", ".-")
def test_a_models_name_has_no_quantisation(end, dot, tmp_path):
    assert _model_name(tmp_path / f"Qwen2.5-0.5B-Instruct{dot}{end}.gguf") == (
        "Qwen2.5-0.5B-Instruct"
    )
    assert _model_name(tmp_path / f"big{dot}{end}-00002-of-00003.gguf") == "big"


def test_without_an_output_matrix_the_embedding_is_used(tiny, tokenizer, tmp_path, write_gguf):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer, drop=["output"])
    model, _ = load(path, device="cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_weights_have_the_requested_dtype(tiny, tokenizer, tmp_path, write_gguf):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer)
    model, _ = load(path, dtype=torch.bfloat16, device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.tensor([[1, 2]])).dtype == torch.bfloat16


def test_every_type_that_the_package_gguf_dequantises_is_read_some_rows_at_a_time(
    tmp_path, monkeypatch
):
    from gguf.quants import _type_traits, dequantize

    monkeypatch.setattr(gguf_weights, "_CHUNK", 1100)
    kinds = [*_type_traits, gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16]
    assert len(kinds) > 24
    path, generator = tmp_path / "raw", np.random.default_rng(0)
    for kind in kinds:
        shape = gguf.quant_shape_to_byte_shape((13, 512), kind)
        raw = generator.integers(0, 256, shape, np.uint8)
        path.write_bytes(b"other" + raw.tobytes())
        stored = Stored(path, "t.weight", (13, 512), kind, 5, raw.size)
        with np.errstate(all="ignore"):
            expected = torch.tensor(dequantize(raw, kind))
            read = gguf_weights.read_tensor(stored, torch.float32)
        torch.testing.assert_close(read, expected, rtol=0, atol=0, equal_nan=True, msg=kind.name)


def test_a_base_model_without_a_template_loads_and_says_so_when_one_chats(
    tiny, tokenizer, tmp_path, write_gguf
):
    tokenizer.chat_template = None
    _, read = load(write_gguf(tmp_path / "base.gguf", tiny, tokenizer), device="cpu")
    assert read.encode("the other") == tokenizer.encode("the other")
    with pytest.raises(ValueError, match=r"no chat template \(a base model\?\)"):
        encode_chat(read, [{"role": "user", "content": "Hello"}])


def test_a_model_in_shards_is_read_from_any_of_them(tiny, tokenizer, tmp_path, write_gguf):
    write_gguf(tmp_path / "m-Q8_0.gguf", tiny, tokenizer, shards=8)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert [p.name[6:] for p in parts] == [f"-0000{i}-of-00004.gguf" for i in range(1, 5)]
    for part in (parts[0], parts[2]):
        model, _ = load(part, device="cpu")
        assert model.config.name == "m"
        for name, expected in tiny.state_dict().items():
            assert torch.equal(model.state_dict()[name], expected), name
    parts[3].rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"00004-of-00004.gguf: this shard is missing"):
        load(parts[0], device="cpu")
    parts[3].write_bytes(parts[2].read_bytes())
    with pytest.raises(ValueError, match=r"split.no 2, expected 4 and 3 from the file's name"):
        load(parts[0], device="cpu")
    parts[0].rename(tmp_path / "alone.gguf")
    with pytest.raises(ValueError, match=r"split.count is 4 .* expected 1 and 0 from the file's"):
        load(tmp_path / "alone.gguf", device="cpu")


REFUSED = [
    ({"architecture": "mamba"}, "architecture 'mamba' is unsupported, expected one of llama, qwen"),
    ({"A.rope.scaling.type": "yarn"}, "rope.scaling.type = 'yarn' is unsupported"),
    ({"tokenizer.ggml.model": "bert"}, "tokenizer of kind 'bert' is unsupported"),
    ({"tokenizer.ggml.pre": "mystery"}, "pre-tokenisation 'mystery' is unknown"),
    ({"A.block_count": None}, "llama.block_count is None, expected a whole number"),
    ({"A.block_count": 2**24}, "block_count is 16777216, but the tensors are of 3 blocks"),
    ({"A.block_count": "3"}, "block_count is '3', expected a whole number"),
    ({"A.context_length": 0}, "context_length is 0, expected a whole number from 1"),
    ({"A.attention.head_count": 0}, "head_count is 0, expected a whole number from 1"),
    ({"A.attention.head_count": 2**20}, "attn_q.weight has shape .*, expected .* head_count"),
    (
        {"A.attention.head_count": 3},
        "blk.0.attn_q.weight has shape .*, expected .*head_count",
    ),
    (
        {"A.attention.head_count_kv": 3},
        "attn_k.weight has shape .*, expected .*head_count_kv",
    ),
    ({"A.attention.head_count": 4.0}, "head_count is 4.0, expected a whole number"),
    ({"A.feed_forward_length": 41}, "blk.0.ffn_down.weight has shape .* from feed_forward_length"),
    (
        {"A.attention.layer_norm_rms_epsilon": float("nan")},
        "epsilon is nan, expected a number",
    ),
    ({"A.attention.layer_norm_rms_epsilon": -1.0}, "epsilon is -1.0, expected a number from"),
    ({"A.rope.freq_base": float("nan")}, "freq_base is nan, expected a number from"),
    ({"A.rope.freq_base": 0.0}, "freq_base is 0.0, expected a number from"),
    ({"A.rope.freq_base": -1.0}, "freq_base is -1.0, expected a number from"),
    ({"A.rope.freq_base": "10000"}, "freq_base is '10000', expected a number from"),
    ({"A.rope.dimension_count": 4}, "rope.dimension_count is 4, expected 10"),
    ({"A.attention.sliding_window": 7}, "sliding_window = 7 is unsupported"),
    ({"tokenizer.ggml.eos_token_id": 2**32 - 1}, "eos_token_id is 4294967295, but there are 265"),
    ({"tokenizer.ggml.bos_token_id": "1"}, "bos_token_id is '1', expected a whole number"),
    ({"tokenizer.chat_template": 5}, "chat_template is 5, expected a string"),
    ({"tokenizer.ggml.token_type": [1] * 10**5}, "token_type is 100000 numbers, expected 265"),
    ({"tokenizer.ggml.tokens": ["a"] * 200}, r"token_embd.weight has shape \(265, 24\), expected"),
    ({"tokenizer.ggml.tokens": 7}, "tokens is 7, expected a list of strings"),
    ({"tokenizer.ggml.merges": None}, "merges is None, expected a list of strings"),
    ({"tokenizer.ggml.merges": ["x"]}, "merges has 'x', expected two pieces"),
    ({"general.alignment": 0}, "general.alignment is 0, expected a power of two"),
    ({"drop": ["blk.1.ffn_up"]}, r"first is model.layers.1.mlp.up_proj.weight"),
    ({"drop": ["blk.0.ffn_down"]}, r"blk.0.ffn_down.weight is missing"),
    ({"add": "rope_freqs.weight"}, r"rope_freqs.weight has shape \(3,\), expected \(5,\)"),
    ({"add": "blk.1.attn_sinks.weight"}, "blk.1.attn_sinks.weight has no place in a llama model"),
    ({"add": "blk.9.attn_norm.weight"}, "block_count is 3, but the tensors are of 4 blocks"),
]


@pytest.mark.parametrize(("how", "message"), REFUSED, ids=[str(how)[:50] for how, _ in REFUSED])
def test_an_unsupported_or_inconsistent_file_is_an_error_that_says_why(
    tiny, tokenizer, tmp_path, how, message, write_gguf
):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer, **how)
    with pytest.raises(ValueError, match=rf"m\.gguf: .*({message})"):
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


def test_a_length_that_the_file_does_not_have_is_an_error_at_once(tmp_path):
    """Fields whose value claims to be long: a string, arrays of numbers, of strings, of arrays."""
    path = tmp_path / "long.gguf"
    begin = b"GGUF" + struct.pack("<IQQQ", 3, 2**60, 2**60, 1) + b"k"
    for value in (
        struct.pack("<IQ", 8, 2**63),
        struct.pack("<IIQ", 9, 4, 2**62),
        struct.pack("<IIQ", 9, 8, 2**62),
        struct.pack("<IIQ", 9, 9, 2**62),
        struct.pack("<I", 99),
    ):
        path.write_bytes(begin + value + b"\0" * 100)
        with pytest.raises(ValueError, match=r"long.gguf: not a readable GGUF file, or a trunc"):
            read_header(path)


def test_damaged_files_are_refused_or_read_and_nothing_else(tiny, tokenizer, tmp_path, write_gguf):
    """400 copies of a file with changed bytes in its header, cut, or with a repeated piece."""
    whole = bytearray(write_gguf(tmp_path / "m.gguf", tiny, tokenizer).read_bytes())
    generator, path = np.random.default_rng(0), tmp_path / "x.gguf"
    refused = 0
    for i in range(400):
        data, at = bytearray(whole), int(generator.integers(0, 3000))
        if i % 4 == 3:
            del data[at : at + int(generator.integers(1, 9))]
        else:
            data[at : at + 1 + i % 4 * 3] = generator.bytes(1 + i % 4 * 3)
        path.write_bytes(data)
        try:
            read_gguf(path)
        except ValueError as e:
            assert "x.gguf: " in str(e)  # noqa: PT017 (some mutants are read)
            refused += 1
    assert refused > 200


def test_a_tensor_type_that_cannot_be_dequantised_is_an_error_that_names_it(
    tiny, tokenizer, tmp_path, monkeypatch, write_gguf
):
    path = write_gguf(tmp_path / "m.gguf", tiny, tokenizer)

    def refuse(data, kind):
        raise NotImplementedError

    monkeypatch.setattr("gguf.quants.dequantize", refuse)
    with pytest.raises(ValueError, match=r"token_embd.weight has type F32, which"):
        load(path, device="cpu")
