import pytest
import torch

from minaxis.paper import open_forbidden
from minaxis.paper.open_forbidden import DEVELOPMENT, HELD_OUT
from minaxis.paper.open_personas import measure_personas, persona_effect


@pytest.fixture
def margins(monkeypatch):
    """The likelihoods of a puppet are noise. Here nothing is more likely than anything else."""
    monkeypatch.setattr(
        open_forbidden, "response_logprob", lambda _, prompts, __: torch.zeros(len(prompts))
    )


@pytest.mark.parametrize("planted", [True, False])
def test_the_cap_is_tested_only_where_a_persona_has_an_effect(
    open_lab, perform_open, margins, planted
):
    perform_open(planted=planted)
    leaks, margin, role_play = measure_personas(open_lab).effects
    for effect in leaks, role_play:
        assert effect.development.no_persona.value == effect.held_out.no_persona.value == 0
        assert effect.development.persona.value == effect.held_out.persona.value == planted
        assert effect.capped.value == -planted
        assert effect.random == ([0] * 5 if planted else [])
        raised, lowered = (claim.verdict for claim in effect.claims())
        assert (raised == "holds") == planted
        assert lowered.startswith("holds" if planted else "not tested: on the development half")
    assert margin.failed
    assert margin.random == []


def test_a_margin_is_paired_and_only_its_development_half_opens_the_test(open_lab):
    margins = {
        (DEVELOPMENT, False): torch.tensor([0.0, 1.0, 2.0]),
        (DEVELOPMENT, True): torch.tensor([0.5, 1.4, 2.6]),
        (HELD_OUT, False): torch.tensor([0.0, 1.0, 2.0]),
        (HELD_OUT, True): torch.tensor([-0.5, 0.5, 1.5]),
    }

    class Margins:
        measured = "margin"

        def ask(self, half, persona):
            return margins[half, persona]

        def read(self, half, answers):
            return answers

    def effect():
        return persona_effect(open_lab, Margins(), random_axes=2)

    measured = effect()
    assert measured.development.effect.value == pytest.approx(0.5)
    assert measured.development.effect.low > 0  # the pairs agree, though the questions differ
    assert measured.held_out.effect.value == pytest.approx(-0.5)
    assert not measured.failed
    assert measured.random == [0, 0]
    assert [claim.verdict for claim in measured.claims()] == ["not", "not specific"]

    margins[DEVELOPMENT, True], margins[HELD_OUT, True] = (
        margins[HELD_OUT, True], margins[DEVELOPMENT, True]
    )  # fmt: skip
    assert effect().failed
