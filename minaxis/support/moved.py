"""If a module or name of version 0.1.0 has moved, the error on its import says where it is now."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

MODULES = {
    "minaxis.adapt": "minaxis.loading.transformers_model",
    "minaxis.cap": "minaxis.activation_cap",
    "minaxis.cap_triton": "minaxis.fast.cap_triton",
    "minaxis.checkpoint": "minaxis.tiny.checkpoint",
    "minaxis.cli": "minaxis.support.arguments",
    "minaxis.collect": "minaxis.rollouts",
    "minaxis.experiments": "minaxis.tiny.questions",
    "minaxis.files": "minaxis.support.files",
    "minaxis.folder": "minaxis.loading.folder",
    "minaxis.gemma": "minaxis.loading.gemma2",
    "minaxis.generate": "minaxis.generation",
    "minaxis.gguf": "minaxis.loading.gguf_file",
    "minaxis.judge": "minaxis.judging",
    "minaxis.meter": "minaxis.support.meter",
    "minaxis.plots": "minaxis.paper.figures",
    "minaxis.prefix": "minaxis.fast.prefix",
    "minaxis.progress": "minaxis.support.progress",
    "minaxis.published": "minaxis.loading.published",
    "minaxis.report": "minaxis.paper.report",
    "minaxis.scorecard": "minaxis.tiny.scorecard",
    "minaxis.stats": "minaxis.support.stats",
    "minaxis.train": "minaxis.tiny.training",
    "minaxis.vocabulary": "minaxis.loading.tokenizer_json",
    "minaxis.weights": "minaxis.loading.models",
    "minaxis.world": "minaxis.tiny.world",
    "minaxis.paper.conditions": "minaxis.paper.lab",
}
NAMES = {
    "minaxis.activation_cap": {"plain": "minaxis.activation_cap.cap_reference"},
    "minaxis.axis": {"standing": "minaxis.axis.rank_and_zscore"},
    "minaxis.chat": {"Refusal": "minaxis.loading.templates.TemplateRefusal"},
    "minaxis.fast.prefix": {
        "begin": "minaxis.fast.prefix.prefill_prefixes",
        "pad_left": "minaxis.generation.pad_left",
        "share": "minaxis.fast.prefix.find_prefixes",
    },
    "minaxis.generation": {
        "batches": "minaxis.generation.length_batches",
        "decode": "minaxis.generation.decode_steps",
        "draws": "minaxis.generation.row_noise",
    },
    "minaxis.model": {
        "KVCache": "minaxis.KVCache",
        "RopeScaling": "minaxis.loading.rope_scaling.Llama3Scaling",
    },
    "minaxis.rollouts": {"respond": "minaxis.rollouts.generate_with_activations"},
    "minaxis.tokenizer": {
        "GPT2": "minaxis.loading.byte_level.GPT2",
        "PATTERNS": "minaxis.loading.byte_level.PATTERNS",
        "byte_alphabet": "minaxis.loading.byte_level.byte_alphabet",
        "spell": "minaxis.loading.byte_level.token_to_bytes",
    },
}


class _Explain(MetaPathFinder):
    """The last finder: it is asked only about modules that do not exist."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if name in MODULES:
            raise ImportError(f"{name} has moved: import {MODULES[name]}", name=name)


def explain() -> None:
    """Let an import of an old name fail with a message that names the new place."""
    sys.meta_path.append(_Explain())
    for module, names in NAMES.items():

        def __getattr__(name: str, module: str = module, names: dict[str, str] = names) -> Any:
            if name in names:
                raise ImportError(f"{module}.{name} has moved: it is {names[name]}")
            raise AttributeError(f"module {module!r} has no attribute {name!r}")

        vars(sys.modules[module])["__getattr__"] = __getattr__
