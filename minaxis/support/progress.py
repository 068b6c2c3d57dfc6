"""A progress line: rewritten in place on a terminal, a new line every ten seconds in a log."""

import sys
import time


class Progress:
    """Counts the work done, and prints its rate and the time that is left.

    Args:
        total: the amount of all work, for example the number of batches.
        label: the beginning of the line.
        unit: the unit of the rate, for example "tokens".
    """

    def __init__(self, total: int, label: str, unit: str):
        self.total, self.label, self.unit = total, label, unit
        self.started = self.printed = time.monotonic()
        self.done = self.amount = 0
        self.terminal = sys.stderr.isatty()

    def advance(self, done: int, amount: int, *, note: str = "") -> None:
        """Report more work done.

        Args:
            done: how much of the total was done since the last call.
            amount: how many of the unit, for example tokens, were done since then.
            note: the end of the line.
        """
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
