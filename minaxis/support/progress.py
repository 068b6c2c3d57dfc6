"""One progress line: in place on a terminal, a line at a time in a log."""

import sys
import time


class Progress:
    """Counts work done and says how fast it goes and how long it will take.

    Args:
        total: units of work in all.
        label: what the line begins with.
        unit: what `note` counts a rate of, for example "tokens".
    """

    def __init__(self, total: int, label: str, unit: str):
        self.total, self.label, self.unit = total, label, unit
        self.started = self.printed = time.monotonic()
        self.done = self.amount = 0
        self.terminal = sys.stderr.isatty()

    def advance(self, done: int, amount: int, note: str = "") -> None:
        """Report `done` more units of the total and `amount` more of the unit, and a note."""
        self.done += done
        self.amount += amount
        now = time.monotonic()
        finished = self.done >= self.total
        if not finished and now - self.printed < (0.2 if self.terminal else 10):
            return
        self.printed = now
        seconds = max(now - self.started, 1e-9)
        left = seconds / max(self.done, 1) * (self.total - self.done)
        line = (
            f"{self.label} {self.done}/{self.total}  {self.amount / seconds:,.0f} {self.unit}/s  "
            + (f"done in {seconds:.0f} s" if finished else f"{left:.0f} s left")
            + note
        )
        end = "\n" if finished or not self.terminal else ""
        start = "\r\033[K" if self.terminal else ""
        print(start + line, end=end, file=sys.stderr, flush=True)
