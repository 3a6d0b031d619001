"""A tapd in a directory of its own, driven over its control socket (storage/tapd/control_protocol.h)."""
import array
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
PROGRAM = os.path.join(BUILD, "tapd")
DEADLINE = 60


def escape(value):
    raw = value.encode() if isinstance(value, str) else str(int(value)).encode()
    return "".join(chr(b) if 0x21 <= b <= 0x7E and b not in b"%=" else "%%%02X" % b for b in raw)


def line(verb, **words):
    return " ".join([verb] + [f"{name}={escape(value)}" for name, value in words.items()])


def parse(text):
    verb, *words = text.split(" ")
    unescape = lambda s: re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m.group(1), 16)]), s.encode()).decode()
    return verb, {name: unescape(value) for name, value in (w.split("=", 1) for w in words)}


class Refused(Exception):
    pass


class Control:
    """One connection; answers come in order."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(path)
        self.rest = b""

    def send(self, verb, fd=None, **words):
        data = (line(verb, **words) + "\n").encode()
        if fd is None:
            self.sock.sendall(data)
        else:
            self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])

    def answer(self):
        while b"\n" not in self.rest:
            more = self.sock.recv(65536)
            if not more:
                raise ConnectionError("tapd closed the control connection")
            self.rest += more
        text, self.rest = self.rest.split(b"\n", 1)
        verb, words = parse(text.decode())
        if verb != "ok":
            raise Refused(words.get("text", text.decode()))
        return words

    def call(self, verb, fd=None, **words):
        self.send(verb, fd, **words)
        return self.answer()

    def close(self):
        self.sock.close()


class Tapd:
    def __init__(self, directory=None, **spec):
        self.dir = directory or tempfile.mkdtemp(prefix="tapd-")
        os.makedirs(self.dir, exist_ok=True)
        self.process = None
        self.args = ["--allow-faults"]
        if spec:
            self.write_spec(**spec)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write_spec(self, **words):
        with open(self.path("spec"), "w") as f:
            f.write(line("spec", **words) + "\n")

    def spec(self):
        with open(self.path("spec")) as f:
            verb, words = parse(f.read().strip())
        assert verb == "spec", verb
        return words

    def start(self):
        """Returns once the control socket answers."""
        log = open(self.path("log"), "a")
        self.process = subprocess.Popen([PROGRAM, self.dir] + self.args, stderr=log, stdout=log, stdin=subprocess.DEVNULL)
        log.close()
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                self.call("status")
                return self
            except (FileNotFoundError, ConnectionError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError("tapd did not start:\n" + self.log())
                time.sleep(0.005)

    def control(self):
        return Control(self.path("control"))

    def call(self, verb, fd=None, **words):
        control = self.control()
        try:
            return control.call(verb, fd, **words)
        finally:
            control.close()

    def status(self):
        return self.call("status")

    def wait(self, until):
        """Polls status until it pleases; returns it."""
        deadline = time.monotonic() + DEADLINE
        while True:
            status = self.status()
            if until(status):
                return status
            assert time.monotonic() < deadline, f"still {status}\n" + self.log()
            time.sleep(0.005)

    def kill(self, with_signal=signal.SIGKILL):
        if self.process is not None:
            self.process.send_signal(with_signal)
            self.process.wait(DEADLINE)
            self.process = None

    def ended(self):
        """Waits for the end by itself; its status."""
        status = self.process.wait(DEADLINE)
        self.process = None
        return status

    def uri(self):
        return f"nbd+unix:///?socket={self.path('nbd')}"

    def log(self):
        with open(self.path("log"), errors="replace") as f:
            return f.read()

    def remove(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def wait_listening(path):
    """Until the socket at path takes connections: it is there (bind) a moment before it does (listen)."""
    end = time.monotonic() + DEADLINE
    while True:
        with socket.socket(socket.AF_UNIX) as s:
            try:
                return s.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < end, f"nothing listens at {path}"
        time.sleep(0.005)


def run_case(place, what, case, *args):
    """One case in a fresh place, which is removed; the tapds' logs are shown when it fails."""
    began = time.monotonic()
    try:
        case(place, *args)
        print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)
    except BaseException:
        for tap in place.taps:
            print(f"--- {tap.dir}/log\n" + (tap.log() if os.path.exists(tap.path("log")) else ""), flush=True)
        raise
    finally:
        place.remove()


def run_cases(make_place, cases, programs, wanted):
    """All cases, or those wanted by name or number; 77 where a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            print(f"{program} is not installed")
            return 77
    for i, case in enumerate(cases):
        if not wanted or case.__name__ in wanted or str(i) in wanted:
            run_case(make_place(), f"{i} {case.__name__}", case)
    return 0
