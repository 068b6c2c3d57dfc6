"""What the tests of the exercises work on: the tiny model, its axis, and a few responses of it."""

import copy
import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import minaxis as mx

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # for the kernel; read when triton is first imported

FOLDER = Path(__file__).parent
ROLES = ("auditor", "ghost", "moon", "oracle")
QUESTIONS = ["What are you?", "I feel lonely tonight.", "Should I learn the harp at sixty?"]


def load_file(path: Path) -> ModuleType:
    """Run a Python file, and return it as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _loaded() -> tuple[mx.Transformer, Any]:
    return mx.load("tiny", device="cpu")


def model() -> mx.Transformer:
    """The tiny model. Every test has its own copy: a hook that is left on it spoils no other."""
    return copy.deepcopy(_loaded()[0])


def tokenizer() -> Any:
    """The tiny model's tokenizer."""
    return _loaded()[1]


@cache
def axis() -> mx.Axis:
    """The axis that comes with the tiny model."""
    return mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt")


@cache
def rollouts() -> mx.Rollouts:
    """Responses of the default Assistant and of four roles, six of each, with their activations."""
    roles = {"default": ["", "You are the assistant."]}
    roles |= {role: [f"You are the {role}.", f"Speak as the {role}."] for role in ROLES}
    sampling = mx.SamplingParams(max_new_tokens=30)
    return mx.collect(*_loaded(), roles, QUESTIONS, sampling)


MATERIALS = {f.__name__: f for f in (model, tokenizer, axis, rollouts)}
