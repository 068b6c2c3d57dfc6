"""Fit the Assistant Axis of a model, and say how far to trust it.

    python fit_axis.py                        # the tiny model: 10 s on two cores
    python fit_axis.py --model smollm2        # 5 minutes

Every role answers every question; the axis is the default Assistant's mean activation minus the
roles'. Beside each number stands its control: the same responses read by a copy of the model with
random weights, which knows nothing of roles. Interrupted, the same command continues.

Writes to out/MODEL/: axis.pt, report.json, responses.jsonl, and rollouts/ (safe to delete).
"""

import time
from pathlib import Path

import torch

import minaxis as mx
from minaxis.axis import layer_table
from minaxis.roles import DEFAULT
from minaxis.support import arguments as cli
from minaxis.support.files import write_json
from minaxis.tiny.questions import in_role, script
from minaxis.tiny.world import World


def arguments():
    p = cli.parser(__doc__)
    add = p.add_argument
    add("--roles", type=Path, help=".json file, or a folder; None is built in")
    add("--questions", type=Path, help=".json or .jsonl; None is built in")
    add("--n-roles", type=int, help="this many, evenly over the list; None is all")
    add("--n-prompts", type=int, default=2, help="system prompts a role")
    add("--n-questions", type=int, help="the first of the list; None is 4, of the tiny world all")
    add("--default-samples", type=int,
        help="answers of the default to each prompt; None is 4, in the tiny world 8")  # fmt: skip
    add("--tokens", type=int, default=48, help="most tokens a response")
    add("--batch-size", type=int, default=64, help="responses at once")
    add("--position", choices=["mean", "prompt_end"], default="mean",
        help="which activation of a response: see minaxis/rollouts.py")
    add("--filter", action="store_true", help="use only responses in role, as is always done in "
        "the tiny world, where the judge is exact; see minaxis/judge.py")  # fmt: skip
    add("--no-control", action="store_true", help="leave out the random weights")
    add("--out", type=Path, help="folder; None is out/MODEL")
    return p.parse_args()


def main():
    args, started = arguments(), time.monotonic()
    model, tokenizer = mx.load(args.model, args.dtype, args.device, download=args.download)
    out = args.out or cli.out(args)
    world = World() if cli.is_tiny(args) else None
    if world:
        torch.set_num_threads(1)  # its matrices are so small that two threads would mostly wait
    roles, questions = choose(args, world)
    print(
        f"{model.config.name}: {len(roles) - 1} roles and the default, {len(questions)} questions,"
        f" {sum(map(len, roles.values())) * len(questions)} responses of up to {args.tokens} tokens"
    )
    sampling = mx.SamplingParams(
        max_new_tokens=args.tokens, temperature=args.temperature, top_p=args.top_p, seed=args.seed
    )
    rollouts = mx.collect(
        model, tokenizer, roles, questions, sampling,
        batch_size=args.batch_size, folder=out / "rollouts",
    )  # fmt: skip
    if world:
        adopted, judged = in_role(world, rollouts), {}
    else:
        scores, threshold = mx.judge(model, tokenizer, rollouts)
        adopted = {role: s > threshold for role, s in scores.items()}
        judged = {"threshold": threshold, "scores": {r: s.tolist() for r, s in scores.items()}}
    filtered = args.filter or world is not None
    axis = mx.fit_axis(rollouts, adopted if filtered else None, position=args.position)
    axis.adoption = {role: a.float().mean().item() for role, a in adopted.items()}
    control = (
        None if args.no_control else layer_table(random_axis(model, tokenizer, rollouts, args))
    )

    table, middle = layer_table(axis), model.config.num_hidden_layers // 2
    along = axis.project(axis.role_vectors[:, middle], middle).tolist()
    order = sorted(zip(along, axis.roles, strict=True), reverse=True)
    default = axis.project(axis.default[middle], middle).item()
    print_layers(table, control, len(axis.roles) + 1)
    print_roles(order, default, axis.adoption, middle)
    mean_adoption = sum(axis.adoption.values()) / len(axis.adoption)
    print_adoption(mean_adoption, judged)
    in_role_only = None if filtered else compare_filtered(rollouts, adopted, axis, args, middle)

    axis.save(out / "axis.pt")
    rollouts.write_jsonl(out / "responses.jsonl")
    report = {
        "settings": cli.settings(args),
        "versions": {"minaxis": mx.__version__, "torch": torch.__version__},
        "seconds": round(time.monotonic() - started, 1),
        "layers": table,
        "random_control": control,
        "roles": [{"role": r, "projection": p, "adoption": axis.adoption[r]} for p, r in order],
        "default_projection": default,
        "adoption": mean_adoption,
        "judge": judged,
        "in_role_only": in_role_only,
    }
    write_json(out / "report.json", report)
    print(f"\n{out}/axis.pt, report.json, responses.jsonl written in {report['seconds']:.0f} s")


def random_axis(model, tokenizer, rollouts, args):
    random = type(model)(model.config).initialise(torch.Generator().manual_seed(args.seed))
    random = random.to(model.lm_head.weight).eval()
    return mx.fit_axis(mx.replay(random, tokenizer, rollouts), position=args.position)


def compare_filtered(rollouts, adopted, axis, args, layer):
    try:
        other = mx.fit_axis(rollouts, adopted, position=args.position)
    except ValueError as e:
        print(f"Of responses in role alone no axis can be fitted: {e}")
        return None
    cosine = (other.unit()[layer] @ axis.unit()[layer]).item()
    row = layer_table(other)[layer]
    left_out = [role for role in axis.adoption if role not in other.roles]
    print(
        f"The axis of responses in role alone has cosine {cosine:.2f} with this one at layer "
        f"{layer}, and cos PC1 {row['cos_pc1']:.2f}.\nIt leaves out "
        f"{', '.join(left_out) or 'no role'}."
    )
    return {"cosine": cosine, "left_out": left_out, **row}


def choose(args, world):
    """Roles with their prompts, and questions: those of the files or built in, so many of each."""
    if world:
        roles, questions = script(world, args.seed)
    else:
        roles, questions = mx.read_roles(), mx.read_questions()[:4]
    roles = mx.read_roles(args.roles) if args.roles else roles
    if args.questions or args.n_questions is not None:
        questions = mx.read_questions(args.questions) if args.questions else questions
        questions = questions[: args.n_questions]
    names = [r for r in roles if r != DEFAULT]
    count = len(names) if args.n_roles is None else args.n_roles
    if not 2 <= count <= len(names):
        raise ValueError(f"--n-roles must be from 2 to {len(names)}, got {count}")
    samples = (8 if world else 4) if args.default_samples is None else args.default_samples
    if args.n_prompts < 1 or samples < 1:
        raise ValueError("--n-prompts and --default-samples must be at least 1")
    # Evenly over the list, first and last included: ours runs from plain to fantastical.
    names = [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]
    # The axis is the difference of two means. One rests on all the roles' responses, the other on
    # the default's alone: so the default answers more often.
    roles = {
        DEFAULT: roles[DEFAULT] * samples,
        **{r: roles[r][: args.n_prompts] for r in names},
    }
    return roles, questions


def print_adoption(mean, judged):
    if not judged:
        print(f"\nRole adoption: {mean:.0%} of the responses are spoken by their role (exact).")
        return
    print(
        f"\nRole adoption: {mean:.0%} of the responses gain more than {judged['threshold']:.3f} "
        "nats a token from their role's prompt.\nOf the default's own, 5 % gain as much from "
        "their neutral prompt. An axis of roles that are not adopted is void."
    )


def print_layers(table, control, count):
    print(
        "\n                  variance of      split-half over    rank of default   random weights"
        "\nlayer  cos PC1  PC1  PC2  PC3  responses questions    axis   PC1    cos PC1  split-half"
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
    print(f"Ranks are among {count}. Along the axis a high one is nearly by construction.")


def number(x):
    return "        -" if x is None else f"{x:9.2f}"


def print_roles(order, default, adoption, layer):
    print(f"\nRoles along the axis at layer {layer}, the Assistant's end first (share in role):")
    rows = [f"{p:8.1f}  {role} ({adoption[role]:.0%})" for p, role in order]
    at = sum(p > default for p, _ in order)
    rows.insert(at, f"{default:8.1f}  * the default Assistant *")
    half = (len(rows) + 1) // 2
    for left, right in zip(rows[:half], [*rows[half:], ""], strict=False):
        print(f"{left:42s}{right}")


if __name__ == "__main__":
    cli.run(main)
