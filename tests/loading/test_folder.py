"""Hugging Face folders: which file decides what, and files that contradict each other."""

import json

import pytest
import torch

from minaxis import load, load_tokenizer

NORM = "model.norm.weight"


def test_all_stop_tokens_of_the_generation_config_end_a_turn(folder, edit_json):
    assert load(folder, device="cpu")[1].stop == [2]  # the tokenizer's own <|im_end|>
    edit_json(folder / "config.json", eos_token_id=0)
    assert load(folder, device="cpu")[1].stop == [0]
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 1]}')
    tokenizer = load_tokenizer(folder)
    assert tokenizer.stop == [1, 2]
    assert tokenizer.eos == 2  # what the template calls eos_token


def test_a_template_in_its_own_file_is_preferred(folder, edit_json):
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}é")
    assert load_tokenizer(folder).chat_template == "{{ messages[0]['content'] }}é"
    (folder / "chat_template.jinja").unlink()
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    edit_json(folder / "tokenizer_config.json", chat_template=several)
    assert load_tokenizer(folder).chat_template == "yes"


def test_copies_of_tied_weights_and_old_buffers_are_ignored(
    folder, write_safetensors, edit_json, tensors_of
):
    before = tensors_of(folder)
    before["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    write_safetensors(folder / "model.safetensors", before)
    edit_json(folder / "config.json", tie_word_embeddings=True)
    model, _ = load(folder, device="cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("../outside.safetensors", "said to be in '../outside.safetensors', expected the name of"),
        ("/etc/passwd", "said to be in '/etc/passwd'"),
        ("..", "is missing"),
        (7, "is 7, expected text"),
        ("absent.safetensors", "absent.safetensors: this file is missing"),
    ],
)
def test_an_index_cannot_name_a_file_outside_its_folder(
    folder, write_safetensors, tensors_of, file, message
):
    tensors = tensors_of(folder)
    write_safetensors(folder.parent / "outside.safetensors", tensors)
    index = folder / "model.safetensors.index.json"
    names = dict.fromkeys(tensors, "model.safetensors")
    index.write_text(json.dumps({"weight_map": names}))
    assert torch.equal(tensors_of(folder)[NORM], tensors[NORM])
    index.write_text(json.dumps({"weight_map": names | {NORM: file}}))
    with pytest.raises(ValueError, match=message):
        load(folder, device="cpu")


def test_an_index_that_names_a_missing_tensor_is_an_error(folder):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"ghost": "model.safetensors"}}))
    with pytest.raises(ValueError, match="no tensor ghost, though the index says"):
        load(folder, device="cpu")
    for nothing in ("[]", "{}", '{"weight_map": {}}', "nonsense"):
        index.write_text(nothing)
        with pytest.raises(ValueError, match=r"index\.json: .*(expected|not readable)"):
            load(folder, device="cpu")


def test_a_vocabulary_larger_than_the_weights_is_an_error(folder, edit_json):
    edit_json(folder / "config.json", vocab_size=200)
    with pytest.raises(ValueError, match="has 270 tokens, but the weights are for 200"):
        load(folder, device="cpu")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_file_that_is_not_json_is_an_error_that_names_it(folder, file, content):
    (folder / file).write_text(content)
    with pytest.raises(
        ValueError, match=f"{file}: (the content is .*expected an object|not readable as JSON)"
    ):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"num_hidden_layers": 10**5}, "num_hidden_layers is 100000, expected"),
        ("config.json", {"eos_token_id": [None]}, r"eos_token_id\[0\] is None, expected"),
        ("config.json", {"layer_types": 5}, "layer_types = 5 is unsupported"),
        ("config.json", {"model_type": {}}, "model type {} is unsupported"),
        ("config.json", {"rope_theta": 10**400}, "rope_theta is 1000"),
        ("config.json", {"torch_dtype": {}}, "torch_dtype is {}, expected"),
        ("tokenizer_config.json", {"chat_template": [5]}, r"chat_template\[0\] is 5, expected"),
        ("tokenizer_config.json", {"chat_template": [{"name": "default"}]}, "template is missing"),
        ("tokenizer_config.json", {"eos_token": {"id": 2}}, "eos_token.content is missing"),
        ("tokenizer_config.json", {"bos_token": 3}, "bos_token is 3, expected"),
    ],
)
def test_a_wrong_field_is_an_error_that_names_file_and_field(
    folder, edit_json, file, changes, message
):
    edit_json(folder / file, **changes)
    with pytest.raises(ValueError, match=f"{file}: .*{message}"):
        load(folder, device="cpu")


def test_a_template_that_is_not_text_is_an_error(folder):
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"chat_template\.jinja: not readable as text"):
        load_tokenizer(folder)
