"""Run the shell blocks of README.md and docs/ as a reader would.

    python .ci/run_blocks.py                     # every page
    python .ci/run_blocks.py --jobs 2            # two pages at a time, with one thread each
    python .ci/run_blocks.py docs/speed.md       # some pages

Each page starts with a fresh copy of the repository and a fresh virtual environment. Its ```bash
blocks run in their order on the page. So a command fails if the page has not installed what the
command needs, or has not made a file that the command reads. README.md comes first, the other
pages follow in the order in which README.md links to them.

Each line of a ```text block must be among what the page's commands print. Numbers may differ, and
a line of three dots marks lines that are left out.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(text: str, language: str) -> list[str]:
    """The contents of all fenced blocks of one language, in order."""
    return [body for name, body in FENCE.findall(text) if name == language]


def pages() -> list[Path]:
    """README.md, then the pages of docs/ in the order in which README.md links to them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = dict.fromkeys(re.findall(r"\]\((docs/[\w-]+\.md)", readme))
    return [ROOT / "README.md", *(ROOT / link for link in links)]


def words(line: str) -> str:
    """A printed line with # for each number and with single spaces, for comparison."""
    return " ".join(re.sub(r"[-+]?\d*\.?\d+", "#", line).split())


def missing(text: str, printed: str) -> list[str]:
    """The lines of a page's ```text blocks that its commands have not printed."""
    seen = {words(line) for line in printed.splitlines()}
    shown = [line for block in blocks(text, "text") for line in block.splitlines()]
    return [line for line in shown if line.strip() not in ("", "...") and words(line) not in seen]


def has_quick_bfloat16() -> bool:
    """Is bfloat16 faster than float32 here? Intel processors need AMX for that."""
    path = Path("/proc/cpuinfo")
    known = path.read_text() if path.exists() else "bf16"
    return ("amx_bf16" if "GenuineIntel" in known else "bf16") in known


def copy_repository(to: Path) -> None:
    """Copy every file that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def run(page: Path, borrow: Path | None) -> str:
    """Run one page, and print its output when it ends.

    Args:
        page: a Markdown file.
        borrow: a site-packages folder that the environment shall see, or None.

    Returns:
        What is wrong with the page, or "".
    """
    text, started = page.read_text(encoding="utf-8"), time.monotonic()
    script = "".join(blocks(text, "bash"))
    if not script:
        return ""
    if not has_quick_bfloat16():  # docs/smollm2.md tells its readers to leave it out then
        script = script.replace(" --dtype bfloat16", "")
    with tempfile.TemporaryDirectory() as folder:
        checkout, environment = Path(folder, "minaxis"), Path(folder, "venv")
        copy_repository(checkout)
        venv.create(environment, with_pip=True)
        if borrow:
            (packages,) = environment.glob("lib/python*/site-packages")
            (packages / "borrowed.pth").write_text(f"{borrow}\n")
        path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        process = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script], cwd=checkout, text=True,
            env=os.environ | {"PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    printed, seconds = process.stdout, time.monotonic() - started
    print(f"-- {page.name}: {seconds:.0f} s\n{printed}", flush=True)
    if process.returncode:
        return f"{page.name}: a command failed with status {process.returncode}"
    wrong = missing(text, printed)
    return "\n".join(
        [f"{page.name} shows what its commands do not print:", *wrong] if wrong else []
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path, help="Markdown files (default: all pages)")
    parser.add_argument("--borrow", type=Path, metavar="FOLDER",
        help="site-packages folder with torch, so that no page installs torch")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="pages that run at the same time")
    parser.add_argument("--first", nargs="+", type=Path, default=[], metavar="PAGE",
        help="pages that start first, because they take longest")  # fmt: skip
    args = parser.parse_args()
    if args.jobs > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # one thread a page
    first = [page.resolve() for page in args.first]
    queue = sorted(args.pages or pages(), key=lambda page: page.resolve() not in first)
    with ThreadPoolExecutor(args.jobs) as pool:
        problems = list(pool.map(lambda page: run(page, args.borrow), queue))
    sys.exit("\n\n".join(filter(None, problems)) or 0)


if __name__ == "__main__":
    main()
