import pytest
import torch

import minaxis as mx
from minaxis.tiny.checkpoint import read_info, save_checkpoint


def test_a_loaded_checkpoint_is_the_model_that_was_saved(world_tokenizer, small, tmp_path):
    model, path = small().half().float(), tmp_path / "small.pt"
    save_checkpoint(path, model, world_tokenizer, {"seed": 3})
    loaded, tokenizer = mx.load(path, device="cpu")
    ids = torch.tensor([world_tokenizer.encode("Enter the ghost.")])
    assert torch.equal(loaded(ids), model(ids))
    assert loaded.config == model.config
    assert tokenizer.state() == world_tokenizer.state()
    assert read_info(path) == {"seed": 3}


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_the_error_on_a_damaged_checkpoint_names_the_file(tmp_path, content):
    path = tmp_path / "broken.pt"
    if content is None:
        torch.save({"weights": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.pt"):
        mx.load(path)


@pytest.fixture
def stored(world_tokenizer, small, tmp_path):
    """A function that writes a checkpoint with changes, given as path -> value."""
    path = tmp_path / "small.pt"
    save_checkpoint(path, small(), world_tokenizer, {"seed": 3})
    data = torch.load(path, weights_only=True)

    def write(keys, value):
        inner = data
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        torch.save(data, path)
        return path

    return write


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("config", "num_hidden_layers"), 10**5, "config.num_hidden_layers is 100000, expected"),
        (("config", "num_hidden_layers"), 3, "tensors are missing"),
        (("config", "hidden_size"), "32", "config.hidden_size is '32', expected a whole number"),
        (("config", "num_attention_heads"), 0, "config.num_attention_heads is 0"),
        (("config", "num_key_value_heads"), 3, "must be a multiple of num_key_value_heads"),
        (("config", "rms_norm_eps"), float("nan"), "config.rms_norm_eps is nan"),
        (("config", "vocab_size"), 100, "the vocabulary has 600 tokens, but the weights"),
        (("config", "other"), 1, "config has the key 'other'"),
        (("tokenizer", "pattern"), "(a|aa|a?a)+$", r"tokenizer.pattern is '\(a\|aa\|a\?a\)\+\$'"),
        (("tokenizer", "ranks", b"a"), 98, "two tokens have the same number in ranks"),
        (("tokenizer", "ranks", b"a"), -1, "ranks.b'a' is -1, expected a whole number"),
        (("tokenizer", "special"), ["x"], r"tokenizer.special is \['x'\], expected an object"),
        (("tokenizer", "stop"), [None], r"tokenizer.stop\[0\] is None"),
        (("weights", "model.norm.weight"), 1.0, "weights.model.norm.weight is 1.0, expected a"),
        (("weights", "model.norm.weight"), torch.full((32,), torch.nan), "is NaN, infinite or"),
        (("weights", "model.norm.weight"), torch.ones(31), r"has shape \(31,\), expected \(32,\)"),
        (("info",), 3, "info is 3, expected an object"),
        (("info", "x"), {1, 2}, "refused, because it contains more than .*set was not an allowed"),
    ],
)
def test_a_wrong_field_of_a_checkpoint_is_an_error_that_names_it(stored, keys, value, message):
    with pytest.raises(ValueError, match=r"small\.pt: .*" + message):
        mx.load(stored(keys, value), device="cpu")


def test_a_checkpoint_that_could_not_be_read_is_not_written(world_tokenizer, small, tmp_path):
    state = world_tokenizer.state() | {"pattern": r"\w+|\W"}
    with pytest.raises(ValueError, match=r"tokenizer\.pattern is"):
        save_checkpoint(tmp_path / "x.pt", small(), mx.Tokenizer(**state), {})
    assert not (tmp_path / "x.pt").exists()
