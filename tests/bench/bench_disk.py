"""The speed table of the datapath: copies and mirrors of ours against their peers, each row a ratio of
interleaved pairs.

bench_disk.py [--quick] [--only SECTION]... [--list] [--keep DIRECTORY]

Everything runs on loopback, in one directory (below /dev/shm where there is room), and is ended by pid. CPU is that of
all processes that take part, from their start to their end. The last line is 'SHORT n': how many rows are short of
their target or failed. --quick: 3 pairs and small images, to see that it works; its figures mean nothing."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "lib")]

import pool as pools  # noqa: E402
import disk_mirror  # noqa: E402,F401 (its sections)
from disk_rows import SECTIONS, run  # noqa: E402
import speed_table  # noqa: E402

ROOM = 8 << 30  # of /dev/shm, or we use the place for temporary files


class DiskBench(speed_table.Bench):
    """Images that are made once."""

    def __init__(self, directory, quick):
        super().__init__(directory, pools.BUILD, quick, 3 if quick else 9)
        self.mirror_pairs = 1 if quick else 5
        self.sizes = {"sparse": 512, "dense": 256, "mirror": 128} if quick else {"sparse": 2048, "dense": 1024, "mirror": 512}
        self.images, self.tapd = {}, os.path.join(self.build, "tapd")

    def image(self, kind):
        if kind not in self.images:
            path = self.path(f"{kind}.raw")
            run(self.program("bench_mkdisk"), path, "dense" if kind == "mirror" else kind, str(self.sizes[kind]), "7")
            self.images[kind] = path
        return self.images[kind]


if __name__ == "__main__":
    sys.exit(speed_table.run(__doc__, "3 pairs, small images", SECTIONS, DiskBench, ROOM))
