"""A lab: a model, its axis, and the interventions under which every experiment measures.

    lab.compare(lambda: how_often_it_leaks(lab))

measures without an intervention (the baseline), under the cap, and under a cap along each random
axis. Each time, the same questions are asked and the same random numbers are drawn.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from minaxis.activation_cap import capping, default_layers
from minaxis.axis import Axis
from minaxis.chat import Message, locate_responses
from minaxis.fast.conversations import remembering
from minaxis.hooks import capture
from minaxis.loading.transformers_model import adapt
from minaxis.model import Transformer
from minaxis.steer import steering
from minaxis.tiny import questions
from minaxis.tokenizer import AnyTokenizer

RANDOM_AXES = 19  # where the axis is ranked among them: by chance it comes first in 1 of 20
FEW_RANDOM_AXES = 5  # where it is not

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Compared(Generic[T]):
    """The same thing, measured under each intervention."""

    baseline: T
    capped: T
    random: list[T]  # capped along each random axis

    def map(self, function: Callable[[T], U]) -> "Compared[U]":
        """Apply a function to each measurement."""
        random = [function(x) for x in self.random]
        return Compared(function(self.baseline), function(self.capped), random)


@dataclass(frozen=True, kw_only=True)
class Conversations:
    """N conversations of several turns, whose user follows a script."""

    user_messages: list[list[str]]  # by turn, the message of each of the N users
    replies: list[list[str]]  # by turn, the reply in each of the N conversations
    means: list[Tensor]  # by turn, the mean activations of the replies (N, L, D)

    def projections(self, axis: Axis, layer: int) -> Tensor:
        """The projections of the replies on the unit axis of a layer: (N, turns)."""
        return torch.stack([axis.project(means[:, layer], layer) for means in self.means], 1)

    def after(self, turns: int) -> list[list[Message]]:
        """Each conversation up to the reply of that turn: its first 2 * turns messages."""
        chats: list[list[Message]] = [[] for _ in self.user_messages[0]]
        for turn in range(turns):
            for i, chat in enumerate(chats):
                chat.append({"role": "user", "content": self.user_messages[turn][i]})
                chat.append({"role": "assistant", "content": self.replies[turn][i]})
        return chats


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A model with its axis and random axes, and what all experiments do with them."""

    model: Transformer
    tokenizer: AnyTokenizer
    axis: Axis
    random_axes: Sequence[Axis] = ()
    seed: int = 0
    max_new_tokens: ClassVar[int]
    percentile: ClassVar[float] = 75  # of the floor; the paper's, as projections rise toward v

    @property
    def layers(self) -> Sequence[int]:
        """The layers that are capped."""
        return default_layers(len(self.axis.vectors))

    # Interventions

    def capped(
        self,
        axis: Axis | None = None,
        *,
        layers: Sequence[int] | None = None,
        percentile: float | None = None,
    ) -> AbstractContextManager[None]:
        """Cap along the lab's axis, at its layers and its percentile, or along or at others."""
        axis, layers = axis or self.axis, layers or self.layers
        return capping(
            self.model,
            axis,
            layers=layers,
            percentile=self.percentile if percentile is None else percentile,
        )

    def steered(self, coefficient: float, axis: Axis | None = None) -> AbstractContextManager[None]:
        """Steer along the lab's axis or another axis."""
        return steering(self.model, axis or self.axis, coefficient)

    def compare(
        self, measure: Callable[[], T], *, random_axes: int = FEW_RANDOM_AXES
    ) -> Compared[T]:
        """Measure without an intervention, under the cap, and under a cap along random axes.

        Args:
            random_axes: number of random axes to cap along, at most.
        """

        def under_cap(axis: Axis) -> T:
            with self.capped(axis):
                return measure()

        random = [under_cap(axis) for axis in self.random_axes[:random_axes]]
        return Compared(measure(), under_cap(self.axis), random)

    # Replies

    def answer(self, chats: Sequence[list[Message]], *, turn: int = 0) -> tuple[list[str], Tensor]:
        """The next reply of each conversation, and its mean activations (N, L, D).

        Args:
            turn: number of the turn. Each turn draws other random numbers.
        """
        return questions.answer(
            self.model, self.tokenizer, chats, self.seed + turn, max_new_tokens=self.max_new_tokens
        )

    def converse(self, user_messages: list[list[str]]) -> Conversations:
        """Run conversations with scripted users, turn by turn.

        Args:
            user_messages: by turn, the message of each of the N users.
        """
        chats: list[list[Message]] = [[] for _ in user_messages[0]]
        replies, means = [], []
        with remembering(self.model):
            for turn, messages in enumerate(user_messages):
                for chat, message in zip(chats, messages, strict=True):
                    chat.append({"role": "user", "content": message})
                texts, activations = self.answer(chats, turn=turn)
                for chat, text in zip(chats, texts, strict=True):
                    chat.append({"role": "assistant", "content": text})
                replies.append(texts)
                means.append(activations)
        return Conversations(user_messages=user_messages, replies=replies, means=means)

    @torch.no_grad()
    def read_again(self, conversations: Conversations, *, batch_size: int = 32) -> list[Tensor]:
        """By turn, the mean activations (N, L, D) of the replies as the model reads them now.

        A projection that is measured under a cap is lifted by construction. Called outside of any
        intervention, this shows where the unchanged model places the capped model's replies.
        """
        chats = conversations.after(len(conversations.replies))
        rows: list[Tensor] = []  # for each conversation, (turns, L, D)
        for i in range(0, len(chats), batch_size):
            batch = chats[i : i + batch_size]
            texts = [locate_responses(self.tokenizer, chat) for chat in batch]
            longest, lm = max(len(ids) for ids, _ in texts), adapt(self.model)
            padded = [ids + [0] * (longest - len(ids)) for ids, _ in texts]
            with capture(self.model) as seen:
                lm(torch.tensor(padded, device=lm.device), last=1)
            for row, (_, responses) in enumerate(texts):
                h = torch.stack([seen[layer][row] for layer in sorted(seen)]).float()  # (L, T, D)
                means = [h[:, response.start : response.stop].mean(1) for response in responses]
                rows.append(torch.stack(means).cpu())
        return list(torch.stack(rows, 1))
