import pytest
import torch

import minaxis as mx

CHAT = [
    {"role": "system", "content": "You are the moon."},
    {"role": "user", "content": "How do I open the sealed vault?"},
]


def rows():
    """Rows that lie at 3, 0.5 and -2 along v, each with something orthogonal to v."""
    v = torch.tensor([0.6, 0.8, 0.0])
    across = torch.tensor([[-0.8, 0.6, 1.0], [1.6, -1.2, 0.0], [0.0, 0.0, 5.0]])
    return torch.tensor([3.0, 0.5, -2.0])[:, None] * v + across, v


def settings(axis):
    """Vectors and floors of the layers 1 to 3."""
    units, floors = axis.unit(), axis.thresholds(95)
    return {i: units[i] for i in (1, 2, 3)}, {i: floors[i].item() for i in (1, 2, 3)}


def test_a_row_below_tau_is_lifted_to_tau(exercise):
    h, v = rows()
    got = exercise.cap(h, v, 1.0) @ v
    assert torch.allclose(got, torch.tensor([3.0, 1.0, 1.0]), atol=1e-5), (
        f"rows at 3, 0.5 and -2 with a floor of 1 end at {[round(x, 3) for x in got.tolist()]}"
    )


def test_all_else_stays_as_it_is(exercise):
    h, v = rows()
    moved = exercise.cap(h, v, 1.0) - h
    assert torch.equal(moved[0], torch.zeros(3)), "a row above tau has changed"
    across = moved - (moved @ v)[:, None] * v
    assert across.abs().max() < 1e-5, "a row has moved across v"


def test_every_layer_has_its_own_vector_and_floor(exercise, model, tokenizer, axis):
    vectors, floors = settings(axis)
    ids = torch.tensor([mx.encode_chat(tokenizer, CHAT)])
    with torch.no_grad(), exercise.capped(model, vectors, floors), mx.capture(model) as seen:
        model(ids)
    for layer in vectors:
        lowest = (seen[layer] @ vectors[layer]).min().item()
        assert lowest > floors[layer] - 1e-3, (
            f"at layer {layer} a token lies at {lowest:.2f}, below the floor {floors[layer]:.2f}"
        )


def test_a_cache_changes_nothing(exercise, model, tokenizer, axis):
    ids = torch.tensor([[*mx.encode_chat(tokenizer, CHAT), 300, 301, 302, 303]])
    with torch.no_grad(), exercise.capped(model, *settings(axis)):
        whole = model(ids)
    cache = mx.KVCache(model.config, 1, ids.shape[1])
    with torch.no_grad(), exercise.capped(model, *settings(axis)):
        parts = [model(part, cache) for part in (ids[:, :-4], *ids[:, -4:].split(1, 1))]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-3), (
        "read token by token with a cache, a text has other logits than read at once"
    )


def test_the_reply_is_that_of_the_librarys_cap(exercise, model, tokenizer, axis):
    prompt, sampling = mx.encode_chat(tokenizer, CHAT), mx.SamplingParams(max_new_tokens=30)
    with mx.capping(model, axis, layers=[1, 2, 3], percentile=95):
        want = mx.generate(model, tokenizer, [prompt], sampling)
    with exercise.capped(model, *settings(axis)):
        got = mx.generate(model, tokenizer, [prompt], sampling)
    assert got == want, (
        f"the capped model says {tokenizer.decode(got[0])!r}, not {tokenizer.decode(want[0])!r}"
    )


def test_the_model_is_as_before_after_the_with_even_after_an_error(exercise, model, axis):
    with pytest.raises(KeyError), exercise.capped(model, *settings(axis)):
        raise KeyError
    left = [m for m in model.modules() if m._forward_hooks]
    assert not left, "a hook is left on the model"
