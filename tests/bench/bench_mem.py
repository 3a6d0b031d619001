"""The speed table of live migration: memory streams and blackouts of ours against QEMU's and others', in interleaved pairs.

bench_mem.py [--quick] [--only SECTION]... [--list] [--keep DIRECTORY]

Everything runs on loopback, in one directory (below /dev/shm where there is room), and is ended by pid. CPU is that of both
ends while memory travels. The last line is 'SHORT n': how many rows are short of their target, failed, or are of something
that the engine cannot do yet. --quick: one pair and small guests, to see that it works; its figures mean nothing."""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "lib")]

import pool as pools  # noqa: E402
from bench import HEAD, interrupted, print_row, table_line  # noqa: E402
from bench_disk import place  # noqa: E402
from disk_tools import quiet_limits  # noqa: E402
import mem_moves  # noqa: E402,F401 (its sections)
from mem_ours import Ours  # noqa: E402
from mem_rows import SECTIONS  # noqa: E402
from pairs import Failed, Plan, Row  # noqa: E402

TOTAL_SECONDS = 1500  # from then on no pair is repeated
QUICK_SECONDS = 1


class MemoryBench:
    """What sections share: a directory, a corpus and a pool that are made once, how much is measured."""

    def __init__(self, directory, quick):
        self.dir, self.build, self.quick = directory, pools.BUILD, quick
        self.pairs, self.moves, self.runs = (1, 1, 2) if quick else (7, 5, 20)
        self.mib = 64 if quick else 1024      # of the corpus and of guests
        self.set_mib = self.mib // 2          # that guests store into
        self.link = 400 << 20                 # bytes/s
        self.limit_ms = 300                   # declared
        self.began, self.made, self.pool = time.monotonic(), None, None

    def path(self, name):
        return os.path.join(self.dir, name)

    def program(self, name):
        return os.path.join(self.build, "tests", "bench", name)

    def plan(self, seconds, pairs=None):
        left = TOTAL_SECONDS - (time.monotonic() - self.began)
        return Plan(pairs or self.pairs, max(0, min(QUICK_SECONDS if self.quick else seconds, left)))

    def corpus(self):
        if self.made is None:
            path = self.path("corpus")
            subprocess.run([self.program("bench_memory"), "corpus", f"memory={path}", f"mib={self.mib}"], check=True)
            self.made = path
        return self.made

    def ours(self):
        if self.pool is None:
            self.pool = Ours(self)
        return self.pool

    def stop(self):
        if self.pool is not None:
            pool, self.pool = self.pool, None
            pool.stop()


def run_section(bench, name):
    try:
        return SECTIONS[name][0](bench)
    except Exception as error:
        rows = [Row(name, failure=str(error) if isinstance(error, Failed) else repr(error))]
        try:
            bench.stop()
        except Exception as ending:  # the next section has a pool of its own
            rows[0].note = f"ending the pool: {ending!r}"
        return rows


def measure(arguments):
    short, began = 0, time.monotonic()
    directory = os.path.abspath(arguments.keep) if arguments.keep else tempfile.mkdtemp(prefix="xapi-bench-mem-", dir=place())
    os.makedirs(directory, exist_ok=True)
    bench = MemoryBench(directory, arguments.quick)
    try:
        print(table_line(HEAD))
        for name in SECTIONS:
            if arguments.only is None or name in arguments.only:
                for row in run_section(bench, name):
                    print_row(row)
                    short += row.short
    finally:
        bench.stop()
        if not arguments.keep:
            shutil.rmtree(directory, ignore_errors=True)
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{time.monotonic() - began:.0f} s, load average {load} at the end")
    return short


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="1 pair, small guests")
    p.add_argument("--only", action="append", metavar="SECTION", choices=SECTIONS, help="this section; may be given again")
    p.add_argument("--list", action="store_true", help="print the sections")
    p.add_argument("--keep", metavar="DIRECTORY", help="work in this directory and leave it")
    return p.parse_args()


def main():
    arguments = parse()
    if arguments.list:
        for name, (_, about) in SECTIONS.items():
            print(f"{name:<16}{about}")
        return 0
    signal.signal(signal.SIGTERM, interrupted)
    quiet_limits()
    print(f"SHORT {measure(arguments)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
