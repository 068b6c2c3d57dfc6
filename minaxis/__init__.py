"""minaxis: the Assistant Axis in pure PyTorch (after arXiv 2601.10387).

Shapes, everywhere in this package:
    B batch    T time (tokens)    D model width    H query heads    K key heads    Dh head width
    L layers   N responses        R roles          V vocabulary     S tokens in the KV cache
"""

__version__ = "0.1.0"

from minaxis.activation_cap import cap, cap_, capping
from minaxis.axis import Axis, fit_axis
from minaxis.chat import encode_chat, response_mask
from minaxis.generation import generate
from minaxis.hooks import capture, edit
from minaxis.judging import judge
from minaxis.loading.models import load, load_tokenizer
from minaxis.loading.published import CappingConfig
from minaxis.model import Config, KVCache, Transformer
from minaxis.roles import read_questions, read_roles
from minaxis.rollouts import Rollouts, collect, replay
from minaxis.steer import steering
from minaxis.tokenizer import Tokenizer

__all__ = [
    "Axis", "CappingConfig", "Config", "KVCache", "Rollouts", "Tokenizer", "Transformer", "cap",
    "cap_", "capping", "capture", "collect", "edit", "encode_chat", "fit_axis", "generate", "judge",
    "load", "load_tokenizer", "read_questions", "read_roles", "replay", "response_mask", "steering",
]  # fmt: skip
