"""The speed table: what the daemon does against its peers, each row a ratio of interleaved pairs.

bench.py [--quick] [--only SECTION]... [--list] [--keep DIRECTORY]

Everything runs on loopback and in one directory of its own, is bounded, and is ended by pid. The last
line is 'SHORT n': how many rows are short of their target or failed. --quick: 3 pairs and 1,000 VMs, to
see that it works; its figures mean nothing."""
import argparse
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "lib")]

import pool as pools  # noqa: E402
from pairs import Failed, Plan, Row  # noqa: E402
from rows import SECTIONS  # noqa: E402
from servers import Daemon, Ovsdb, buffer, mock  # noqa: E402

TOTAL_SECONDS = 700  # from then on no pair is repeated
QUICK_SECONDS = 2    # of a row, with --quick


class Bench:
    """What sections share: servers that are started when first needed, and how much is measured."""

    def __init__(self, directory, quick):
        self.dir, self.build = directory, pools.BUILD
        self.vms, self.waiters, self.pairs, self.seconds = (1000, 200, 3, 0.3) if quick else (10000, 2000, 9, 1)
        self.quick, self.began = quick, time.monotonic()
        self.servers = {}

    def path(self, name):
        return os.path.join(self.dir, name)

    def plan(self, seconds):
        """How many pairs; repetitions of disturbed ones may take so long, but not beyond the whole's time."""
        left = TOTAL_SECONDS - (time.monotonic() - self.began)
        return Plan(self.pairs, max(0, min(QUICK_SECONDS if self.quick else seconds, left)))

    def server(self, name, start):
        if name not in self.servers:
            self.servers[name] = start()
        return self.servers[name]

    def daemon(self):
        return self.server("daemon", lambda: Daemon(self, self.vms))

    def small_daemon(self):
        """One with few objects: little freed memory in its heap could hide what is used anew."""
        return self.server("small daemon", lambda: Daemon(self, 64))

    def mock(self):
        return self.server("mock", lambda: mock(self, self.daemon()))

    def buffer(self, path):
        return self.server("buffer", lambda: buffer(self, path))

    def ovsdb(self):
        return self.server("ovsdb", lambda: Ovsdb(self, self.mirrored()))

    def mirrored(self):
        """Rows with the values of one of our objects: as many VMs as we have for the updates, and a few of
        each class that is waited for (a monitor of many rows takes ovsdb-server long to set up)."""
        daemon = self.daemon()
        vm, metrics = (daemon.api(f"{cls}.get_record", daemon.sample(cls)[0]) for cls in ("VM", "VM_metrics"))
        return {table: [dict(record, uuid=f"{i:08x}" + record["uuid"][8:]) for i in range(rows)]
                for table, record, rows in (("VM", vm, self.vms), ("VM_watched", vm, 10), ("VM_metrics_watched", metrics, 10))}

    def stop(self, name):
        try:
            self.servers.pop(name).stop()
        except Exception as error:  # the others are to be ended too
            print(f"bench: ending {name}: {error!r}", file=sys.stderr)

    def stop_all(self):
        for name in reversed(list(self.servers)):
            self.stop(name)

    def stop_dead(self):
        """After a failure: what has died is started afresh by the next section."""
        for name in [name for name, server in self.servers.items() if server.process is None or server.process.poll() is not None]:
            self.stop(name)


def run_section(bench, name):
    try:
        return SECTIONS[name][0](bench)
    except Exception as error:
        failure = str(error) if isinstance(error, Failed) else repr(error)
        log = bench.servers["daemon"].host.log_tail(5) if "daemon" in bench.servers else ""
        bench.stop_dead()
        return [Row(name, failure=failure, note=log)]


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


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="3 pairs, 1,000 VMs, 200 clients")
    p.add_argument("--only", action="append", metavar="SECTION", choices=SECTIONS, help="this section; may be given again")
    p.add_argument("--list", action="store_true", help="print the sections")
    p.add_argument("--keep", metavar="DIRECTORY", help="work in this directory and leave it")
    return p.parse_args()


@contextlib.contextmanager
def workplace(keep):
    directory = os.path.abspath(keep) if keep else tempfile.mkdtemp(prefix="xapi-bench-")
    os.makedirs(directory, exist_ok=True)
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def interrupted(*_):
    raise KeyboardInterrupt


def measure(arguments):
    short, began = 0, time.monotonic()
    with workplace(arguments.keep) as directory:
        bench = Bench(directory, arguments.quick)
        try:
            print(table_line(HEAD))
            for name in SECTIONS:
                if arguments.only is None or name in arguments.only:
                    for row in run_section(bench, name):
                        print_row(row)
                        short += row.short
        finally:
            bench.stop_all()
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{time.monotonic() - began:.0f} s, load average {load} at the end")
    return short


def main():
    arguments = parse()
    if arguments.list:
        for name, (_, about) in SECTIONS.items():
            print(f"{name:<16}{about}")
        return 0
    signal.signal(signal.SIGTERM, interrupted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print(f"SHORT {measure(arguments)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
