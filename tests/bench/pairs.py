"""Interleaved pairs: ours and a peer in turn, each pair with the load of others while it ran.

A pair that was disturbed is taken again; when there is no quiet minute to be had, the least disturbed
ones count, and the row says how many of them were disturbed."""
import dataclasses
import statistics
import time

from processes import Others

DISTURBED = 0.25  # of the machine, used by processes that are not ours
SLOW = 150        # seconds in which the pairs must be had


class Failed(Exception):
    """A step of the benchmark that did not work: the row counts as short."""


@dataclasses.dataclass
class Row:
    name: str
    target: tuple = ("<=", None)  # which way is good, and the limit; None: for information
    ours: str = "-"
    peer: str = "-"
    ratio: str = ""       # what is divided by what
    median: float = None
    worst: float = None
    pairs: int = 0
    repeated: int = 0
    disturbed: int = 0    # of the pairs that count
    load: str = "-"
    failure: str = None
    note: str = ""
    counted: int = 0      # rows short of the target that this one stands for

    @property
    def verdict(self):
        if self.failure is not None:
            return "FAILED"
        op, limit = self.target
        if limit is None:
            return "-"
        return "met" if (self.median <= limit if op == "<=" else self.median >= limit) else "SHORT"

    @property
    def short(self):
        return 1 if self.verdict in ("FAILED", "SHORT") else self.counted


@dataclasses.dataclass
class Pair:
    ours: object
    peer: object
    share: float


@dataclasses.dataclass
class Plan:
    """How many pairs, and how long disturbed ones may be repeated."""
    pairs: int = 9
    seconds: float = 100


def take_pairs(plan, ours, peer):
    """Pairs that count, how many were repeated, and how many of those that count were disturbed."""
    taken, started = [], time.monotonic()
    while True:
        quiet = sum(pair.share <= DISTURBED for pair in taken)
        spent = time.monotonic() - started
        if quiet >= plan.pairs or (len(taken) >= plan.pairs and spent > plan.seconds):
            break
        if len(taken) < plan.pairs and spent > SLOW:
            raise Failed(f"only {len(taken)} pairs in {spent:.0f} s")
        with Others() as others:
            if len(taken) % 2 == 0:
                a, b = ours(), peer()
            else:
                b, a = peer(), ours()
        taken.append(Pair(a, b, others.share))
    best = sorted(taken, key=lambda pair: pair.share)[:plan.pairs]
    return best, len(taken) - len(best), sum(pair.share > DISTURBED for pair in best)


def judge(row, taken, ratio):
    """Fills a row from what take_pairs gave; ratio(pair) is a number."""
    pairs, row.repeated, row.disturbed = taken
    ratios = sorted(ratio(pair) for pair in pairs)
    row.pairs = len(ratios)
    row.median = statistics.median(ratios)
    row.worst = ratios[0] if row.target[0] == ">=" else ratios[-1]
    row.load = f"{statistics.median(p.share for p in pairs):.0%} max {max(p.share for p in pairs):.0%}"
    return row


def middle(pairs, what):
    return statistics.median(what(pair) for pair in pairs)
