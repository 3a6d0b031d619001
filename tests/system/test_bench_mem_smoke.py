#!/usr/bin/env python3
"""The migration bench runs and prints its rows; what the figures are is not looked at."""
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.environ.get("BUILD", "build")
ROWS = {"encrypted", "wire-bytes", "many-total"}
WITH_QEMU = {"qemu-multifd-2-cpu", "qemu-single"}


def build():
    """The programs it needs, with the variables of the make that runs us but not its job server."""
    programs = [f"{BUILD}/tests/bench/bench_{name}" for name in ("memory", "heartbeat")]
    variables = os.environ.get("MAKEFLAGS", "").partition("-- ")[2].split()
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    subprocess.run(["make", "--no-print-directory", f"BUILD={BUILD}", *variables, *programs], cwd=ROOT, env=clean, check=True)


def main():
    if "-address" in BUILD or "-thread" in BUILD:
        print("figures of a build with sanitizers say nothing")
        return 77
    if shutil.which("stunnel") is None:
        print("no stunnel (etc/install-deps bench)")
        return 77
    build()
    qemu = shutil.which("qemu-system-x86_64") is not None
    only = [word for section in ("tls", "bytes", "many", *(["qemu"] if qemu else [])) for word in ("--only", section)]
    done = subprocess.run([sys.executable, "tests/bench/bench_mem.py", "--quick", *only], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=200)
    print(done.stdout)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.returncode
    assert re.fullmatch(r"SHORT \d+", lines[-1]), lines[-1]
    missing = {row for row in ROWS | (WITH_QEMU if qemu else set()) if not any(line.startswith(row) for line in lines)}
    assert not missing, missing
    failed = [line for line in lines if "FAILED" in line and not line.startswith("wire-bytes")]  # that one needs a package from Debian
    assert not failed, failed
    return 0


if __name__ == "__main__":
    sys.exit(main())
