"""minaxis: the Assistant Axis in pure PyTorch (after arXiv 2601.10387).

The core, in reading order: model, tokenizer, chat, generation, hooks, roles, rollouts, judging,
axis, steer, activation_cap. Every other concern has a folder: fast, loading, tiny, paper, web,
distributed, support.

Shapes, everywhere in this package:
    B batch    T time (tokens)    D model width    H query heads    K key heads    Dh head width
    L layers   N responses        R roles          V vocabulary     S tokens in the KV cache
"""

from minaxis.activation_cap import cap, cap_, capping
from minaxis.axis import Axis, fit_axis
from minaxis.chat import encode_chat, response_mask
from minaxis.generation import KVCache, SamplingParams, generate
from minaxis.hooks import capture, edit
from minaxis.judging import judge
from minaxis.loading.models import load, load_tokenizer
from minaxis.loading.published import CappingConfig
from minaxis.model import Config, Transformer
from minaxis.roles import read_questions, read_roles
from minaxis.rollouts import collect, replay
from minaxis.steer import steering
from minaxis.support import moved
from minaxis.support.rollout_store import Rollouts
from minaxis.support.version import __version__
from minaxis.tokenizer import Tokenizer

moved.explain()

__all__ = [
    "Axis", "CappingConfig", "Config", "KVCache", "Rollouts", "SamplingParams", "Tokenizer",
    "Transformer", "__version__", "cap", "cap_", "capping", "capture", "collect", "edit",
    "encode_chat", "fit_axis", "generate", "judge", "load", "load_tokenizer", "read_questions",
    "read_roles", "replay", "response_mask", "steering",
]  # fmt: skip
