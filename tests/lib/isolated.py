"""A pool whose hosts share nothing but sockets and the directories that stand for shared storage: each has a
network namespace of its own (veth into a bridge in a lab namespace) and sees no other host's files."""
import contextlib
import ctypes
import os
import subprocess

from tests.lib import pool as P

CLONE_NEWNET = 0x40000000


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


def enter_namespace(path):
    """Moves this thread (before it starts others) into a network namespace."""
    with open(path) as f:
        if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns " + path)


class NoNamespaces(Exception):
    """This machine lets nobody make network namespaces (an unprivileged container, a chroot)."""


class IsolatedPool(P.Pool):
    def __init__(self, hosts=3, **options):
        self.tag = f"xp{os.getpid()}"
        self.lab = self.tag + "lab"
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            self.make_namespaces(hosts)
            enter_namespace(f"/run/netns/{self.lab}")
        except (subprocess.CalledProcessError, OSError) as e:
            self.remove_namespaces(hosts)
            raise NoNamespaces(getattr(e, "stderr", "") or str(e)) from e
        super().__init__(hosts=hosts, prefix="10.77.0", **options)

    def namespace(self, index):
        return f"{self.tag}h{index}"

    def make_namespaces(self, hosts):
        ip("netns", "add", self.lab)
        ip("-n", self.lab, "link", "set", "lo", "up")
        ip("-n", self.lab, "link", "add", "br0", "type", "bridge")
        ip("-n", self.lab, "addr", "add", "10.77.0.254/24", "dev", "br0")
        ip("-n", self.lab, "link", "set", "br0", "up")
        # the ports of all hosts are picked on host 1's address
        ip("-n", self.lab, "addr", "add", "10.77.1.1/32", "dev", "lo")
        for i in range(1, hosts + 1):
            name = self.namespace(i)
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", self.lab, "link", "add", f"v{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", self.lab, "link", "set", f"v{i}", "master", "br0", "up")
            ip("-n", name, "addr", "add", f"10.77.0.{i}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def pick_ports(self):
        return P.free_ports("10.77.1.1", 2)

    def enter(self, host):
        hide = [h.dir for h in self.hosts if h is not host]
        script = "".join(f"mkdir -p {d} && mount -t tmpfs tmpfs {d} && " for d in hide) + 'exec "$@"'
        return ["nsenter", f"--net=/run/netns/{self.namespace(host.index)}", "unshare", "--mount", "--propagation", "private",
                "sh", "-c", script, "sh"]

    def stop(self):
        try:
            super().stop()
        finally:
            with contextlib.suppress(OSError):
                ctypes.CDLL(None).setns(self.home, CLONE_NEWNET)
            self.remove_namespaces(len(self.hosts))

    def remove_namespaces(self, hosts):
        for name in [self.lab] + [self.namespace(i) for i in range(1, hosts + 1)]:
            ip("netns", "del", name, check=False)
