"""`Rollouts` stores the responses of roles, in memory or in a folder with a file for each role."""

import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

from minaxis.distributed import ranks
from minaxis.support.files import read_json, read_tensors, write_bytes, write_json, write_tensors
from minaxis.support.schema import Floats, Plain, Whole

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
            if ranks.rank():  # rank 0 has written them
                raise ValueError(f"{self.folder} is not the folder of rank 0: give a shared one")
            write_json(settings, meta)
        elif (written := _read_meta(settings)) != meta:
            differ = [k for k in meta if written.get(k) != meta[k]]
            raise ValueError(
                f"{self.folder} has rollouts that were made with other {', '.join(differ)}: "
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

    def gather(self) -> "Rollouts":
        """On rank 0, let memory hold the roles that any rank has."""
        self._in_memory = ranks.gather(self._in_memory)
        return self

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
        return self._read(role)

    def _read(self, role: str) -> Rollout:
        """The rollout in a role's file, or a ValueError if it is not a rollout of this role."""
        path, asked = self._file(role), self.asked(role)
        n, layers, width = len(asked), self.meta["layers"], self.meta["width"]
        vectors = Floats(n, layers, width, finite=False)  # `fit_axis` counts what is not finite
        response = {"system": str, "question": str, "text": str, "ids": [Whole(0, 2**31)]}
        schema = {
            "role?": str, "settings?": Whole(), "responses": [response, n], "mean": vectors,
            "norm": Floats(n, layers, finite=False), "logprob": Floats(n, finite=False),
            "prompt_end?": vectors, "start?": vectors,
        }  # fmt: skip
        data = read_tensors(path, schema)
        # Files of version 0.1.0 have neither of the two names, and call prompt_end "start".
        owner, settings = data.pop("role", role), data.pop("settings", self._settings())
        data.setdefault("prompt_end", data.pop("start", None))
        same = [{name: r[name] for name in ("system", "question")} for r in data["responses"]]
        for good, problem in (
            (owner == role, f"belongs to role {owner!r}, expected {role!r}"),
            (settings == self._settings(), "was made with other settings than its folder"),
            (same == asked, f"has other prompts or questions than {role!r}"),
            (data["prompt_end"] is not None, "has no prompt_end"),
        ):
            if not good:
                raise ValueError(f"{path}: {problem}. Delete it, and run the same command again")
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


def _read_meta(path: Path) -> dict[str, Any]:
    settings = {
        "model": str, "layers": Whole(1), "width": Whole(1), "roles": {str: [str]},
        "questions": [str], str: Plain(),
    }  # fmt: skip
    return read_json(path, settings)
