#!/usr/bin/env python3
"""The disk bench runs and prints its rows; what the figures are is not looked at."""
import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.environ.get("BUILD", "build")
ROWS = {"copy-nbd-dense-cpu", "copy-nbd-sparse", "vhd-write", "mirror-diverges"}


def build():
    """The programs it needs, with the variables of the make that runs us but not its job server."""
    programs = [f"{BUILD}/tapd"] + [f"{BUILD}/tests/bench/bench_{name}" for name in ("mkdisk", "clone")]
    variables = os.environ.get("MAKEFLAGS", "").partition("-- ")[2].split()
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    subprocess.run(["make", "--no-print-directory", f"BUILD={BUILD}", *variables, *programs], cwd=ROOT, env=clean, check=True)


def main():
    if "-address" in BUILD or "-thread" in BUILD:
        print("figures of a build with sanitizers say nothing")
        return 77
    build()
    only = [word for section in ("copy-nbd", "vhd", "mirror-diverges") for word in ("--only", section)]
    done = subprocess.run([sys.executable, "tests/bench/bench_disk.py", "--quick", *only], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=300)
    print(done.stdout)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.returncode
    assert re.fullmatch(r"SHORT \d+", lines[-1]), lines[-1]
    assert "FAILED" not in done.stdout
    missing = {row for row in ROWS if not any(line.startswith(row) for line in lines)}
    assert not missing, missing
    return 0


if __name__ == "__main__":
    sys.exit(main())
