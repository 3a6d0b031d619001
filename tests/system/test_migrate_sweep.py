#!/usr/bin/env python3
"""A fixed sample of the sweep: faults at steps of moves inside a pool and between two (make sweep: all)."""
import os
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")

if __name__ == "__main__":
    sys.exit(subprocess.run([sys.executable, os.path.join(ROOT, "tests", "sweep", "migrate_sweep.py"), "--sample", "40"]).returncode)
