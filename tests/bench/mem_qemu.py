"""The peer of the memory table: QEMU's live migration between two processes on this machine."""
import json
import os
import select
import shutil
import socket
import subprocess
import time

from disk_tools import Process, free_port
from pairs import Failed

QEMU = "qemu-system-x86_64"
UNLIMITED = 1 << 44
PM_TIMER = 3579545  # Hz
SECONDS = 120


def cpu_of(pid):
    """Seconds of CPU of a process that runs, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)


class Qmp:
    def __init__(self, path, process):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        process.wait_for(lambda: self.socket.connect_ex(path) == 0)
        self.rest = b""
        self.events = []
        self.read()
        self("qmp_capabilities")

    def read(self):
        while b"\n" not in self.rest:
            more = self.socket.recv(65536)
            if not more:
                raise Failed("QEMU has gone")
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def told(self):
        return b"\n" in self.rest or select.select([self.socket], [], [], 0.05)[0] != []

    def __call__(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = self.read()
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise Failed(f"QEMU: {command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def migration(self, wanted, seconds=SECONDS, look=None):
        """Waits for one of the wanted states; look() is called meanwhile. None: it was none of them in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            while self.events:
                event = self.events.pop(0)
                status = event.get("data", {}).get("status") if event["event"] == "MIGRATION" else None
                if status in wanted:
                    return status
                if status in ("failed", "cancelled"):
                    raise Failed(f"QEMU: the migration {status}")
            if self.told():
                self.events.append(self.read())
            if look is not None:
                look(self)
        return None

    def close(self):
        self.socket.close()


class Qemu:
    """One process; 'memory' is a -object's words for its RAM."""

    count = 0

    def __init__(self, bench, memory, mib, *more):
        Qemu.count += 1
        path = bench.path(f"qmp{os.getpid()}-{Qemu.count}")
        argv = [QEMU, "-display", "none", "-nodefaults", "-no-user-config", "-machine", "pc,accel=tcg,memory-backend=ram",
                "-m", str(mib), "-object", f"{memory},id=ram,size={mib}M,share=on", "-qmp", f"unix:{path},server=on,wait=off", *more]
        self.process = Process(argv, log=bench.path("qemu.log"))
        try:
            self.qmp = Qmp(path, self.process)
        except BaseException:
            self.stop()
            raise

    def cpu(self):
        return cpu_of(self.process.process.pid)

    def stop(self):
        if getattr(self, "qmp", None) is not None:
            self.qmp.close()
        self.process.end(9)

    def set(self, multifd, **parameters):
        self.qmp("migrate-set-parameters", **parameters)
        if multifd:
            self.allow("multifd")
            self.qmp("migrate-set-parameters", **{"multifd-channels": multifd})

    def allow(self, *capabilities):
        self.qmp("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in capabilities])


class Cost:
    def __init__(self, seconds, cpu, sent=0):
        self.seconds, self.cpu, self.bytes = seconds, cpu, sent


def send_paused(bench, corpus, mib, multifd):
    """A paused guest whose memory is the corpus, to a fresh process."""
    source = destination = None
    try:
        source = Qemu(bench, f"memory-backend-file,mem-path={corpus}", mib, "-S")
        destination = Qemu(bench, "memory-backend-memfd", mib, "-S", "-incoming", "defer")
        port = free_port()
        for end in (source, destination):
            end.set(multifd)
        source.qmp("migrate-set-parameters", **{"max-bandwidth": UNLIMITED, "downtime-limit": 300})
        destination.allow("events")
        source.allow("events")
        destination.qmp("migrate-incoming", uri=f"tcp:127.0.0.1:{port}")
        before, began = source.cpu() + destination.cpu(), time.monotonic()
        source.qmp("migrate", uri=f"tcp:127.0.0.1:{port}")
        if source.qmp.migration(("completed",)) is None or destination.qmp.migration(("completed",)) is None:
            raise Failed("QEMU's migration takes too long")
        seconds, cpu = time.monotonic() - began, source.cpu() + destination.cpu() - before
        return Cost(seconds, cpu, source.qmp("query-migrate")["ram"]["transferred"])
    finally:
        for end in (source, destination):
            if end is not None:
                end.stop()


# --- a guest that stores and is moved --------------------------------------------------------------------------------


def kernel(bench, pages, per_second):
    """mem_guest.S, for so many pages and stores a second."""
    path = bench.path(f"guest-{pages}-{per_second}")
    if not os.path.exists(path):
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mem_guest.S")
        for argv in (["as", "--32", "--defsym", f"PAGES={pages}", "--defsym", f"PACE={per_second * (1 << 32) // PM_TIMER}", "-o", path + ".o", source],
                     ["ld", "-m", "elf_i386", "-N", "--no-warn-rwx-segments", "-Ttext", "0x100000", "-o", path, path + ".o"]):
            done = subprocess.run(argv, capture_output=True, text=True)
            if done.returncode != 0:
                raise Failed(done.stderr)
    return path


class Heard:
    """What was heard of a guest: silences as (where, end, seconds), on the monotonic clock."""

    def __init__(self, bench):
        self.dir = bench.path("heard")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        self.paths = [os.path.join(self.dir, name) for name in ("source", "destination")]
        for path in self.paths:
            os.mkfifo(path)
        self.process = subprocess.Popen([bench.program("bench_heartbeat"), *self.paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = []

    def line(self, wanted, seconds=SECONDS):
        """Reads until one that begins so."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not select.select([self.process.stdout], [], [], 1)[0]:
                continue
            line = self.process.stdout.readline()
            self.lines.append(line)
            if line.startswith(wanted):
                return line
            if not line:
                break
        raise Failed(f"the guest did not say '{wanted}'")

    def stop(self):
        if self.process.poll() is None:
            self.lines += self.process.communicate("", timeout=30)[0].splitlines()
        words = [line.split() for line in self.lines]
        return [(w[0], float(w[1]), float(w[2])) for w in words if len(w) == 3]


class Outcome:
    """Of one move under stores. Seconds; blackout: longest silence from its beginning to just after the switch."""

    def __init__(self, seconds, blackout, sent, rounds, stall=0.0):
        self.seconds, self.blackout, self.bytes, self.rounds, self.stall = seconds, blackout, sent, rounds, stall


def blackout_of(silences, began):
    switch = next((at for where, at, _ in silences if where == "switch"), None)
    if switch is None:
        raise Failed("the guest was not heard at the destination")
    return max(took for where, at, took in silences if at > began and where != "destination"), switch


def move_storing(bench, mib, set_mib, rate_mib_s, link, limit_ms, multifd=0, means=(), seconds=30):
    """A guest that stores at this rate, moved over a link of 'link' bytes/s. means: capabilities beside pre-copy. None: it
    did not converge within the time."""
    heard, source, destination = Heard(bench), None, None
    words = ["-kernel", kernel(bench, set_mib * 256, int(rate_mib_s * 256))]
    try:
        source = Qemu(bench, "memory-backend-memfd", mib, *words, "-debugcon", "file:" + heard.paths[0])
        heard.line("filled")
        destination = Qemu(bench, "memory-backend-memfd", mib, *words, "-debugcon", "file:" + heard.paths[1], "-incoming", "defer")
        for end in (source, destination):
            end.set(multifd)
            end.allow("events", *means)
        source.qmp("migrate-set-parameters", **{"max-bandwidth": link, "max-postcopy-bandwidth": link, "downtime-limit": limit_ms})
        port = free_port()
        destination.qmp("migrate-incoming", uri=f"tcp:127.0.0.1:{port}")
        time.sleep(1)  # of steady stores
        began = time.monotonic()
        source.qmp("migrate", uri=f"tcp:127.0.0.1:{port}")
        state = source.qmp.migration(("completed",), seconds, look=switch_after_a_pass if "postcopy-ram" in means else None)
        if state is None:
            return None
        took = time.monotonic() - began
        heard.line("switch", 10)
        time.sleep(0.3)
        ram = source.qmp("query-migrate")["ram"]
        silences = heard.stop()
        blackout, switch = blackout_of(silences, began)
        stall = max([t for where, at, t in silences if where == "destination" and at > switch], default=0.0)
        return Outcome(took, blackout, ram["transferred"], ram["dirty-sync-count"], stall)
    finally:
        for end in (source, destination):
            if end is not None:
                end.stop()
        heard.stop()


def switch_after_a_pass(qmp):
    """To post-copy, once everything was sent once."""
    found = qmp("query-migrate")
    if found.get("status") == "active" and found.get("ram", {}).get("dirty-sync-count", 0) > 1:
        qmp("migrate-start-postcopy")
