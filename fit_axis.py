"""Fit the Assistant Axis of a model, and say how far to trust it.

    python fit_axis.py                        # the tiny model: 10 s on two cores
    python fit_axis.py --model smollm2        # 2 to 5 minutes; see docs/smollm2.md first
    torchrun --nproc-per-node 4 fit_axis.py   # four processes share the roles

Every role answers every question. The axis is the mean activation of the default Assistant minus
that of the roles. The last columns of the table are the control: the same responses read by a copy
of the model with random weights, which knows nothing of roles. If the run is interrupted, the same
command continues it.

Writes to out/MODEL/: axis.pt, report.json, responses.jsonl, and rollouts/ (safe to delete).
"""

import argparse
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # an interrupt ends the imports, which take seconds, without a word
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import torch
from torch import Tensor, nn

import minaxis as mx
from minaxis.axis import layer_table
from minaxis.distributed import ranks
from minaxis.hooks import describe
from minaxis.loading.reference import read_responses, read_scores
from minaxis.paper.controls import read_by_random_weights
from minaxis.roles import DEFAULT, Roles
from minaxis.support import arguments
from minaxis.support.files import write_json
from minaxis.tiny.questions import in_role, roles_and_questions
from minaxis.tiny.world import World
from minaxis.tokenizer import AnyTokenizer


def parse() -> argparse.Namespace:
    p = arguments.parser(__doc__)
    add = p.add_argument
    add("--roles", type=Path, help="roles: a .json file or a folder (default: built in)")
    add("--questions", type=Path, help="questions: a .json or .jsonl file (default: built in)")
    count = arguments.number(int, 1, 10**9)
    add(
        "--responses",
        type=Path,
        metavar="FOLDER",
        help="generate nothing: read FOLDER/responses and FOLDER/scores of the paper's pipeline",
    )
    add("--n-roles", type=count, help="number of roles, spread over the list (default: all)")
    add("--n-prompts", type=count, default=2, help="system prompts of each role")
    add(
        "--n-questions",
        type=count,
        help="number of questions, the first of the list (default: 4 of the built-in ones; of a "
        "file or in the tiny world all)",
    )
    add(
        "--default-samples",
        type=count,
        help="answers of the default Assistant to each prompt (default: 4; tiny world: 1)",
    )
    add("--tokens", type=count, default=48, help="the most tokens of a response")
    add("--batch-size", type=count, default=64, help="responses generated together")
    add(
        "--position",
        choices=["mean", "prompt_end"],
        default="mean",
        help="activation of a response: mean over its tokens, or last token of its prompt",
    )
    add(
        "--filter",
        action="store_true",
        help="use only responses in role (the tiny world, with its exact reader, always does)",
    )
    add(
        "--skip-nonfinite",
        action="store_true",
        help="leave out responses with NaN or infinite activations, and say how many",
    )
    add(
        "--tensor-parallel",
        type=count,
        metavar="K",
        default=1,
        help="K ranks share one model, if it is too large for one GPU (with torchrun)",
    )
    add("--no-control", action="store_true", help="leave out the random-weights control")
    add("--out", type=Path, help="output folder (default: out/MODEL)")
    args = p.parse_args()
    generating = (
        "roles questions n_roles n_prompts n_questions default_samples tokens batch_size "
        "temperature top_p"
    )
    arguments.check_effect(p, args, {"responses": "", "": generating})
    return args


def main() -> None:
    args, started = parse(), time.monotonic()
    ranks.check_same(vars(args))
    sampling = mx.SamplingParams(
        max_new_tokens=args.tokens, temperature=args.temperature, top_p=args.top_p, seed=args.seed
    )
    model, tokenizer = mx.load(
        args.model, args.dtype, args.device,
        download=args.download, tensor_parallel=args.tensor_parallel,
    )  # fmt: skip
    out = args.out or arguments.out(args)
    world = World() if arguments.is_tiny(args) and not args.responses else None
    if world:
        torch.set_num_threads(1)  # its matrices are so small that two threads mostly wait
    judged: dict[str, Any] = {}
    if args.responses:
        if ranks.worker(model).total > 1:
            raise ValueError("--responses is for one worker: start it with python, not torchrun")
        rollouts = read_responses(model, tokenizer, args.responses / "responses")
        adopted = read_scores(args.responses / "scores", rollouts)
    else:
        rollouts = generate(args, model, tokenizer, world, sampling, out)
    if world:
        adopted = in_role(world, rollouts)
    elif not args.responses:
        scores, threshold = mx.judge(model, tokenizer, rollouts)
        adopted = {role: s > threshold for role, s in scores.items()}
        judged = {"threshold": threshold, "scores": {r: s.tolist() for r, s in scores.items()}}
    random = None
    if not args.no_control:
        random = read_by_random_weights(model, tokenizer, rollouts, args.seed)
    if ranks.rank():
        return  # rank 0 does the rest
    filtered = args.filter or world is not None or args.responses is not None
    used = adopted if filtered else None
    axis = mx.fit_axis(
        rollouts, used, position=args.position, skip_nonfinite=args.skip_nonfinite
    )  # fmt: skip
    axis.adoption = {role: a.float().mean().item() for role, a in adopted.items()}
    control = None
    if random:
        control = layer_table(mx.fit_axis(random, used, position=args.position))

    table, middle = layer_table(axis), model.config.num_hidden_layers // 2
    assert axis.role_vectors is not None
    assert axis.default is not None
    projections = axis.project(axis.role_vectors[:, middle], middle).tolist()
    order = sorted(zip(projections, axis.roles, strict=True), reverse=True)
    default = axis.project(axis.default[middle], middle).item()
    adoption = sum(axis.adoption.values()) / len(axis.adoption)
    print_layers(table, control, len(axis.roles) + 1)
    print_roles(order, default, axis.adoption, middle)
    print_adoption(adoption, judged, "exact reader" if world else "the files' scores")
    if left_out := [f"{r} ({a:.0%})" for r, a in axis.adoption.items() if r not in axis.roles]:
        print(f"Left out, with fewer than two responses in role: {', '.join(left_out)}.")
        if world and not world.characters.keys() >= axis.adoption.keys():
            print("The exact reader knows no characters but those of world.json.")
    if nonfinite := axis.meta["nonfinite"]:
        counts = ", ".join(f"{role} {n}" for role, n in nonfinite.items())
        print(f"Left out, because their activations are not finite: {counts}.")
    in_role_only = None if filtered else compare_filtered(rollouts, adopted, axis, args, middle)

    axis.save(out / "axis.pt")
    rollouts.write_jsonl(out / "responses.jsonl")
    report = {
        "settings": arguments.settings(args),
        "versions": {"minaxis": mx.__version__, "torch": torch.__version__},
        "seconds": round(time.monotonic() - started, 1),
        "layers": table,
        "random_control": control,
        "roles": [{"role": r, "projection": p, "adoption": axis.adoption[r]} for p, r in order],
        "default_projection": default,
        "adoption": adoption,
        "judge": judged,
        "in_role_only": in_role_only,
    }
    write_json(out / "report.json", report)
    print(f"\n{out}/axis.pt, report.json, responses.jsonl written in {report['seconds']:.0f} s")


def generate(
    args: argparse.Namespace,
    model: nn.Module,
    tokenizer: AnyTokenizer,
    world: World | None,
    sampling: mx.SamplingParams,
    out: Path,
) -> mx.Rollouts:
    """Let every role answer every question."""
    roles, questions = choose(args, world)
    print(
        f"{describe(model)[0]}: {len(roles) - 1} roles and the default, {len(questions)} questions,"
        f" {sum(map(len, roles.values())) * len(questions)} responses of up to {args.tokens} "
        f"tokens, {len(roles[DEFAULT]) * len(questions)} of them the default's"
    )
    return mx.collect(
        model, tokenizer, roles, questions, sampling,
        batch_size=args.batch_size, folder=out / "rollouts",
    )  # fmt: skip


def choose(args: argparse.Namespace, world: World | None) -> tuple[Roles, list[str]]:
    """Roles with their prompts, and questions: those of the files or built in, so many of each."""
    if world:
        roles, questions = roles_and_questions(world, args.seed)
    else:
        roles, questions = mx.read_roles(), mx.read_questions()
    if args.roles:
        roles = mx.read_roles(args.roles)
    if args.questions:
        questions = mx.read_questions(args.questions)
    asked = args.n_questions or (len(questions) if world or args.questions else 4)
    if asked > len(questions):
        raise ValueError(f"--n-questions must be from 1 to {len(questions)}, got {asked}")
    questions = questions[:asked]
    names = [r for r in roles if r != DEFAULT]
    count = len(names) if args.n_roles is None else args.n_roles
    if not 2 <= count <= len(names):
        raise ValueError(f"--n-roles must be from 2 to {len(names)}, got {count}")
    samples = args.default_samples or (1 if world else 4)
    # Spread over the list, first and last included: ours runs from professional to fantastical.
    names = [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]
    # The axis is the difference of two means. One rests on the responses of all roles, the other
    # on the default's alone: with few questions, the default answers each of them more than once.
    return {
        DEFAULT: roles[DEFAULT] * samples,
        **{r: roles[r][: args.n_prompts] for r in names},
    }, questions


def compare_filtered(
    rollouts: mx.Rollouts,
    adopted: Mapping[str, Tensor],
    axis: mx.Axis,
    args: argparse.Namespace,
    layer: int,
) -> dict[str, Any] | None:
    """Print how the axis of the responses in role alone compares with this one."""
    try:
        other = mx.fit_axis(
            rollouts, adopted, position=args.position, skip_nonfinite=args.skip_nonfinite
        )
    except ValueError as e:
        print(f"No axis can be fitted on the responses in role alone: {e}")
        return None
    cosine = (other.unit()[layer] @ axis.unit()[layer]).item()
    row = layer_table(other)[layer]
    left_out = [role for role in axis.adoption if role not in other.roles]
    print(
        f"The axis fitted on responses in role alone has cosine {cosine:.2f} with this one at "
        f"layer {layer}; its cos PC1 is {row['cos_pc1']:.2f}.\nIt leaves out "
        f"{', '.join(left_out) or 'no role'}."
    )
    return {"cosine": cosine, "left_out": left_out, **row}


def print_adoption(adoption: float, judged: dict[str, Any], judge: str) -> None:
    if not judged:
        print(f"\nRole adoption: {adoption:.0%} of the responses are in role ({judge}).")
        return
    print(
        f"\nRole adoption: {adoption:.0%} of the responses gain more than "
        f"{judged['threshold']:.3f} nats per token from the role's prompt.\nOf the default's own "
        "responses 5 % gain as much from a neutral prompt. If roles are not adopted, the axis is "
        "meaningless."
    )


def print_layers(
    table: list[dict[str, Any]], control: list[dict[str, Any]] | None, count: int
) -> None:
    print(
        "\n                  variance of      split-half over    rank of default   random weights"
        "\nlayer  cos PC1  PC1  PC2  PC3    prompts questions    axis   PC1    cos PC1  split-half"
    )
    for row in table:
        pc1, pc2, pc3 = [*row["variance"], 0, 0][:3]
        line = (
            f"{row['layer']:5d}  {row['cos_pc1']:7.2f}  {pc1:.2f} {pc2:.2f} {pc3:.2f}  "
            f"{number(row['split_half'])} {number(row['split_questions'])}"
            f"   {row['default_rank']:5d} {row['default_rank_pc1']:5d}"
        )
        if control:
            random = control[row["layer"]]
            line += f"    {random['cos_pc1']:7.2f}   {number(random['split_half'])}"
        print(line)
    print(f"Ranks are among {count}. On the axis itself a rank near 1 is nearly guaranteed.")
    halves = [row["split_questions"] for row in control or [] if row["split_questions"] is not None]
    if halves:
        print(
            "Halves that share no question share their prompts. With random weights they agree at "
            f"{min(halves):.2f} to {max(halves):.2f}."
        )


def number(x: float | None) -> str:
    return "        -" if x is None else f"{x:9.2f}"


def print_roles(
    order: list[tuple[float, str]], default: float, adoption: dict[str, float], layer: int
) -> None:
    print(f"\nRoles by projection at layer {layer}, the Assistant's end first (share in role):")
    rows = [f"{p:8.1f}  {role} ({adoption[role]:.0%})" for p, role in order]
    rows.insert(sum(p > default for p, _ in order), f"{default:8.1f}  * the default Assistant *")
    half = (len(rows) + 1) // 2
    for left, right in zip(rows[:half], [*rows[half:], ""], strict=False):
        print(f"{left:42s}{right}".rstrip())


if __name__ == "__main__":
    arguments.run(main, over_ranks=True)
