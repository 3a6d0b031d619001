#!/usr/bin/env python3
"""Stands in for tapd where a test wants one that misbehaves: the control protocol, no disk.

The spec's path says how: "fail" ends at once, "mute" never answers 'activate', "deaf" closes its control socket when
told to activate and lives on, "nonsense" answers it with what is no message. A mirror to a path that contains "lost"
fails; others converge after three looks."""
import os
import socket
import sys
import threading
from urllib.parse import quote, unquote

DIR = sys.argv[1]
LOOKS = 3


def parse(line):
    verb, *words = line.split(" ")
    return verb, {k: unquote(v) for k, v in (w.split("=", 1) for w in words)}


def message(verb, words):
    return " ".join([verb] + [f"{k}={quote(str(v), safe='/,:;@+')}" for k, v in words.items()]) + "\n"


class Tapd:
    def __init__(self):
        with open(f"{DIR}/spec") as f:
            self.spec = parse(f.read().rstrip("\n"))[1]
        self.mirror, self.looks, self.target, self.mode = "none", 0, None, ""
        if self.spec["path"] == "fail":
            sys.exit("fake tapd: told to fail")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(f"{DIR}/control"):
            os.unlink(f"{DIR}/control")
        with open("/proc/self/stat") as f:
            start = f.read().rsplit(")", 1)[1].split()[19]
        with open(f"{DIR}/pid", "w") as f:
            f.write(f"{os.getpid()} {start}\n")
        self.socket.bind(f"{DIR}/control")
        self.socket.listen(8)

    def keep(self):
        with open(f"{DIR}/spec.new", "w") as f:
            f.write(message("spec", self.spec))
        os.rename(f"{DIR}/spec.new", f"{DIR}/spec")

    def state(self, state):
        self.spec["state"] = state
        self.keep()

    def step(self):
        self.looks += 1
        if self.mirror == "copying" and "lost" in self.target["path"]:
            self.mirror = "failed"
        elif self.mirror == "copying" and self.looks >= LOOKS:
            self.mirror = "done" if self.mode in ("copy", "point") else "following"
        elif self.mirror == "switching":
            self.spec.update(self.target)
            self.keep()
            self.mirror = "switched"

    def status(self):
        self.step()
        words = {k: self.spec.get(k, "") for k in ("state", "size", "read_only", "format", "path", "cbt")}
        words.update(clients=0, in_flight=0, io="fake", reads=0, mirror=self.mirror)
        if self.mirror != "none":
            words.update(mirror_total=100, mirror_copied=min(100, self.looks * 33), mirror_error="told to lose it" if self.mirror == "failed" else "")
        return words

    def run(self, verb, words):
        if verb == "status":
            return self.status()
        if verb == "activate":
            self.state("active")
        elif verb == "deactivate":
            self.state("inactive")
        elif verb == "pause":
            self.state("paused")
        elif verb == "resume":
            self.spec.update(words)
            self.state(self.spec["state"] if self.spec["state"] == "inactive" else "active")
        elif verb == "resize":
            self.spec["size"] = words["size"]
            self.keep()
        elif verb == "mirror-start":
            self.mirror, self.looks, self.target, self.mode = "copying", 0, {k: words[k] for k in ("format", "path")}, words.get("mode", "mirror")
        elif verb == "mirror-switch" and self.mirror in ("copying", "following"):
            self.mirror = "switching"
        elif verb == "mirror-abort" and self.mirror == "switched":
            raise ValueError("it has switched")
        elif verb in ("mirror-abort", "mirror-end"):
            self.mirror = "none"
        elif verb not in ("quit", "users", "mirror-set", "throttle"):
            raise ValueError(f"no verb {verb}")
        return {}

    def misbehaves(self, verb, conn):
        how = self.spec["path"]
        if verb != "activate" or how not in ("mute", "deaf", "nonsense"):
            return False
        if how == "deaf":
            os.unlink(f"{DIR}/control")
            self.socket.close()
            conn.close()
            threading.Event().wait()
        if how == "nonsense":
            conn.sendall(b"==\n")
        return True

    def serve(self, conn):
        rest = b""
        while data := conn.recv(65536):
            rest += data
            while b"\n" in rest:
                line, rest = rest.split(b"\n", 1)
                verb, words = parse(line.decode())
                if self.misbehaves(verb, conn):
                    continue
                try:
                    answer = message("ok", self.run(verb, words))
                except ValueError as e:
                    answer = message("error", {"code": "SR_BACKEND_FAILURE", "text": e})
                conn.sendall(answer.encode())
                if verb == "quit":
                    os._exit(0)

    def end_with_the_test(self, parent):
        while os.getppid() == parent:
            threading.Event().wait(1)
        os._exit(1)

    def main(self):
        threading.Thread(target=self.end_with_the_test, args=(os.getppid(),), daemon=True).start()
        while True:
            conn, _ = self.socket.accept()
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()


Tapd().main()
