"""Lets a child process read many mutants of a format, under limits of memory and time."""

import multiprocessing
import random
import resource
import time
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

SECONDS = 20  # a mutant that takes longer is a hang
MEGABYTES = 1500  # more address space than this is refused, as on a machine without it
REFUSALS = (ValueError, OSError, ImportError)  # what a script shows as one line


@dataclass
class Report:
    """What became of the mutants of one format."""

    name: str
    mutants: int = 0
    refused: int = 0
    read: int = 0
    others: Counter = field(default_factory=Counter)  # kind of exception -> number
    hangs: int = 0
    seconds: float = 0.0  # of processor time that the slowest took
    megabytes: float = 0.0  # of memory that the process grew by, less the file's length
    bad: list[str] = field(default_factory=list)  # the mutants that are neither refused nor read

    def add(self, number: int, end: str, seconds: float, megabytes: float) -> None:
        """Count a mutant by how it ended: "read", "refused", "hangs" or the exception."""
        self.mutants += 1
        self.seconds = max(self.seconds, seconds)
        self.megabytes = max(self.megabytes, megabytes)
        if end in ("read", "refused"):
            setattr(self, end, getattr(self, end) + 1)
        else:
            self.others[end.split(":")[0]] += end != "hangs"
            self.bad.append(f"mutant {number}: {end}")

    def row(self) -> str:
        """The row of the table in docs/reliability.md."""
        others = sum(self.others.values())
        return (
            f"| {self.name} | {self.mutants} | {self.refused} | {self.read} | {others} | "
            f"{self.hangs} | {self.seconds:.2f} | {self.megabytes:.0f} |"
        )


def mutant(form, data, seed, number):
    """The content of a mutant, the same for the same seed and number."""
    for attempt in range(100):
        rng = random.Random(f"{form.name} {seed} {number} {attempt}")
        with suppress(RuntimeError, TypeError, ValueError, IndexError):
            return form.mutate(data, rng)  # two changes may not be possible together
    raise AssertionError(f"{form.name}: no mutant {number} of seed {seed}")


def _child(form, path, data, seed, first, last, pipe):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pages = Path("/proc/self/statm").read_text().split()
    used, resident = (int(n) * resource.getpagesize() for n in pages[:2])
    limit = used + MEGABYTES * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, last):
        content = mutant(form, data, seed, number)
        path.write_bytes(content)
        start = time.process_time()
        try:
            form.use(path)
            end = "read"
        except REFUSALS:
            end = "refused"
        except BaseException as e:
            end = f"{type(e).__name__}: {str(e)[:200]}"
        seconds = time.process_time() - start
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send((number, end, seconds, (most - resident - len(content)) / 2**20))
    pipe.close()


def attack(form, folder, seed, count) -> Report:
    """Read `count` mutants of a format, each in a child process."""
    path = form.make(folder)
    data = path.read_bytes()
    form.use(path)  # the example itself is good
    report, number = Report(form.name), 0
    context = multiprocessing.get_context("fork")
    while number < count:
        receive, send = context.Pipe(duplex=False)
        arguments = (form, path, data, seed, number, count, send)
        process = context.Process(target=_child, args=arguments)
        process.start()
        send.close()
        hangs = False
        with suppress(EOFError):
            while number < count:
                if hangs := not receive.poll(SECONDS):
                    break
                number, end, seconds, megabytes = receive.recv()
                report.add(number, end, seconds, megabytes)
                number += 1
        process.kill()
        process.join()
        if number < count:
            report.hangs += hangs
            report.add(number, "hangs" if hangs else "crash", SECONDS * hangs, 0)
            number += 1
    return report
