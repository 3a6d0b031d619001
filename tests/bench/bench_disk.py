"""The speed table of the datapath: copies and mirrors of ours against their peers, each row a ratio of
interleaved pairs.

bench_disk.py [--quick] [--only SECTION]... [--list] [--keep DIRECTORY]

Everything runs on loopback, in one directory (below /dev/shm where there is room), and is ended by pid. CPU is that of
all processes that take part, from their start to their end. The last line is 'SHORT n': how many rows are short of
their target or failed. --quick: 3 pairs and small images, to see that it works; its figures mean nothing."""
import argparse
import os
import shutil
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "lib")]

import pool as pools  # noqa: E402
from bench import HEAD, interrupted, print_row, table_line  # noqa: E402
import disk_mirror  # noqa: E402,F401 (its sections)
from disk_rows import SECTIONS, run  # noqa: E402
from disk_tools import quiet_limits  # noqa: E402
from pairs import Failed, Plan, Row  # noqa: E402

TOTAL_SECONDS = 1500  # from then on no pair is repeated
QUICK_SECONDS = 2
ROOM = 8 << 30        # of /dev/shm, or we use the place for temporary files


class DiskBench:
    """What sections share: a directory, images that are made once, how much is measured."""

    def __init__(self, directory, quick):
        self.dir, self.build, self.quick = directory, pools.BUILD, quick
        self.pairs, self.mirror_pairs = (3, 1) if quick else (9, 5)
        self.sizes = {"sparse": 512, "dense": 256, "mirror": 128} if quick else {"sparse": 2048, "dense": 1024, "mirror": 512}
        self.began, self.images = time.monotonic(), {}
        self.tapd = os.path.join(self.build, "tapd")

    def path(self, name):
        return os.path.join(self.dir, name)

    def program(self, name):
        return os.path.join(self.build, "tests", "bench", name)

    def plan(self, seconds, pairs=None):
        left = TOTAL_SECONDS - (time.monotonic() - self.began)
        return Plan(pairs or self.pairs, max(0, min(QUICK_SECONDS if self.quick else seconds, left)))

    def image(self, kind):
        if kind not in self.images:
            path = self.path(f"{kind}.raw")
            run(self.program("bench_mkdisk"), path, "dense" if kind == "mirror" else kind, str(self.sizes[kind]), "7")
            self.images[kind] = path
        return self.images[kind]


def run_section(bench, name):
    try:
        return SECTIONS[name][0](bench)
    except Exception as error:
        return [Row(name, failure=str(error) if isinstance(error, Failed) else repr(error))]


def place():
    """Where the images are: memory, so that no disk's noise is measured."""
    shm = "/dev/shm"
    if os.path.isdir(shm) and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > ROOM:
        return shm
    return None


def measure(arguments):
    short, began = 0, time.monotonic()
    directory = os.path.abspath(arguments.keep) if arguments.keep else tempfile.mkdtemp(prefix="xapi-bench-disk-", dir=place())
    os.makedirs(directory, exist_ok=True)
    bench = DiskBench(directory, arguments.quick)
    try:
        print(table_line(HEAD))
        for name in SECTIONS:
            if arguments.only is None or name in arguments.only:
                for row in run_section(bench, name):
                    print_row(row)
                    short += row.short
    finally:
        if not arguments.keep:
            shutil.rmtree(directory, ignore_errors=True)
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{time.monotonic() - began:.0f} s, load average {load} at the end")
    return short


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="3 pairs, small images")
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
