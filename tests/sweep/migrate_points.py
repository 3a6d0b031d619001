"""The fault points of migration, as the code has them."""
import glob
import os
import re

from tests.sweep.points import ROOT, read

# What none of the sweep's operations passes: why.
ELSEWHERE = [
    (r"disk\.move\.", "of VDI.pool_migrate: tests/sweep/disk_sweep.py"),
    (r"metadata\.export", "of an export"),
]
FAMILIES = r"(?:migrate|incoming|metadata|disk)\.[a-z0-9_.-]+"


def table(text):
    """Names in 'struct step { … } steps[] = { { "name", … } }'."""
    found = re.search(r"\} (?:\w*steps)\[\] = \{.*?\n\};", text, re.S)
    return re.findall(r'\{ "([a-z-]+)",', found.group(0)) if found else []


def daemon_points():
    """Fault points named in the code, and those made of a table's steps: fault_hit(… "family.%s", step->name)."""
    found = set()
    for path in sorted(glob.glob(os.path.join(ROOT, "xapi/migrate/*.c")) + glob.glob(os.path.join(ROOT, "xapi/metadata/*.c"))):
        text = read(path)
        found |= set(re.findall(rf'fault_hit\("({FAMILIES})"\)', text))
        for family in re.findall(rf'"({FAMILIES})\.%s"', text):
            found |= {f"{family}.{name}" for name in table(text)}
    return found


def elsewhere(point):
    return any(re.match(pattern, point) for pattern, _ in ELSEWHERE)
