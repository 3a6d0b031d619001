"""What the bench programs share: their command line, a directory, sections one after another, the table of rows, its last line."""
import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time

from pairs import Failed, Plan, Row


HEAD = ("row", "ours", "peer", "ratio", "median", "worst", "target", "verdict", "pairs", "again", "others")
WIDTHS = (32, 12, 12, 11, 8, 8, 8, 7, 5, 5, 14)


def table_line(cells):
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS)).rstrip()


def number(value):
    return "-" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def print_row(row):
    target = "-" if row.target[1] is None else f"{row.target[0]} {row.target[1]:g}"
    cells = (row.name, row.ours, row.peer, row.ratio, number(row.median), number(row.worst), target, row.verdict,
             str(row.pairs), str(row.repeated), row.load)
    print(table_line(cells))
    notes = [row.failure] if row.failure else []
    notes += [f"{row.disturbed} of the pairs were disturbed"] if row.disturbed else []
    notes += row.note.splitlines()
    for note in notes:
        print(f"    {note}")
    sys.stdout.flush()


def place(room):
    """Where large files are: memory, so that no disk's noise is measured."""
    shm = "/dev/shm"
    if os.path.isdir(shm) and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > room:
        return shm
    return None


class Bench:
    """What the sections of a table share; made once, stopped at the end. Subclasses say how much is measured."""

    total_seconds = 1500  # from then on no pair is repeated
    quick_seconds = 2     # of a row, with --quick

    def __init__(self, directory, build, quick, pairs):
        self.dir, self.build, self.quick, self.pairs, self.began = directory, build, quick, pairs, time.monotonic()

    def path(self, name):
        return os.path.join(self.dir, name)

    def program(self, name):
        return os.path.join(self.build, "tests", "bench", name)

    def plan(self, seconds, pairs=None):
        """How many pairs; repetitions of disturbed ones may take so long, but not beyond the whole's time."""
        left = self.total_seconds - (time.monotonic() - self.began)
        return Plan(pairs or self.pairs, max(0, min(self.quick_seconds if self.quick else seconds, left)))

    def after_failure(self):
        """A section failed: what is to be said beside, once the next one can begin."""
        return ""

    def stop(self):
        pass


def run_section(bench, name, section):
    try:
        return section(bench)
    except Exception as error:
        return [Row(name, failure=str(error) if isinstance(error, Failed) else repr(error), note=bench.after_failure())]


def interrupted(*_):
    raise KeyboardInterrupt


def measure(make_bench, sections, arguments, room):
    short, began = 0, time.monotonic()
    directory = os.path.abspath(arguments.keep) if arguments.keep else tempfile.mkdtemp(prefix="xapi-bench-", dir=place(room) if room else None)
    os.makedirs(directory, exist_ok=True)
    bench = make_bench(directory, arguments.quick)
    try:
        print(table_line(HEAD))
        for name, (section, _) in sections.items():
            if arguments.only is None or name in arguments.only:
                for row in run_section(bench, name, section):
                    print_row(row)
                    short += row.short
    finally:
        bench.stop()
        if not arguments.keep:
            shutil.rmtree(directory, ignore_errors=True)
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{time.monotonic() - began:.0f} s, load average {load} at the end")
    return short


def parse(about, quick, sections):
    p = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help=quick)
    p.add_argument("--only", action="append", metavar="SECTION", choices=sections, help="this section; may be given again")
    p.add_argument("--list", action="store_true", help="print the sections")
    p.add_argument("--keep", metavar="DIRECTORY", help="work in this directory and leave it")
    return p.parse_args()


def run(about, quick, sections, make_bench, room=0):
    """The whole program. room: bytes that memory must have for the directory to be there; 0: temporary files' place."""
    arguments = parse(about, quick, sections)
    if arguments.list:
        for name, (_, what) in sections.items():
            print(f"{name:<16}{what}")
        return 0
    signal.signal(signal.SIGTERM, interrupted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print(f"SHORT {measure(make_bench, sections, arguments, room)}")
    return 0
