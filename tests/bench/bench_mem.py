"""The speed table of live migration: memory streams and blackouts of ours against QEMU's and others', in interleaved pairs.

bench_mem.py [--quick] [--only SECTION]... [--list] [--keep DIRECTORY]

Everything runs on loopback, in one directory (below /dev/shm where there is room), and is ended by pid. CPU is that of both
ends while memory travels. The last line is 'SHORT n': how many rows are short of their target, failed, or are of something
that the engine cannot do yet. --quick: one pair and small guests, to see that it works; its figures mean nothing."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "lib")]

import pool as pools  # noqa: E402
import mem_moves  # noqa: E402,F401 (its sections)
from mem_ours import Ours  # noqa: E402
from mem_rows import SECTIONS  # noqa: E402
import speed_table  # noqa: E402

ROOM = 8 << 30  # of /dev/shm, or we use the place for temporary files


class MemoryBench(speed_table.Bench):
    """A corpus and a pool that are made once."""

    quick_seconds = 1

    def __init__(self, directory, quick):
        super().__init__(directory, pools.BUILD, quick, 1 if quick else 7)
        self.moves, self.runs = (1, 2) if quick else (5, 20)
        self.mib = 64 if quick else 1024      # of the corpus and of guests
        self.set_mib = self.mib // 2          # that guests store into
        self.link = 400 << 20                 # bytes/s
        self.limit_ms = 300                   # declared
        self.made, self.pool = None, None

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

    def after_failure(self):
        try:
            self.stop()
        except Exception as ending:  # the next section has a pool of its own
            return f"ending the pool: {ending!r}"
        return ""

    def stop(self):
        if self.pool is not None:
            pool, self.pool = self.pool, None
            pool.stop()


if __name__ == "__main__":
    sys.exit(speed_table.run(__doc__, "1 pair, small guests", SECTIONS, MemoryBench, ROOM))
