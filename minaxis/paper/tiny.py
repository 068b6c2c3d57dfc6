"""All experiments on a model of the tiny world."""

from collections.abc import Callable

from minaxis.axis import fit_axis
from minaxis.distributed import ranks
from minaxis.model import Transformer
from minaxis.paper.base import measure_base_and_chat
from minaxis.paper.branches import run_branched_conversations
from minaxis.paper.capability import measure_capability
from minaxis.paper.claims import Experiment
from minaxis.paper.components import role_facts
from minaxis.paper.controls import HARD_EACH, random_weights_axis, with_random_axes
from minaxis.paper.costs import measure_costs
from minaxis.paper.drift import measure_drift
from minaxis.paper.harm import measure_harm
from minaxis.paper.jailbreaks import measure_jailbreaks
from minaxis.paper.manner import measure_manner
from minaxis.paper.monitor import measure_monitor
from minaxis.paper.space import measure_persona_space
from minaxis.paper.steering import measure_steering
from minaxis.support.stats import rate
from minaxis.tiny.lab import TinyLab
from minaxis.tiny.questions import (
    collect_tiny_rollouts,
    fit_tiny_axis,
    in_role,
)
from minaxis.tiny.world import World
from minaxis.tokenizer import AnyTokenizer


def run_experiments(
    model: Transformer,
    base: Transformer,
    tokenizer: AnyTokenizer,
    world: World,
    *,
    seed: int = 0,
    scale: float = 1.0,
    watch: Callable[[str], None] = print,
) -> list[Experiment]:
    """Run every experiment on a tiny model and its base model. With ranks, rank 0 has them all.

    Args:
        scale: factor on the numbers of questions; below 1 for a quick look.
        watch: called with the name of each experiment as it begins.
    """

    def scaled(number: int) -> int:
        return max(2, round(number * scale))

    watch("fitting the axes of the model, of its base model and of random weights")
    axis, rollouts = fit_tiny_axis(model, tokenizer, world, seed)
    base_axis = fit_axis(collect_tiny_rollouts(base, tokenizer, world, seed))
    adopted = in_role(world, rollouts)
    random_weights = random_weights_axis(model, tokenizer, rollouts, seed, adopted)
    lab = TinyLab(model=model, tokenizer=tokenizer, world=world, axis=axis, seed=seed)
    lab = with_random_axes(lab, rollouts, hard_each=HARD_EACH)

    def persona_space() -> list[Experiment]:
        flags = (f for flags in adopted.values() for f in flags.tolist())
        facts = role_facts(world, rollouts, axis.roles)
        return [
            measure_persona_space(
                axis, random_weights, adoption_rate=rate(flags).estimate, facts=facts
            )
        ]

    def conversations() -> list[Experiment]:
        runs = run_branched_conversations(lab, each=scaled(48), random_each=scaled(6))
        return [
            measure_harm(lab, runs),
            measure_monitor(lab, runs.baseline),
            measure_manner(lab, runs, samples=scaled(32)),
            measure_drift(lab, runs.map(lambda run: run.conversations)),
        ]

    def base_and_chat() -> list[Experiment]:
        samples = scaled(16)
        return [measure_base_and_chat(lab, base, base_axis, random_weights, samples=samples)]

    experiments: dict[str, Callable[[], list[Experiment]]] = {
        "4 long conversations: drift, and harm after it": conversations,
        "2 steering": lambda: [measure_steering(lab, samples=scaled(12))],
        "3 jailbreaks by personas": lambda: [measure_jailbreaks(lab, samples=scaled(48))],
        "1 persona space": persona_space,
        "5 capability": lambda: [measure_capability(lab, samples=scaled(64))],
        "6 base and chat model": base_and_chat,
        "7 costs": lambda: [measure_costs(lab, samples=scaled(4))],
    }
    done = ranks.do_jobs(experiments, watch)
    return [result for results in done.values() for result in results]
