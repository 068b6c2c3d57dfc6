"""The engine of a served page: what engine.js does inside of a page, with PyTorch and any model."""

import codecs
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from minaxis.activation_cap import capping
from minaxis.axis import Axis
from minaxis.chat import encode_chat
from minaxis.fast.conversations import Memory, remembering
from minaxis.generation import SamplingParams, decode_steps, prepare, row_noise
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
        layers, percentile, max_tokens: as for `page_info`.

    Attributes:
        info: what the page shows before the first reply.
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
        self.memories: dict[str, Memory] = {}  # intervention -> what was read under it

    def reply(self, request: Any) -> Generator[Event, None, None]:
        """Answer a request of the page, event by event.

        Args:
            request: "messages", "seed", "temperature", "topP", "maxTokens", "intervention" (None,
                or "kind", "layers" and "percentile" or "coefficient"), and "text" for a reply that
                is given and only read.

        Yields:
            {"type": "token", "text", "projections" and "lifted": one for each layer}, then "plain"
            (the projections as the model without an intervention reads the reply), "place" (in
            persona space), for the tiny world "reading", and "done".

        Raises:
            ValueError: a request that the page would not send, or one that fills the context.
        """
        messages, sampling, how = self._check(request)
        prompt, given = encode_chat(self.tokenizer, messages), request.get("text")
        room = self.info["context"] - len(prompt)
        if room < 1:
            raise ValueError(
                f"The conversation has {len(prompt)} tokens, but the model's context holds "
                f"{self.info['context']}. Undo a turn, or clear, to go on."
            )
        if isinstance(given, str):
            ids = self.tokenizer.encode(given, inside=True)
            wanted, cut = len(ids), "end"
            tokens = self._read_given(prompt, ids[:room], how) if ids else iter(())
        else:
            wanted, cut = sampling.max_new_tokens, "length"
            tokens = self._sample(prompt, min(room, wanted), sampling, how)
        ids, text = [], ""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may span tokens
        for token, before, after in tokens:
            ids.append(token)
            piece = decoder.decode(self.tokenizer.token_bytes(token))
            text += piece
            lifted = (after > before) if how and how["kind"] == "cap" else torch.zeros_like(after)
            yield {"type": "token", "text": piece, "projections": after.tolist(),
                   "lifted": lifted.bool().tolist()}  # fmt: skip
        if ids:
            h = self._read(prompt, ids, None)  # (T, L, D)
            yield {"type": "plain", "projections": self._project(h).tolist()}
            x, y = (self.directions @ (h[:, self.info["readLayer"]].mean(0) - self.center)).tolist()
            yield {"type": "place", "x": x, "y": y}
            if self.reader:
                yield self._reading(messages[-1]["content"], text)
        full = len(ids) == room < wanted
        stopped = "context" if full else cut if len(ids) == wanted else "end"
        yield {"type": "done", "tokens": len(ids), "contextUsed": len(prompt) + len(ids),
               "stopped": stopped}  # fmt: skip

    def _check(self, request: Any) -> tuple[list, SamplingParams, dict[str, Any] | None]:
        """Messages, sampling and intervention, if they are of the kind and size of the page's."""
        match request:
            case {
                "messages": [*_, {"role": "user"}] as messages, "seed": int(seed),
                "temperature": float() | int() as temperature, "topP": float() | int() as top_p,
                "maxTokens": int(most), "intervention": how,
            } if len(messages) <= MOST_MESSAGES and 0 <= seed < 2**31 and all(
                isinstance(m, dict) and m.get("role") in ("system", "user", "assistant")
                for m in messages
            ):  # fmt: skip
                most = min(most, self.info["maxTokens"])
                return messages, SamplingParams(
                    max_new_tokens=most, temperature=temperature, top_p=top_p, seed=seed
                ), self._check_intervention(how)  # fmt: skip
        raise ValueError("not a request that the page sends, or one of too many messages")

    def _check_intervention(self, how: Any) -> dict[str, Any] | None:
        match how:
            case None:
                return None
            case {"kind": "cap", "layers": [_, *_] as layers, "percentile": int()} | {
                "kind": "steer",
                "layers": [_, *_] as layers,
                "coefficient": float() | int(),
            } if abs(how.get("coefficient", 0)) <= 1:
                return how | {"layers": sorted(set(check_layers(layers, len(self.unit))))}
        raise ValueError(f"not an intervention that the page knows: {how!r:.100}")

    def _intervene(self, stack: ExitStack, how: dict[str, Any] | None) -> None:
        if how and how["kind"] == "cap":
            stack.enter_context(
                capping(self.model, self.axis, layers=how["layers"], percentile=how["percentile"])
            )
        elif how:
            for layer in how["layers"]:
                stack.enter_context(
                    steering(self.model, self.axis, how["coefficient"], layer=layer)
                )

    # Both yield each token, and its projections (L,) before and after the intervention there.

    def _sample(
        self, prompt: list[int], most: int, sampling: SamplingParams, how: dict[str, Any] | None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        noise = row_noise(sampling.seed, 1, most)
        with ExitStack() as stack:
            before = stack.enter_context(capture(self.model))
            self._intervene(stack, how)
            stack.enter_context(remembering(self.model, self._memory(how)))
            after = stack.enter_context(capture(self.model))
            token = -1
            for step in decode_steps(self.model, [prompt], noise, self.tokenizer.stop, sampling):
                if step.is_response[0]:  # the pass has read the token that was sampled before it
                    yield (
                        token,
                        self._project(stacked(before))[-1],
                        self._project(stacked(after))[-1],
                    )
                token = int(step.tokens[0])

    def _read_given(
        self, prompt: list[int], ids: list[int], how: dict[str, Any] | None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        with ExitStack() as stack:
            before = stack.enter_context(capture(self.model))
            self._intervene(stack, how)
            after = self._read(prompt, ids, how)
        projections = (self._project(h[-len(ids) :]) for h in (stacked(before), after))
        yield from zip(ids, *projections, strict=True)

    @torch.no_grad()
    def _read(self, prompt: list[int], ids: list[int], how: dict[str, Any] | None) -> Tensor:
        """The activations (T, L, D) of a reply. Call it under the intervention."""
        with remembering(self.model, self._memory(how)), capture(self.model) as seen:
            prepare_batch = getattr(self.model, "fast_prepare", prepare)
            left, cache, padding = prepare_batch(self.model, [prompt + ids], 0, len(ids))
            self.model(left, cache, padding, last=1)
        return stacked(seen)[-len(ids) :]

    def _memory(self, how: dict[str, Any] | None) -> Memory:
        """What was read under this very intervention. The memories of the last six are kept."""
        memory = self.memories.pop(repr(how), None) or Memory()
        if len(memory.rows) > 8:  # of conversations that have been left
            memory = Memory()
        self.memories = dict([*self.memories.items()][-5:]) | {repr(how): memory}
        return memory

    def _project(self, h: Tensor) -> Tensor:
        """The projections (T, L) of activations (T, L, D), each on the unit axis of its layer."""
        return (h * self.unit).sum(-1)

    def _reading(self, message: str, reply: str) -> Event:
        """Who speaks in a reply, and does it keep the secret? Only a known question has answers."""
        assert self.reader
        question = self.questions.get(message.strip(), Question("", ""))
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
