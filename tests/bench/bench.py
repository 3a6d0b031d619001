"""The speed table: what the daemon does against its peers, each row a ratio of interleaved pairs.

bench.py [--quick] [--only SECTION]... [--list] [--keep DIRECTORY]

Everything runs on loopback and in one directory of its own, is bounded, and is ended by pid. The last
line is 'SHORT n': how many rows are short of their target or failed. --quick: 3 pairs and 1,000 VMs, to
see that it works; its figures mean nothing."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "lib")]

import pool as pools  # noqa: E402
from rows import SECTIONS  # noqa: E402
from servers import Daemon, Ovsdb, buffer, mock  # noqa: E402
from speed_table import Bench, run  # noqa: E402

class DaemonBench(Bench):
    """Servers that are started when first needed."""

    total_seconds = 700

    def __init__(self, directory, quick):
        self.vms, self.waiters, pairs, self.seconds = (1000, 200, 3, 0.3) if quick else (10000, 2000, 9, 1)
        super().__init__(directory, pools.BUILD, quick, pairs)
        self.servers = {}

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

    def end(self, name):
        try:
            self.servers.pop(name).stop()
        except Exception as error:  # the others are to be ended too
            print(f"bench: ending {name}: {error!r}", file=sys.stderr)

    def stop(self):
        for name in reversed(list(self.servers)):
            self.end(name)

    def after_failure(self):
        """What has died is started afresh by the next section."""
        log = self.servers["daemon"].host.log_tail(5) if "daemon" in self.servers else ""
        for name in [name for name, server in self.servers.items() if server.process is None or server.process.poll() is not None]:
            self.end(name)
        return log


if __name__ == "__main__":
    sys.exit(run(__doc__, "3 pairs, 1,000 VMs, 200 clients", SECTIONS, DaemonBench))
