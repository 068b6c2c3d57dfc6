"""`Rollouts` stores the responses of roles, in memory or in a folder with a file for each role."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minaxis.support.files import read_json, read_tensors, write_bytes, write_json, write_tensors

# What `collect` and `replay` store for one role with N responses:
#   responses   N dicts: system, question, text, ids
#   mean        (N, L, D)
#   prompt_end  (N, L, D)
#   norm        (N, L)
#   logprob     (N,), which `replay` does not measure
Rollout = dict[str, Any]


class Rollouts(Mapping[str, Rollout]):
    """Role -> its `Rollout`. In a folder, memory does not grow with the number of responses.

    Attributes:
        meta: the model and the settings that made them.
        folder: a folder with one file for each role; None keeps the rollouts in memory.

    Raises:
        ValueError: the folder has rollouts that were made with other settings.
    """

    def __init__(self, meta: dict[str, Any], folder: str | Path | None = None):
        self.meta = meta
        self.folder = None if folder is None else Path(folder)
        self._in_memory: dict[str, Rollout] = {}
        if self.folder is None:
            return
        settings = self.folder / "settings.json"
        if not settings.exists():
            write_json(settings, meta)
        elif (written := read_json(settings)) != meta:
            differ = [k for k in meta if written.get(k) != meta[k]]
            raise ValueError(
                f"{self.folder} has rollouts that were made with another {', '.join(differ)}: "
                "choose another folder, or delete this one"
            )

    def _file(self, role: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{role}.pt"

    def __getitem__(self, role: str) -> Rollout:
        if role not in self.meta["roles"]:
            raise KeyError(role)
        if self.folder is None:
            return self._in_memory[role]
        rollout = read_tensors(self._file(role))
        if "start" in rollout:  # the name of prompt_end in files of version 0.1.0
            rollout["prompt_end"] = rollout.pop("start")
        return rollout

    def __setitem__(self, role: str, rollout: Rollout) -> None:
        if self.folder is None:
            self._in_memory[role] = rollout
        else:
            write_tensors(self._file(role), rollout)

    def __contains__(self, role: object) -> bool:
        return role in self._in_memory if self.folder is None else self._file(str(role)).exists()

    def __iter__(self) -> Iterator[str]:
        return (role for role in self.meta["roles"] if role in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def write_jsonl(self, path: str | Path) -> None:
        """Write every response as one line of JSON: role, system prompt, question, text, ids."""
        lines = [
            json.dumps({"role": role, **response}, ensure_ascii=False)
            for role in self
            for response in self[role]["responses"]
        ]
        write_bytes(path, ("\n".join(lines) + "\n").encode())
