"""Driving bench_load, and the requests it sends."""
import json
import os
import subprocess
import xmlrpc.client

from pairs import Failed

COUNTER = "@" * 10
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
    """Runs bench_load against one server: .get(), .closed() and .fanout() give what it prints."""

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

    def fanout(self, requests, trigger, expect, expect_trigger, setup_replies=0, when_waiting=lambda: None):
        """All wait; when_waiting() is called; then the trigger is sent and they are woken."""
        path = os.path.join(self.bench.dir, "trigger")
        with open(path, "wb") as f:
            f.write(trigger)
        command = self.command("fanout", requests, "fanout", "-n", len(requests), "-t", path, "-p", setup_replies, "-x", expect,
                               "-y", expect_trigger)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            if process.stdout.readline() == "ready\n":
                when_waiting()
                process.stdin.write("go\n")
                process.stdin.flush()
            out, err = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        answer = self.result(process.returncode, out, err)
        if answer["woken"] != len(requests):
            raise Failed(f"{answer['woken']} of {len(requests)} clients were woken")
        return answer
