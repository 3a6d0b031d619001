"""Driving bench_load, and the requests it sends."""
import contextlib
import json
import os
import subprocess
import xmlrpc.client

from pairs import Failed

COUNTER = "@" * 10
TOKEN = "#" * 41  # as long as the token of an event
SUCCESS = ">Success<"


def program(build, name):
    return os.path.join(build, "tests", "bench", name)


def http_request(method, *params, host="127.0.0.1"):
    """A whole POST of one XML-RPC call, as bytes."""
    body = xmlrpc.client.dumps(params, method).encode()
    head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml\r\nUser-Agent: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def json_request(method, *params, number=0):
    return json.dumps({"method": method, "params": params, "id": number}).encode()


class Load:
    """Runs bench_load against one server: .get() and .closed() give what it prints, .fanout() a process."""

    def __init__(self, bench, address, port, kind="http"):
        self.bench, self.target, self.kind = bench, f"{address}:{port}", kind

    def command(self, mode, requests, name, *more):
        path = os.path.join(self.bench.dir, name)
        with open(path, "wb") as f:
            f.write(b"\0".join(requests))
        return [program(self.bench.build, "bench_load"), mode, "-c", self.target, "-f", self.kind, "-r", path, *map(str, more)]

    def run(self, command, timeout=120):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
        return self.result(done.returncode, done.stdout, done.stderr)

    def result(self, status, out, err):
        if status != 0:
            raise Failed(f"bench_load ended with {status}: {err.strip()[:300]}")
        answer = json.loads(out)
        if answer["failed"]:
            raise Failed(f"{answer['failed']} replies were not as expected: {err.strip()[:300]}")
        return answer

    def get(self, request, repeats=1, save=None):
        answer = self.run(self.command("get", [request], "get", "-k", repeats, "-x", SUCCESS, *(["-o", save] if save else [])))
        if answer["status"] != 200:
            raise Failed(f"HTTP status {answer['status']}")
        return answer

    def closed(self, requests, connections, seconds, expect):
        command = self.command("closed", requests, "closed", "-n", connections, "-s", seconds, "-x", expect)
        answer = self.run(command)
        if answer["done"] == 0:
            raise Failed("no reply at all")
        return answer

    def fanout(self, requests, trigger, expect, expect_trigger, setup_replies=0):
        """A Fanout: as many connections as there are requests."""
        path = os.path.join(self.bench.dir, f"trigger-{self.kind}")
        with open(path, "wb") as f:
            f.write(trigger)
        return Fanout(self, self.command("fanout", requests, f"fanout-{self.kind}", "-n", len(requests), "-t", path, "-p", setup_replies,
                                         "-x", expect, "-y", expect_trigger), len(requests))


class Fanout:
    """Clients that wait for one change: .wait(token), .go(), and again; .stop()."""

    def __init__(self, load, command, n):
        self.load, self.n = load, n
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.line()

    def line(self):
        return self.process.stdout.readline() or self.gone()

    def gone(self):
        raise Failed(f"bench_load ended with {self.process.wait()}: {self.process.stderr.read().strip()[:300]}")

    def tell(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.gone()

    def wait(self, token=""):
        self.tell(f"wait {token}")
        self.line()

    def go(self):
        self.tell("go")
        answer = self.load.result(0, self.line(), "")
        self.line()
        if answer["woken"] != self.n:
            raise Failed(f"{answer['woken']} of {self.n} clients were woken")
        return answer

    def stop(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
