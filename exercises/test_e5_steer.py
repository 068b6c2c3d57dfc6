import pytest
import torch

import minaxis as mx

IDS = torch.tensor([[1277, 300, 301, 302, 1279, 1278, 303]])


def stream(model, ids, layer):
    with torch.no_grad(), mx.capture(model, [layer]) as seen:
        model(ids)
    return seen[layer]


def test_the_mean_norm_is_the_mean_length_of_a_tokens_vector(exercise, model):
    h = stream(model, IDS, 1)
    want = sum(float(token.square().sum() ** 0.5) for token in h[0]) / len(h[0])
    got = exercise.mean_norm(h)
    assert abs(got - want) < 1e-3, f"the mean length is {want:.3f}, not {got:.3f}"


def test_every_token_moves_by_c_times_n_along_the_unit_axis(exercise, model, axis):
    before = stream(model, IDS, 2)
    for c in (-0.5, 0.25):
        with exercise.steered(model, axis.vectors[2], 4.0, c, 2):
            moved = stream(model, IDS, 2) - before
        along = moved @ axis.unit()[2]
        assert torch.allclose(along, torch.full((1, 7), c * 4), atol=1e-3), (
            f"with c = {c} and n = 4 the tokens move by {[round(x, 2) for x in along[0].tolist()]}"
        )
        aside = (moved.norm(dim=-1) - along.abs()).max().item()
        assert aside < 1e-3, "the tokens also move across the axis"


def test_generated_tokens_are_steered_too(exercise, model, tokenizer, axis):
    prompt = mx.encode_chat(tokenizer, [{"role": "user", "content": "What are you?"}])
    sampling, c = mx.SamplingParams(max_new_tokens=20, temperature=0), -0.6
    with mx.steering(model, axis, c, layer=2):
        want = mx.generate(model, tokenizer, [prompt], sampling)
    with exercise.steered(model, axis.vectors[2], axis.norms[2].item(), c, 2):
        got = mx.generate(model, tokenizer, [prompt], sampling)
    assert got == want, (
        f"the steered model says {tokenizer.decode(got[0])!r}, not {tokenizer.decode(want[0])!r}"
    )


def test_what_the_block_returned_is_left_as_it_was(exercise, model, axis):
    kept = []
    model.model.layers[2].register_forward_hook(lambda module, args, h: kept.append(h))
    with torch.no_grad(), exercise.steered(model, axis.vectors[2], 4.0, 1.0, 2):
        model(IDS)
    model.model.layers[2]._forward_hooks.clear()
    assert torch.equal(kept[0], stream(model, IDS, 2)), "the block's own output was written into"


def test_the_model_is_as_before_after_the_with_even_after_an_error(exercise, model, axis):
    before = stream(model, IDS, 3)
    with pytest.raises(KeyError), exercise.steered(model, axis.vectors[2], 4.0, 1.0, 2):
        raise KeyError
    assert torch.equal(stream(model, IDS, 3), before), "the model is still steered"
