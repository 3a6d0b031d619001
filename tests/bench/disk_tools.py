"""What the rows of the disk table share: measured commands, servers, images."""
import dataclasses
import os
import select
import signal
import socket
import subprocess
import time

from pairs import Failed

MIB = 1 << 20
CHILD_SECONDS = 120  # no command may take longer


@dataclasses.dataclass
class Cost:
    """Of one copy: seconds it took, and CPU of all processes that took part."""
    seconds: float
    cpu: float


class Process:
    """A child whose CPU is known once it has ended."""

    def __init__(self, argv, ready=None, log=None, **kwargs):
        self.argv, self.cpu, self.status = argv, None, None
        self.log = open(log, "ab") if log else subprocess.DEVNULL
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, **kwargs)
        if ready is not None:
            try:
                self.wait_for(ready)
            except BaseException:
                self.end(signal.SIGKILL)
                raise

    def wait_for(self, ready):
        until = time.monotonic() + 20
        while not ready():
            if time.monotonic() > until or self.peek():
                raise Failed(f"{os.path.basename(self.argv[0])} did not start: {' '.join(self.argv)}")
            time.sleep(0.005)

    def peek(self):
        """Has it ended? Its CPU is then known."""
        if self.status is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid != 0:
                self.take(status, usage)
        return self.status is not None

    def take(self, status, usage):
        self.status = self.process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu = usage.ru_utime + usage.ru_stime
        if self.log is not subprocess.DEVNULL:
            self.log.close()

    def wait(self, seconds=CHILD_SECONDS):
        """Its exit status."""
        fd = os.pidfd_open(self.process.pid) if self.status is None else None
        if fd is not None:
            with os.fdopen(fd):
                poller = select.poll()
                poller.register(fd, select.POLLIN)
                if not poller.poll(seconds * 1000):
                    self.end(signal.SIGKILL)
                    raise Failed(f"{self.argv[0]} took longer than {seconds} s")
            _, status, usage = os.wait4(self.process.pid, 0)
            self.take(status, usage)
        return self.status

    def end(self, how=signal.SIGTERM):
        if self.status is None:
            self.process.send_signal(how)
            self.wait(30)
        return self.cpu


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listens(port):
    """True once somebody accepts there; for servers that do not mind a client that says nothing."""
    def ready():
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0
    return ready


def exists(path):
    return lambda: os.path.exists(path)


def copy_cost(servers, client, log=None):
    """Starts the servers (functions that give a Process), runs the client's command, ends the servers."""
    started = []
    try:
        for server in servers:
            started.append(server())
        began = time.monotonic()
        process = Process(client, log=log)
        status = process.wait()
        seconds = time.monotonic() - began
        if status != 0:
            raise Failed(f"{' '.join(client)} ended with {status}{tail(log)}")
        return Cost(seconds, process.cpu + sum(server.end() for server in reversed(started)))
    finally:
        for server in started:
            server.end(signal.SIGKILL)


def tail(path):
    if path is None or not os.path.exists(path):
        return ""
    with open(path, errors="replace") as f:
        return ": " + " ".join(f.read()[-300:].split())


def fresh(path, size):
    """An empty file of that size, whatever was there."""
    if os.path.exists(path):
        os.unlink(path)
    with open(path, "wb") as f:
        f.truncate(size)
    return path


def same(a, b):
    """Do two files hold the same? Without counting for anything."""
    if subprocess.run(["cmp", "-s", a, b]).returncode != 0:
        raise Failed(f"{a} and {b} differ")


def data_of(path):
    return os.stat(path).st_blocks * 512
