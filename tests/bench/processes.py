"""What the kernel says about processes: CPU, memory, threads, and how busy the machine is with others."""
import os
import time

TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count()


def stat_of(pid):
    """(parent, seconds of CPU used, seconds used by children that were waited for), or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS, (int(fields[13]) + int(fields[14])) / TICKS


def cpu_of(pid):
    """Seconds of CPU that a process has used."""
    found = stat_of(pid)
    if found is None:
        raise ProcessLookupError(pid)
    return found[1]


def memory_of(pid):
    """Bytes of memory that the process has for itself, whatever file pages are mapped."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Anonymous:"))


def threads_of(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def wait_idle(pid, quiet=0.2, limit=20):
    """Returns when the process has used no CPU for a while."""
    last, since, until = cpu_of(pid), time.monotonic(), time.monotonic() + limit
    while time.monotonic() - since < quiet and time.monotonic() < until:
        time.sleep(0.02)
        now = cpu_of(pid)
        if now - last > quiet * 0.06:
            last, since = now, time.monotonic()


def accounted():
    """Seconds of CPU of this process and all that came from it, and of the kernel's own threads."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = stat_of(name)
            if found is not None:
                table[int(name)] = found
    ours = {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, (parent, _, _) in table.items() if parent in ours and pid not in ours}
        ours |= more
        grown = bool(more)
    total = sum(table[pid][1] for pid in ours if pid in table) + table[os.getpid()][2]
    return total + sum(cpu for pid, (parent, cpu, _) in table.items() if parent == 2 or pid == 2)


def machine():
    """(seconds used by processes, seconds stolen by other machines)"""
    with open("/proc/stat") as f:
        fields = [int(x) / TICKS for x in f.readline().split()[1:]]
    return fields[0] + fields[1] + fields[2], fields[7]


class Others:
    """with Others() as others: ...   Then others.share says which part of the machine was used by others."""

    def __enter__(self):
        self.before = time.monotonic(), machine(), accounted()
        return self

    def __exit__(self, *_):
        then, (busy, stolen), own = self.before
        (busy_now, stolen_now), own_now = machine(), accounted()
        foreign = busy_now - busy - (own_now - own) + stolen_now - stolen
        self.share = max(0.0, foreign / ((time.monotonic() - then) * CORES))
