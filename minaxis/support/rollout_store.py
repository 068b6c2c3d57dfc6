"""`Rollouts` stores the responses of roles, in memory or in a folder with a file for each role."""

import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

from torch import Tensor

from minaxis.support.files import read_json, read_tensors, write_bytes, write_json, write_tensors

# What `collect` and `replay` store for one role with N responses:
#   responses   N dicts: system, question, text, ids
#   mean        (N, L, D)
#   prompt_end  (N, L, D)
#   norm        (N, L)
#   logprob     (N,), which `replay` does not measure
# A file also has the role's name, and a checksum of the settings of its folder.
Rollout = dict[str, Any]

# Windows cannot write these file names, and cannot tell names apart that differ in case alone.
_PLAIN_NAME = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)$)[a-z0-9_-]{1,60}")


class Rollouts(Mapping[str, Rollout]):
    """Role -> its `Rollout`. In a folder, memory does not grow with the number of responses.

    `role in rollouts` says whether a role is there. Iterating needs all roles: an axis without some
    of its roles would be another axis.

    Attributes:
        meta: the model and the settings that made them.
        folder: a folder with one file for each role; None keeps the rollouts in memory.

    Raises:
        ValueError: the folder has rollouts that were made with other settings. Reading: a role is
            missing, or its file is damaged, of another role, or of other settings.
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
        elif (written := _read_meta(settings)) != meta:
            differ = [k for k in meta if written.get(k) != meta[k]]
            raise ValueError(
                f"{self.folder} has rollouts that were made with another {', '.join(differ)}: "
                "choose another folder, or delete this one"
            )

    @classmethod
    def load(cls, folder: str | Path) -> "Rollouts":
        """The rollouts of a folder that `collect` wrote.

        Raises:
            ValueError: no such folder, or a role is missing.
        """
        rollouts = cls(_read_meta(Path(folder) / "settings.json"), folder)
        rollouts.check_complete()
        return rollouts

    def asked(self, role: str) -> list[dict[str, str]]:
        """What a role is asked: N dicts with system prompt and question, questions innermost."""
        return [
            {"system": prompt.replace("{model_name}", self.meta["model"]), "question": question}
            for prompt in self.meta["roles"][role]
            for question in self.meta["questions"]
        ]

    def check_complete(self) -> None:
        """Raise a ValueError that names the missing roles, if any are missing."""
        roles = self.meta["roles"]
        if missing := [role for role in roles if role not in self]:
            raise ValueError(
                f"{self.folder or 'rollouts'}: {len(missing)} of {len(roles)} roles are missing "
                f"({', '.join(map(repr, missing[:5]))}{', ...' if len(missing) > 5 else ''}): "
                "collect them again; the same command adds what is missing"
            )

    def _file(self, role: str) -> Path:
        assert self.folder is not None
        return self.folder / file_name(role)

    def __getitem__(self, role: str) -> Rollout:
        if role not in self.meta["roles"]:
            raise KeyError(role)
        if role not in self:
            self.check_complete()
        if self.folder is None:
            return self._in_memory[role]
        return self._check(role, read_tensors(self._file(role)))

    def _check(self, role: str, data: Any) -> Rollout:
        """The rollout in a file's data, or a ValueError if it is not a rollout of this role."""

        def require(condition: bool, what: str) -> None:
            if not condition:
                raise ValueError(
                    f"{self._file(role)}: {what}; delete the file, and run the same command again"
                )

        require(isinstance(data, dict), "not a file of rollouts")
        # Files of version 0.1.0 have neither of the two names, and call prompt_end "start".
        owner, settings = data.pop("role", role), data.pop("settings", self._settings())
        if "start" in data:
            data["prompt_end"] = data.pop("start")
        require(owner == role, f"belongs to role {owner!r}, expected {role!r}")
        require(settings == self._settings(), "was made with other settings than its folder")
        rows = data.get("responses")
        require(isinstance(rows, list) and all(map(_is_response, rows)), "no list of responses")
        asked = [{"system": r["system"], "question": r["question"]} for r in rows]
        require(asked == self.asked(role), f"the prompts or questions are not those of {role!r}")
        n, layers, width = len(rows), self.meta["layers"], self.meta["width"]
        shapes: dict[str, tuple[int, ...]] = {
            "mean": (n, layers, width), "prompt_end": (n, layers, width), "norm": (n, layers),
            "logprob": (n,),
        }  # fmt: skip
        for name, shape in shapes.items():
            x = data.get(name)
            good = isinstance(x, Tensor) and x.is_floating_point() and tuple(x.shape) == shape
            require(good, f"{name} is no floating-point tensor of shape {shape}")
        return data

    def _settings(self) -> int:
        return crc32(json.dumps(self.meta, sort_keys=True).encode())

    def __setitem__(self, role: str, rollout: Rollout) -> None:
        if self.folder is None:
            self._in_memory[role] = rollout
        else:
            own = {"role": role, "settings": self._settings()}
            write_tensors(self._file(role), own | rollout)

    def __contains__(self, role: object) -> bool:
        return role in self._in_memory if self.folder is None else self._file(str(role)).exists()

    def __iter__(self) -> Iterator[str]:
        self.check_complete()
        return iter(self.meta["roles"])

    def __len__(self) -> int:
        return len(self.meta["roles"])

    def write_jsonl(self, path: str | Path) -> None:
        """Write every response as one line of JSON: role, system prompt, question, text, ids."""
        lines = [
            json.dumps({"role": role, **response}, ensure_ascii=False)
            for role in self
            for response in self[role]["responses"]
        ]
        write_bytes(path, ("\n".join(lines) + "\n").encode())


def file_name(role: str) -> str:
    """The name of a role's file: the role's name if every system can write it, or one with a hash.

    A role may have any name, "../x" too. "=" keeps names with a hash apart from the plain ones.
    """
    if _PLAIN_NAME.fullmatch(role):
        return f"{role}.pt"
    readable = re.sub("[^a-z0-9]+", "_", role.lower())[:40]
    return f"{readable}={sha256(role.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.pt"


def _is_response(r: Any) -> bool:
    return (
        isinstance(r, dict)
        and all(isinstance(r.get(name), str) for name in ("system", "question", "text"))
        and isinstance(r.get("ids"), list)
        and all(type(i) is int and i >= 0 for i in r["ids"])
    )


def _read_meta(path: Path) -> dict[str, Any]:
    """The settings of a folder, or a ValueError that says which one is not as expected."""
    meta = read_json(path)
    kinds = {"model": str, "layers": int, "width": int, "roles": dict, "questions": list}
    for name, kind in kinds.items():
        if not isinstance(meta, dict) or not isinstance(meta.get(name), kind):
            raise ValueError(
                f"{path}: not the settings of rollouts ({name!r} is no {kind.__name__})"
            )
    lists = [x for x in meta["roles"].values() if isinstance(x, list)]
    texts = [*meta["questions"], *(text for x in lists for text in x)]
    if len(lists) < len(meta["roles"]) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{path}: roles and questions must be lists of texts")
    return meta
