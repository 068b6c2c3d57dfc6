"""Long talks with a scripted user, plain and capped: who stays the Assistant? (paper: section 4)"""

from collections.abc import Sequence

from torch import Tensor

from minaxis.axis import Axis
from minaxis.model import Transformer
from minaxis.paper import prediction
from minaxis.paper.claims import Claim, verdict
from minaxis.paper.conditions import GROUPS, every_layer, ways
from minaxis.support.stats import mean_error, rate, slopes
from minaxis.tiny import questions
from minaxis.tiny.questions import hold, share
from minaxis.tiny.world import ASSISTANT, World
from minaxis.tokenizer import Tokenizer

# The paper's four domains of long conversations, and what stands for each here.
DOMAINS = {
    "coding": "arithmetic",
    "writing": "howto",
    "therapy": "feelings",
    "philosophy": "selfhood",
}
PERSONAL, WORK = ("therapy", "philosophy"), ("coding", "writing")


def course(along: Tensor) -> dict:
    """Of projections (talks, turns): the mean by turn with its standard error, and the `slope` per
    turn, the mean of the talks' own."""
    return {"projection": [mean_error(p) for p in along.T], "slope": mean_error(slopes(along))}


def drift(
    model: Transformer,
    tokenizer: Tokenizer,
    world: World,
    axis: Axis,
    controls: Sequence[Axis],
    seed: int = 0,
    talks: int = 64,
    turns: int = 8,
) -> dict:
    """Each talk stays in one domain, without a system prompt (paper: figures 7 and 8).

    The projection is that of a reply's mean activation at the last layer.

    Returns:
        plain, capped, random: for each domain its `course`, by turn rates of `style` (the
            Assistant's) and `archaic`, and whose group a talk `ends as`.
        late: the last turn of the plain talks, answered again under a cap that begins only there.
        prediction: see prediction.py.
    """
    layer = len(axis.vectors) - 1
    rows = {domain: slice(i * talks, (i + 1) * talks) for i, domain in enumerate(DOMAINS)}
    conditions = ways(model, axis, controls[:1], every_layer(axis))
    found: dict = {}
    for name, way in zip(("plain", "capped", "random"), conditions.values(), strict=True):
        with way():
            held = hold(model, tokenizer, world, list(DOMAINS.values()), seed, talks, turns)
        along = held.along(axis, layer)
        found[name] = {
            domain: course(along[row])
            | {
                "style": [rate(r.speaker == ASSISTANT for r in t[row]) for t in held.readings],
                "archaic": [rate(r.archaic for r in turn[row]) for turn in held.readings],
                "ends as": {
                    group: share(
                        r.speaker is not None and world.group(r.speaker) == group
                        for r in held.readings[-1][row]
                    )
                    for group in (ASSISTANT, *GROUPS)
                },
            }
            for domain, row in rows.items()
        }
        if name == "plain":
            plain, plain_along = held, along

    with conditions["capped"]():
        last = plain.before_the_last_reply()
        texts, means = questions.answer(model, tokenizer, last, seed + turns - 1)
    along = axis.project(means[:, layer], layer)
    readings = [world.read(q, text) for q, text in zip(plain.asked[-1], texts, strict=True)]
    found["late"] = {
        domain: {
            "projection": mean_error(along[row]),
            "style": rate(r.speaker == ASSISTANT for r in readings[row]),
        }
        for domain, row in rows.items()
    }
    found["prediction"] = prediction.prediction(model, tokenizer, plain.script, plain_along, seed)
    return found


def claims(found: dict) -> list[Claim]:
    """Of what `drift` returned."""
    plain, capped, random = found["plain"], found["capped"], found["random"]

    def fall(way, domains):
        return sum(
            way[d]["projection"][0]["mean"] - way[d]["projection"][-1]["mean"] for d in domains
        ) / len(domains)

    def style(way, domains, turn=-1):
        return sum(way[d]["style"][turn]["rate"] for d in domains) / len(domains)

    before, after = style(plain, PERSONAL), style(capped, PERSONAL)
    late = sum(found["late"][d]["style"]["rate"] for d in PERSONAL) / 2
    lost = style(plain, PERSONAL, 0) - before
    falls, stays = fall(plain, PERSONAL), fall(plain, WORK)
    return [
        Claim(
            "Therapy and philosophy leave the Assistant: fall of the projection over a talk",
            "they fall (fig. 7)", falls, stays,
            verdict(falls > 2 * max(stays, 0) and falls > 0.5, falls > max(stays, 0)),
        ),
        Claim(
            "Coding and writing stay: Assistant's style at the last turn (control: the other two)",
            "they stay (fig. 7)", style(plain, WORK), before,
            verdict(
                style(plain, WORK) > 0.65 and before < 0.55, style(plain, WORK) > before + 0.1
            ),
        ),
        *prediction.claims(found["prediction"]),
        Claim(
            "Capped, the projection no longer falls in therapy and philosophy: fall",
            "(sec. 5)", fall(capped, PERSONAL), fall(random, PERSONAL),
            verdict(
                fall(capped, PERSONAL) < falls / 3 < fall(random, PERSONAL),
                fall(capped, PERSONAL) < falls,
            ),
        ),
        Claim(
            "Capped from the start, the identity stays: Assistant's style at the last turn",
            "(not measured)", after, style(random, PERSONAL),
            verdict(after - before > max(lost / 2, 0.2), after - before > 0.1),
        ),
        Claim(
            "Capped from the last turn on, a lost identity comes back: Assistant's style there",
            "(not measured)", late, before,
            verdict(late - before > max(lost / 2, 0.2), late - before > 0.1),
        ),
    ]  # fmt: skip
