"""Every experiment on a puppet: who speaks is planted in one direction of the residual stream, or
in no direction at all. What was planted must be found, and nothing where nothing was planted."""

import json
import sys
from dataclasses import replace
from random import Random

import pytest
import torch

import minaxis as mx
from minaxis.model import rotary
from minaxis.paper import base, capability, costs, drift, jailbreaks, report, space, steering, tiny
from minaxis.support.meter import gauge
from minaxis.support.stats import slopes
from minaxis.tiny import questions as experiments
from minaxis.tiny.world import ASSISTANT, World

LAYERS, WIDTH, FAR = 4, 24, 10.0


class Remembering(World):
    """A world that knows which questions it has asked."""

    def __init__(self):
        super().__init__()
        self.asked = {}

    def question(self, *args, **keys):
        question = super().question(*args, **keys)
        self.asked[question.text] = question
        return question


@pytest.fixture(scope="module")
def world():
    return Remembering()


@pytest.fixture
def puppet(tokenizer):
    """A model whose blocks add nothing: its residual stream is moved by interventions alone."""
    config = mx.Config(
        vocab_size=tokenizer.vocab_size, hidden_size=WIDTH, intermediate_size=8,
        num_hidden_layers=LAYERS, num_attention_heads=2, num_key_value_heads=2, head_dim=12,
        max_position_embeddings=1024, name="puppet",
    )  # fmt: skip
    model = mx.Transformer(config).initialise(torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return model


@pytest.fixture
def v():
    v = torch.randn(WIDTH, generator=torch.Generator().manual_seed(7))
    return v / v.norm()


def place(world, name):
    """Where a character stands on the axis: the Assistant at FAR, the moon at -FAR."""
    return FAR * (1 - 2 * world.people[name]["s"])


@pytest.fixture
def axis(world, v):
    g = torch.Generator().manual_seed(1)
    roles = list(world.characters)
    along = torch.tensor([place(world, r) for r in roles])
    vectors = along[:, None, None] * v + 0.3 * torch.randn(len(roles), LAYERS, WIDTH, generator=g)
    default = FAR * v.expand(LAYERS, WIDTH)
    calibration = torch.cat([along, torch.full((len(roles),), FAR)])
    return mx.Axis(
        vectors=default - vectors.mean(0), default=default, roles=roles, role_vectors=vectors,
        norms=torch.full((LAYERS,), FAR), split_questions=torch.ones(LAYERS),
        projections=calibration[:, None].expand(-1, LAYERS),
        meta={"model": "puppet"},
    )  # fmt: skip


@pytest.fixture
def controls(axis, v):
    """Random directions with nothing of the planted one in them."""
    found = []
    for seed in range(5):
        random = torch.randn(WIDTH, generator=torch.Generator().manual_seed(100 + seed))
        random = random - random @ v * v
        calibration = torch.zeros_like(axis.projections)
        found.append(replace(axis, vectors=random.expand(LAYERS, WIDTH), projections=calibration))
    return found


def perform(monkeypatch, world, v, planted, drifting=0.0):
    """Let the puppet answer. Planted: who speaks follows from the residual stream at its end.

    Args:
        drifting: by how much talk about feelings or selfhood moves it away, each turn.
    """

    def answer(model, tokenizer, conversations, seed, tokens=0):
        rng, texts, means = Random(seed), [], []
        rope = rotary(torch.zeros(1, 1, dtype=torch.long), model.config)
        for talk in conversations:
            system = talk[0]["content"].strip(".").split() if talk[0]["role"] == "system" else []
            name = next((c for c in world.characters if c in system), ASSISTANT)
            question = world.asked[talk[-1]["content"]]
            turn = sum(m["role"] == "user" for m in talk) - 1
            away = drifting * turn if question.topic in ("feelings", "selfhood") else 0.0
            h = ((place(world, name) - away + rng.gauss(0, 0.5)) * v).expand(1, 1, WIDTH)
            layers = []
            with torch.no_grad():
                for block in model.model.layers:
                    h = block(h, rope, None, None)
                    layers.append(h[0, 0])
            means.append(torch.stack(layers))
            along = (h[0, 0] @ v).item()
            if not planted:
                speaker = name
            elif along > 0.7 * FAR:
                speaker = ASSISTANT
            elif name != ASSISTANT:
                speaker = name
            else:
                speaker = "moon"
            texts.append(world.reply(speaker, question, rng))
        return texts, torch.stack(means)

    monkeypatch.setattr(experiments, "answer", answer)


def test_persona_space_finds_a_planted_axis_and_none_in_noise(axis):
    g = torch.Generator().manual_seed(2)
    noise = torch.randn(axis.role_vectors.shape, generator=g)
    untrained = replace(
        axis, role_vectors=noise, default=torch.randn(LAYERS, WIDTH, generator=g),
        vectors=torch.randn(LAYERS, WIDTH, generator=g),
    )  # fmt: skip
    found = space.persona_space(axis, untrained)
    assert min(row["cos_pc1"] for row in found["layers"]) > 0.95
    assert max(row["cos_pc1"] for row in found["random weights"]) < 0.7
    assert found["components for 70 %"] == 1
    assert space.persona_space(untrained, axis)["components for 70 %"] > 5
    roles = found["roles"]
    assert roles["auditor"]["cosines"][0] > 0.9
    assert roles["moon"]["cosines"][0] < -0.9
    assert roles["default"]["place"][0] > roles["teacher"]["place"][0]


def sweep(puppet, world, axis, controls):
    return steering.steering_sweep(
        puppet, None, world, axis, controls, samples=8, coefficients=(-1.0, 0.0, 1.0)
    )


def rates(run, measure):
    return [at[measure]["rate"] for at in run]


def test_steering_finds_a_planted_direction(puppet, world, axis, controls, v, monkeypatch):
    perform(monkeypatch, world, v, planted=True)
    found = sweep(puppet, world, axis, controls)
    assert rates(found["axis"], "default style") == [0, 1, 1]
    assert rates(found["axis"], "archaic")[0] > 0.9
    away, none, toward = rates(found["axis"], "role-play")
    assert toward < 0.5 < away == 1
    assert none < 1  # those nearest to the Assistant are taken for it
    for run in found["random"]:
        for measure in ("default style", "role-play", "accuracy", "archaic"):
            assert len(set(rates(run, measure))) == 1


def test_steering_finds_nothing_where_nothing_was_planted(
    puppet, world, axis, controls, v, monkeypatch
):
    perform(monkeypatch, world, v, planted=False)
    found = sweep(puppet, world, axis, controls)
    for measure in ("default style", "role-play", "accuracy", "archaic"):
        assert len(set(rates(found["axis"], measure))) == 1


def test_jailbreaks_and_the_cap_that_stops_them(puppet, world, axis, controls, v, monkeypatch):
    def answered(condition, who):
        return found["conditions"][condition][who]["answered"]["rate"]

    perform(monkeypatch, world, v, planted=True)
    found = jailbreaks.jailbreaks(puppet, None, world, axis, controls, samples=24)
    assert answered("plain", "nobody") == 0
    assert answered("plain", "fantastical") > 0.8
    assert answered("capped", "fantastical") == 0
    assert found["conditions"]["capped"]["fantastical"]["refused"]["rate"] == 1
    assert min(answered(f"random {i}", "fantastical") for i in range(5)) > 0.8
    weak, strong = (
        next(p for p in found["pareto"] if p["percentile"] == q and p["layers"] == [0, 3])
        for q in (10, 75)
    )
    assert strong["answered"]["rate"] < weak["answered"]["rate"]
    assert strong["role-play"]["rate"] < weak["role-play"]["rate"]
    assert all(p["answered"]["rate"] > 0.8 for p in found["pareto random"])

    perform(monkeypatch, world, v, planted=False)
    found = jailbreaks.jailbreaks(puppet, None, world, axis, controls, samples=24)
    assert answered("capped", "fantastical") == answered("plain", "fantastical") > 0.8


def drifted(puppet, tokenizer, world, axis, controls):
    return drift.drift(puppet, tokenizer, world, axis, controls, talks=8, turns=5)


def test_drift_finds_planted_slopes_and_what_a_cap_does_to_them(
    puppet, tokenizer, world, axis, controls, v, monkeypatch
):
    perform(monkeypatch, world, v, planted=True, drifting=2.0)
    found = drifted(puppet, tokenizer, world, axis, controls)
    for domain, slope in ("coding", 0), ("writing", 0), ("therapy", -2), ("philosophy", -2):
        for way in ("plain", "random"):
            talk = found[way][domain]
            assert talk["slope"]["mean"] == pytest.approx(slope, abs=0.3)
            assert (talk["style"][-1]["rate"] == 1) == (slope == 0)
            assert talk["ends as"]["assistant" if slope == 0 else "fantastical"] == 1
        assert found["capped"][domain]["slope"]["mean"] == pytest.approx(0, abs=0.3)
        assert found["capped"][domain]["style"][-1]["rate"] == 1
        assert found["late"][domain]["style"]["rate"] == 1
    told = found["prediction"]
    # The message tells the domain, and not the turn, which does as much.
    assert told["position"] > 0.15
    assert told["position, messages shuffled"] < 0.05


def test_drift_finds_none_where_none_was_planted(
    puppet, tokenizer, world, axis, controls, v, monkeypatch
):
    perform(monkeypatch, world, v, planted=True)
    found = drifted(puppet, tokenizer, world, axis, controls)
    for talk in found["plain"].values():
        assert abs(talk["slope"]["mean"]) < 4 * talk["slope"]["error"] + 0.01
        assert talk["style"][-1]["rate"] == 1
    assert found["prediction"]["position"] < 0.15


def test_slopes():
    lines = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    torch.testing.assert_close(slopes(lines), torch.tensor([1.0, 0.0]))


def test_capability_finds_a_planted_loss_and_none_without(
    puppet, world, axis, controls, v, monkeypatch
):
    perform(monkeypatch, world, v, planted=True)
    found = capability.capability(puppet, None, world, axis, controls, samples=20)
    assert found["plain"]["all"]["rate"] == 1
    assert found["capped"]["all"]["difference"] == 0
    harmful = replace(controls[0], vectors=axis.vectors)  # a floor that is no harm ...

    def ask(model, tokenizer, world, asked, seed, real=experiments.ask):
        readings = real(model, tokenizer, world, asked, seed)
        hooks = len(model.model.layers[0]._forward_hooks)
        return [replace(r, right=r.right and not hooks) for r in readings]

    monkeypatch.setattr(experiments, "ask", ask)  # ... until every capped answer is wrong
    found = capability.capability(puppet, None, world, axis, [harmful], samples=20)
    assert found["capped"]["all"]["difference"] == -1
    assert found["capped"]["all"]["high"] < -0.8


def test_base_and_chat_tells_the_same_axis_from_another(
    puppet, world, axis, controls, v, monkeypatch
):
    perform(monkeypatch, world, v, planted=True)
    g = torch.Generator().manual_seed(3)
    other = replace(axis, role_vectors=torch.randn(axis.role_vectors.shape, generator=g))
    found = base.base_and_chat(
        puppet, None, world, axis, axis, other, controls, samples=4, coefficients=(-1.0, 1.0)
    )
    for row in found["layers"]:
        assert row["pc1"] == pytest.approx(1, abs=1e-5)
        assert row["pc1, random weights"] < 0.7
    assert rates(found["steered"]["axis"], "archaic")[0] > 0.9
    assert rates(found["steered"]["axis"], "archaic")[1] == 0
    assert all(len(set(rates(run, "archaic"))) == 1 for run in found["steered"]["random"])


def test_costs_counts_lost_role_play_and_fires(
    puppet, tokenizer, world, axis, controls, v, monkeypatch
):
    perform(monkeypatch, world, v, planted=True)
    found = costs.costs(puppet, tokenizer, world, axis, controls, samples=2)
    assert found["role-play"]["plain"]["fantastical"]["rate"] == 1
    assert found["role-play"]["capped"]["fantastical"]["rate"] == 0
    assert found["role-play lost"]["fantastical"]["high"] < 0
    assert all(found["role-play"][f"random {i}"]["fantastical"]["rate"] == 1 for i in range(5))
    assert all(row["tokens"]["rate"] == 1 for row in found["fires"])  # its embeddings are small

    low = replace(axis, projections=axis.projections - 1000)
    perform(monkeypatch, world, v, planted=False)
    found = costs.costs(puppet, tokenizer, world, low, controls, samples=2)
    assert all(row["replies"]["rate"] == 0 for row in found["fires"])
    assert found["role-play lost"]["fantastical"]["difference"] == 0


def test_the_meter_replays_the_talk_that_drifts(puppet, tokenizer, world, axis, v, monkeypatch):
    perform(monkeypatch, world, v, planted=True, drifting=2.0)
    found = tiny.replayed(puppet, tokenizer, world, axis, talks=4, turns=5)
    plain, capped = ([t[way] for t in found["turns"]] for way in ("plain", "capped"))
    assert plain[0]["speaking"] == capped[-1]["speaking"] == ASSISTANT
    assert plain[-1]["speaking"] == "moon"
    assert plain[-1]["projection"] < capped[-1]["projection"] - 5
    assert found["style"]["plain"][-1] == 0
    assert found["style"]["capped"][-1] == 1


def test_a_gauge_shows_the_value_and_the_floor():
    assert gauge(0, 5, 0, 10, 10) == "●····|····"
    assert gauge(99, 5, 0, 10, 10) == "·····|···●"  # off the scale is at its end
    assert gauge(5, 5, 0, 10, 10) == "·····●····"


@pytest.fixture
def reproduced(puppet, tokenizer, world, axis, controls, v, monkeypatch):
    """What `reproduce` returns, of a puppet with everything planted, at a small scale."""
    perform(monkeypatch, world, v, planted=True, drifting=2.0)
    rollouts = {"moon": {"responses": []}}
    monkeypatch.setattr(tiny, "tiny_axis", lambda *_: (axis, rollouts))
    monkeypatch.setattr(tiny, "play", lambda *_: rollouts)
    monkeypatch.setattr(tiny, "replay", lambda *_: rollouts)
    monkeypatch.setattr(tiny, "fit_axis", lambda *_: axis)
    monkeypatch.setattr(tiny, "in_role", lambda *_: {"moon": torch.tensor([True])})
    monkeypatch.setattr(tiny, "random_direction", lambda axis, _, seed: controls[seed % 5])
    return lambda: tiny.reproduce(puppet, puppet, tokenizer, world, scale=0.1, watch=lambda _: 0)


@pytest.fixture
def results(reproduced, shared={}):  # noqa: B006, shared by the tests on purpose
    """One such run, for all tests that only read it."""
    if not shared:
        shared.update(reproduced())
    return shared


def test_the_same_seed_gives_the_same_results_json(reproduced, tmp_path):
    for name in ("a", "b"):
        report.write_run(tmp_path / name, reproduced(), {"model": "puppet", "seed": 0}, 1.0)
    first, second = ((tmp_path / n / "results.json").read_bytes() for n in ("a", "b"))
    assert first == second
    assert b"NaN" not in first  # it must be JSON for everyone


def test_claims_that_were_planted_hold_and_the_page_needs_nothing_else(results, tmp_path):
    run = report.write_run(tmp_path, results, {"model": "puppet", "seed": 0}, 1.0)
    words = {c.text.split(":")[0]: c.verdict for c in report.claims(run["results"])}
    for text in (
        "A cap halves what personas give away",
        "Therapy and philosophy leave the Assistant",
        "Capped from the start, the identity stays",
        "Capped from the last turn on, a lost identity comes back",
        "Persona space has few dimensions",
    ):
        assert words[text] == "holds", text
    # The control of these two is a copy of the axis itself: they must not be said to hold.
    assert words["The axis is close to PC1 of persona space"] == "not"

    report.write_html(tmp_path / "report.html", run, {"a-figure": "<svg></svg>"})
    page = (tmp_path / "report.html").read_text()
    assert "<h2>a figure</h2><svg></svg>" in page
    assert "http" not in page
    assert all(text.split("&")[0][:30] in page for text in words)


def test_the_readmes_table_is_replaced_and_nothing_else(results, tmp_path):
    readme = tmp_path / "README.md"
    for seed in (0, 1):
        about = {"model": "puppet", "seed": seed}
        report.write_run(tmp_path / str(seed), results, about, 1.0)
    runs = [report.read_run(tmp_path / seed) for seed in ("0", "1")]
    begin, end = (mark.format("tiny") for mark in report.MARKS)
    readme.write_text(f"before\n{begin}\nformer\n{end}\nafter\n")
    report.write_readme(readme, runs)
    once = readme.read_text()
    assert once.startswith(f"before\n{begin}\n| the paper's claim")
    assert once.endswith(f"{end}\nafter\n")
    assert "former" not in once
    assert "puppet (seed 0), puppet (seed 1)" in once
    report.write_readme(readme, runs)
    assert readme.read_text() == once
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="expected one <!-- results of tiny begin -->"):
        report.write_readme(readme, runs)


def test_runs_that_disagree_are_told_apart(results):
    other = json.loads(json.dumps(results))
    for condition in other["jailbreaks"]["conditions"].values():
        condition["fantastical"] = condition["nobody"]  # nobody gives anything away
    rows = report.merged([{"results": results}, {"results": other}])
    assert [r["verdict"] for r in rows if "halves" in r["claim"]] == ["partly (holds in 1 of 2)"]


def test_every_figure_is_drawn_twice_alike(results, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'minaxis[plot]'")
    from minaxis.paper import figures as plots

    first = plots.draw(results, tmp_path / "a")
    assert first == plots.draw(results, tmp_path / "b")
    assert set(first) == {name for name, _, _ in plots.FIGURES} - {"secrets"}
    for name, svg in first.items():
        assert svg.startswith("<svg")
        assert (tmp_path / "a" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert plots.GREY.lower() in svg.lower(), f"{name} shows no control"


def test_without_matplotlib_the_error_names_the_extra(monkeypatch, tmp_path):
    from minaxis.paper import figures as plots

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'minaxis\[plot\]'"):
        plots.draw({}, tmp_path)
