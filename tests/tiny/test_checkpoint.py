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
