from random import Random

import pytest
import torch

from minaxis.support.files import read_tensors, write_tensors
from minaxis.tiny.documents import document, token_batches
from minaxis.tiny.phases import Phase
from minaxis.tiny.training import summed_loss, train_phase, validation_loss


def ignore(step, steps):
    """A `watch` that does nothing."""


def test_the_loss_of_a_batch_does_not_depend_on_its_padding(world, world_tokenizer, small):
    rng, model = Random(0), small().eval()
    docs = [document(world_tokenizer, world.lesson(rng), replies_only=True) for _ in range(6)]
    with torch.no_grad():
        together = summed_loss(model, docs)
        alone = sum(summed_loss(model, [d]) for d in docs)
    torch.testing.assert_close(together, alone)


def test_an_interrupted_phase_continues_and_ends_with_the_same_weights(
    world, world_tokenizer, small, tmp_path
):
    rng, file = Random(0), tmp_path / "resume.pt"
    docs = [document(world_tokenizer, world.story(rng), replies_only=False) for _ in range(60)]
    phase = Phase("some", token_batches(docs, 700, rng), docs[:5], 0.02, 0.004)
    whole, parts = small(), small()
    train_phase(whole, phase, settings={}, file=file, watch=ignore)
    assert read_tensors(file)["step"] == len(phase.batches)
    file.unlink()

    def interrupt(step, steps):
        if step > steps / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_phase(parts, phase, settings={}, file=file, watch=interrupt, save_seconds=0)
    other = small(seed=1)  # what a new process starts from
    with pytest.raises(ValueError, match="another run"):
        train_phase(other, phase, settings={"seed": 1}, file=file, watch=interrupt)
    train_phase(other, phase, settings={}, file=file, watch=ignore)
    for a, b in zip(whole.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert validation_loss(whole, docs) < validation_loss(small(), docs) - 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": "5"}, "step is '5', expected a whole number"),
        ({"weights": 3}, "weights is 3, expected an object"),
        ({"weights": {}}, r"Error\(s\) in loading state_dict"),
        ({"optimisers": []}, "zip"),
        ({"optimisers": [{"state": {}, "param_groups": []}] * 2}, "parameter group"),
        ({"settings": None}, "settings is None, expected an object"),
    ],
)
def test_a_damaged_state_of_a_phase_is_an_error_that_names_its_file(
    world, world_tokenizer, small, tmp_path, changes, message
):
    file, rng = tmp_path / "resume.pt", Random(0)
    docs = [document(world_tokenizer, world.story(rng), replies_only=False) for _ in range(4)]
    phase = Phase("some", token_batches(docs, 700, rng), docs, 0.02, 0.004)
    train_phase(small(), phase, settings={}, file=file, watch=ignore)
    write_tensors(file, read_tensors(file) | changes)
    with pytest.raises(ValueError, match=rf"resume\.pt: .*{message}"):
        train_phase(small(), phase, settings={}, file=file, watch=ignore)
