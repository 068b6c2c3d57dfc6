import pytest
import torch

import minaxis as mx

IDS = torch.tensor([[1277, 300, 301, 302, 1279, 1278, 303], [1277, 9, 8, 7, 1279, 1278, 6]])


def hooks(model):
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


def test_it_is_what_each_block_returns(exercise, model):
    with torch.no_grad(), mx.capture(model) as seen:
        model(IDS)
    for layer, want in seen.items():
        got = exercise.read_stream(model, IDS, layer)
        kind = type(got).__name__
        assert isinstance(got, torch.Tensor), f"read_stream returns a {kind}, not a tensor"
        assert got.shape == want.shape, f"the shape is {tuple(got.shape)}, not (B, T, D)"
        same = [other for other, h in seen.items() if torch.allclose(got, h, atol=1e-4)]
        other = f"it is the one after block {same[0]}" if same else "it is none of a whole block"
        assert same == [layer], f"this is not the stream after block {layer}: {other}"


def test_the_model_computes_what_it_computes_without_the_hook(exercise, model):
    logits = []
    model.lm_head.register_forward_hook(lambda module, args, output: logits.append(output))
    with torch.no_grad():
        model(IDS)
    exercise.read_stream(model, IDS, 1)
    assert len(logits) > 1, "the model has not read the ids to its end"
    same = torch.allclose(logits[0], logits[-1], atol=1e-4)
    assert same, "the hook changes what the model computes: PyTorch uses what a hook returns"


def test_the_hook_is_gone_afterwards(exercise, model):
    exercise.read_stream(model, IDS, 1)
    assert not hooks(model), "a hook is left on the model"


def test_the_hook_is_gone_after_an_error_too(exercise, model):
    too_long = torch.zeros(1, 2000, dtype=torch.long)
    with pytest.raises(ValueError, match="do not fit"):
        exercise.read_stream(model, too_long, 1)
    assert not hooks(model), "the model raised an error, and a hook is left on it"


def test_the_hooks_of_others_stay(exercise, model):
    calls = []
    model.model.layers[1].register_forward_hook(lambda *_: calls.append(1))
    exercise.read_stream(model, IDS, 1)
    model(IDS)
    assert len(calls) == 2, "a hook of somebody else was removed"
