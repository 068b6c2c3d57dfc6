"""The engine of a served page: what engine.js does inside of a page, with PyTorch and any model."""

import codecs
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor

from minaxis.activation_cap import capping
from minaxis.axis import Axis
from minaxis.chat import encode_chat
from minaxis.generation import SamplingParams, decode_steps, row_noise
from minaxis.hooks import capture, check_layers
from minaxis.model import Transformer
from minaxis.steer import steering
from minaxis.tiny.questions import Question
from minaxis.tiny.reader import Reader
from minaxis.tiny.world import World
from minaxis.tokenizer import AnyTokenizer
from minaxis.web.export import every_question
from minaxis.web.page import page_info, persona_space

Event = dict[str, Any]  # one step of an answer, ready for JSON; the kinds are below
MOST_MESSAGES = 400


class Engine:
    """Answers messages, and says of every token where it lies on the axis.

    Args:
        world: the world whose exact reader reads the replies; None for an open model.
        layers: the layers that are capped at first.
        percentile: the percentile of the first floor.
        max_tokens: the most tokens of a reply.

    Attributes:
        info: what the page shows before the first reply (`page_info`).
    """

    def __init__(
        self, model: Transformer, tokenizer: AnyTokenizer, axis: Axis, world: World | None,
        *, layers: Sequence[int], percentile: float, max_tokens: int,
    ):  # fmt: skip
        self.model, self.tokenizer, self.axis, self.unit = model, tokenizer, axis, axis.unit()
        self.info = page_info(
            model, axis, tiny=world is not None, layers=layers, percentile=percentile,
            max_tokens=max_tokens,
        )  # fmt: skip
        self.center, self.directions = persona_space(axis, self.info["readLayer"])
        self.reader = Reader(world) if world else None
        self.questions = {q.text: q for q in every_question(world)} if world else {}

    def reply(self, request: Any) -> Generator[Event, None, None]:
        """Answer a request of the page, event by event.

        Yields:
            {"type": "token", "text", "projections" and "lifted": one for each layer}, then "plain"
            (the projections as the model without an intervention reads the reply), "place" (in
            persona space), for the tiny world "reading", and "done".

        Raises:
            ValueError: a request that the page would not send, or a conversation that fills the
                context.
        """
        messages, sampling, text, how = self._check(request)
        prompt = encode_chat(self.tokenizer, messages)
        room = self.info["context"] - len(prompt)
        if room < 1:
            raise ValueError(
                f"The context of {self.info['context']} tokens is full. Undo a turn, or clear, to "
                "go on."
            )
        given = None if text is None else self.tokenizer.encode(text, inside=True)
        wanted = sampling.max_new_tokens if given is None else len(given)
        ids: list[int] = []
        parts: list[str] = []
        own: list[Tensor] = []  # (L,) of each token, as the answering model sees it
        capped = torch.tensor(how is not None and how["kind"] == "cap")
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may span tokens
        for token, before, after in self._tokens(prompt, given, min(room, wanted), sampling, how):
            ids.append(token)
            own.append(after)
            parts.append(decoder.decode(self.tokenizer.token_bytes(token)))
            lifted = (after > before) & capped
            yield {"type": "token", "text": parts[-1], "projections": after.tolist(),
                   "lifted": lifted.tolist()}  # fmt: skip
        if ids:
            h = self._read(prompt + ids)[len(prompt) :]  # (T, L, D)
            yield {"type": "plain", "projections": self._project(h).tolist()}
            mean = h[:, self.info["readLayer"]].mean(0)
            x, y = ((mean - self.center) @ self.directions.T).tolist()
            yield {"type": "place", "x": x, "y": y}
            if self.reader:
                yield self._reading(messages[-1]["content"], "".join(parts))
        cut = "context" if room < wanted else "end" if given else "length"
        stopped = cut if len(ids) == min(room, wanted) else "end"
        yield {"type": "done", "tokens": len(ids), "contextUsed": len(prompt) + len(ids),
               "stopped": stopped}  # fmt: skip

    def _tokens(
        self, prompt: list[int], given: list[int] | None, limit: int, sampling: SamplingParams,
        how: dict[str, Any] | None,
    ) -> Iterator[tuple[int, Tensor, Tensor]]:  # fmt: skip
        """Each token, and its projections (L,) before and after the intervention at that layer."""
        with ExitStack() as stack:
            before = stack.enter_context(capture(self.model))
            stack.enter_context(self._intervention(how))
            after = stack.enter_context(capture(self.model))
            if given is not None:
                self._read(prompt + given[:limit])
                projections = (self._project(stacked(h))[len(prompt) :] for h in (before, after))
                yield from zip(given[:limit], *projections, strict=True)
                return
            noise = row_noise(sampling.seed, 1, limit)
            stop = self.tokenizer.stop
            token = -1
            for step in decode_steps(self.model, [prompt], noise, stop, sampling):
                if step.is_response[0]:  # the pass has read the token sampled before it
                    first, second = (self._project(stacked(h))[-1] for h in (before, after))
                    yield token, first, second
                token = int(step.tokens[0])

    def _intervention(self, how: dict[str, Any] | None) -> AbstractContextManager[Any]:
        match how:
            case None:
                return nullcontext()
            case {"kind": "cap", "layers": layers, "percentile": int(percentile)}:
                return capping(self.model, self.axis, layers=layers, percentile=percentile)
            case {"kind": "steer", "layers": layers, "coefficient": float() | int() as push} if (
                abs(push) <= 1
            ):
                stack = ExitStack()
                for layer in layers:
                    stack.enter_context(steering(self.model, self.axis, push, layer=layer))
                return stack
        raise ValueError(f"an intervention must cap or steer, got {how!r:.100}")

    def _check(self, request: Any) -> tuple[list, SamplingParams, str | None, dict | None]:
        """The parts of a request, if it has the types and the sizes that the page sends."""
        match request:
            case {
                "messages": [*messages, {"role": "user", "content": str()}],
                "seed": int(seed), "temperature": float() | int() as temperature,
                "topP": float() | int() as top_p, "maxTokens": int(tokens),
                "intervention": None | {"kind": str(), "layers": [int(), *_]} as how,
            } if len(messages) < MOST_MESSAGES and 0 <= seed < 2**31 and all(
                isinstance(m, dict) and m.get("role") in ("system", "user", "assistant")
                for m in messages
            ):  # fmt: skip
                text = request.get("text")
                if how:
                    how = how | {"layers": sorted(set(check_layers(how["layers"], len(self.unit))))}
                sampling = SamplingParams(
                    max_new_tokens=min(tokens, self.info["maxTokens"]), temperature=temperature,
                    top_p=top_p, seed=seed,
                )  # fmt: skip
                return (request["messages"], sampling, text if isinstance(text, str) else None, how)
        raise ValueError("not a request that the page sends, or one of too many messages")

    @torch.no_grad()
    def _read(self, ids: list[int]) -> Tensor:
        """The activations (T, L, D) of a text."""
        with capture(self.model) as seen:
            self.model(torch.tensor([ids], device=self.model.device), last=1)
        return stacked(seen)

    def _project(self, h: Tensor) -> Tensor:
        """The projections (T, L) of activations (T, L, D), each on the unit axis of its layer."""
        return (h * self.unit).sum(-1)

    def _reading(self, message: str, reply: str) -> Event:
        """Who speaks in a reply, and does it keep the secret? Only a known question has answers."""
        question = self.questions.get(message.strip(), Question("", ""))
        assert self.reader
        reading = self.reader.read(question, reply)
        return {
            "type": "reading",
            "speaker": reading.speaker,
            "archaic": reading.archaic,
            "forbidden": question.topic == "forbidden",
            "right": reading.right if question.answer else None,
            "refused": reading.refused if question.answer else None,
        }


def stacked(seen: dict[int, Tensor]) -> Tensor:
    """What `capture` saw of one text, as (T, L, D) on the CPU."""
    return torch.stack([seen[layer][0] for layer in sorted(seen)], 1).float().cpu()
