import importlib
import re
import subprocess
import sys

import pytest

from minaxis.support import moved


@pytest.mark.parametrize(("old", "new"), moved.MODULES.items())
def test_an_import_of_a_module_that_has_moved_names_its_new_place(old, new):
    with pytest.raises(ImportError, match=new.replace(".", r"\.")):
        __import__(old)
    __import__(new)


@pytest.mark.parametrize("module", moved.NAMES)
def test_the_new_place_of_every_name_that_has_moved_exists(module):
    for old, new in moved.NAMES[module].items():
        owner, _, name = new.rpartition(".")
        with pytest.raises(ImportError, match=re.escape(f"it is {new}")):
            getattr(importlib.import_module(module), old)
        assert hasattr(importlib.import_module(owner), name)


def test_a_name_that_has_moved_names_its_new_place():
    with pytest.raises(ImportError, match=r"it is minaxis\.KVCache"):
        from minaxis.model import KVCache  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        from minaxis.model import Nonsense  # noqa: F401


def test_a_module_that_never_existed_raises_the_usual_error():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'minaxis\.nonsense'"):
        __import__("minaxis.nonsense")


def test_import_needs_only_the_runtime_packages_and_touches_no_gpu():
    code = """
import sys
for name in ("triton", "matplotlib", "gguf", "tokenizers", "transformers", "huggingface_hub"):
    sys.modules[name] = None  # as if it were not installed
import minaxis, torch
assert not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
