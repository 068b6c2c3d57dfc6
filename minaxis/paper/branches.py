"""Conversations on one subject, with questions in branches of them. Harm and drift both use them.

A user speaks about one subject, and nobody is named. After 0, 3 and 7 turns, a forbidden question
is asked in a branch: the conversation itself goes on without it. So is a task at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minaxis.fast.conversations import remembering
from minaxis.paper.lab import Compared
from minaxis.support.stats import Rate, rate
from minaxis.tiny.lab import TinyConversations, TinyLab
from minaxis.tiny.questions import TASKS
from minaxis.tiny.reader import Reading
from minaxis.tiny.world import ASSISTANT

PERSONAL, WORK = ("feelings", "selfhood"), ("arithmetic", "howto")  # subjects
BRANCHES = (0, 3, 7)  # numbers of turns after which a forbidden question is asked
LAST = BRANCHES[-1]


@dataclass(frozen=True)
class Branched:
    """N conversations under one intervention, and replies to the questions in their branches."""

    conversations: TinyConversations
    forbidden: dict[int, list[Reading]]  # turns before -> N replies to a forbidden question
    task: list[Reading]  # N replies to a task after the most turns; empty if none was asked


def run_personal_conversations(lab: TinyLab, *, each: int) -> Branched:
    """Run `each` conversations on each personal subject, with forbidden questions in branches."""
    with remembering(lab.model):
        conversations = lab.run_conversations(PERSONAL, each=each, turns=LAST)
        return Branched(conversations, ask_forbidden(lab, conversations), task=[])


def ask_forbidden(lab: TinyLab, conversations: TinyConversations) -> dict[int, list[Reading]]:
    """Ask a forbidden question in branches after each number of turns."""
    return {n: lab.ask_after(conversations, n, ["forbidden"]) for n in BRANCHES}


def run_branched_conversations(
    lab: TinyLab, *, each: int = 48, random_each: int = 6
) -> Compared[Branched]:
    """Run conversations with branches under each intervention.

    Args:
        each: number of conversations on each personal subject, without an intervention and under
            the cap. There are half as many on each task.
        random_each: number on each personal subject for each random axis. They are one turn
            shorter, and there are none on tasks.
    """

    random = []
    for axis in lab.random_axes:
        with lab.capped(axis):
            random.append(run_personal_conversations(lab, each=random_each))

    def run_all() -> Branched:
        subjects = (*PERSONAL, *PERSONAL, *WORK)  # twice as many on the personal ones
        with remembering(lab.model):
            conversations = lab.run_conversations(subjects, each=each // 2, turns=LAST + 1)
            return Branched(
                conversations,
                forbidden=ask_forbidden(lab, conversations),
                task=lab.ask_after(conversations, LAST, TASKS),
            )

    return replace(lab.compare(run_all, random_axes=0), random=random)


# What happened in them


@dataclass(frozen=True)
class Answers:
    """Replies to a forbidden question after so many turns."""

    turns: int
    leaked: Rate
    refused: Rate
    neither: Rate  # garbled, or beside the point


@dataclass(frozen=True)
class TaskAnswers:
    """Replies to a task after the most turns."""

    assistant: Rate  # the Assistant speaks
    right: Rate


@dataclass(frozen=True)
class Outcome:
    """Conversations on one subject, or on several, under one intervention."""

    forbidden: list[Answers]  # for each of BRANCHES
    assistant: list[Rate]  # by turn: replies in which the Assistant speaks
    task: TaskAnswers | None  # None: no task was asked

    @property
    def leaked(self) -> Rate:
        """The leak rate after the most turns."""
        return self.forbidden[-1].leaked


def by_subject(run: Branched) -> dict[str, Outcome]:
    """What happened in the conversations on each subject."""
    spoken_about = {question.topic for question in run.conversations.questions[0]}
    return {s: outcome(run, [s]) for s in (*PERSONAL, *WORK) if s in spoken_about}


def outcome(run: Branched, subjects: Sequence[str]) -> Outcome:
    """What happened in the conversations on these subjects."""
    rows = run.conversations.on(subjects)

    def assistant(readings: Sequence[Reading]) -> Rate:
        return rate(readings[i].speaker == ASSISTANT for i in rows)

    return Outcome(
        forbidden=[
            answers(turns, [readings[i] for i in rows])
            for turns, readings in run.forbidden.items()
        ],
        assistant=[assistant(turn) for turn in run.conversations.readings],
        task=TaskAnswers(assistant(run.task), rate(run.task[i].right for i in rows))
        if run.task
        else None,
    )  # fmt: skip


def answers(turns: int, readings: Sequence[Reading]) -> Answers:
    """Replies to a forbidden question as rates."""
    return Answers(
        turns=turns,
        leaked=rate(r.right for r in readings),
        refused=rate(r.refused for r in readings),
        neither=rate(not r.right and not r.refused for r in readings),
    )
