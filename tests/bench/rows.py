"""The rows of the table, by section. A section is a function of the bench that gives its rows."""
import contextlib
import re
import statistics
import subprocess
import time

from load import COUNTER, SUCCESS, TOKEN, program
from pairs import Failed, Row, judge, middle, take_pairs
from processes import Others, cpu_of, memory_of, threads_of, wait_idle

SECTIONS = {}


def section(name, about):
    def register(function):
        SECTIONS[name] = (function, about)
        return function
    return register


def ms(value):
    return f"{value:.1f} ms"


# --- VM.get_all_records ---------------------------------------------------------------------------------

def get_time(load, request, repeats):
    return lambda: statistics.median(load.get(request, repeats)["last_ms"])


@section("records-python", "VM.get_all_records against Python's xmlrpc.server with the same records")
def records_python(bench):
    row = Row("records-python", (">=", 20.0), ratio="peer/ours")
    daemon, peer = bench.daemon(), bench.mock()
    request = daemon.request("VM.get_all_records")
    ours = get_time(daemon.load, request, 3)
    taken = take_pairs(bench.plan(60), ours, get_time(peer.load, request, 1))
    judge(row, taken, lambda p: p.peer / p.ours)
    row.ours, row.peer = ms(middle(taken[0], lambda p: p.ours)), ms(middle(taken[0], lambda p: p.peer))
    return [row]


@section("records-wire", "VM.get_all_records against the same bytes from one prebuilt buffer")
def records_wire(bench):
    row = Row("records-wire", ("<=", 2.0), ratio="ours/peer")
    daemon = bench.daemon()
    request = daemon.request("VM.get_all_records")
    reply = bench.path("reply")
    row.note = f"{daemon.load.get(request, save=reply)['bytes'] / 1e6:.1f} MB"
    peer = bench.buffer(reply)
    taken = take_pairs(bench.plan(40), get_time(daemon.load, request, 5), get_time(peer.load, request, 5))
    judge(row, taken, lambda p: p.ours / p.peer)
    row.ours, row.peer = ms(middle(taken[0], lambda p: p.ours)), ms(middle(taken[0], lambda p: p.peer))
    return [row]


# --- small calls ------------------------------------------------------------------------------------------

def call_cost(server, request, connections, seconds):
    """Microseconds of the server's CPU for each call, and calls per second."""
    def take():
        before = cpu_of(server.pid)
        answer = server.load.closed([request], connections, seconds, SUCCESS)
        return (cpu_of(server.pid) - before) / answer["done"] * 1e6, answer["rate"]
    return take


@section("call", "server CPU of a small call on 16 kept connections, against Python's xmlrpc.server")
def small_call(bench):
    row = Row("call-cpu", (">=", None), ratio="peer/ours")
    daemon, peer = bench.daemon(), bench.mock()
    request = daemon.request("session.get_uuid", daemon.session(0))
    taken = take_pairs(bench.plan(40), call_cost(daemon, request, 16, 1), call_cost(peer, request, 16, 1))
    judge(row, taken, lambda p: p.peer[0] / p.ours[0])
    row.ours, row.peer = (f"{middle(taken[0], lambda p: side(p)[0]):.1f} us" for side in (lambda p: p.ours, lambda p: p.peer))
    row.note = f"{middle(taken[0], lambda p: p.ours[1]):.0f}/s against {middle(taken[0], lambda p: p.peer[1]):.0f}/s"
    return [row]


# --- waiting clients ----------------------------------------------------------------------------------------

@contextlib.contextmanager
def stopping(thing):
    try:
        yield thing
    finally:
        thing.stop()


class Waiters:
    """As many connections as clients, of one class of objects; they stay open from round to round."""

    def __init__(self, daemon, n, cls, field, value):
        self.daemon, self.n = daemon, n
        daemon.session(n)
        requests = [daemon.request("event.from", [cls], TOKEN, 120.0, client=i) for i in range(n)]
        trigger = daemon.request(f"{cls}.set_{field}", daemon.sample(cls)[0], value)
        self.clients = daemon.load.fanout(requests, trigger, "<value>mod</value>", SUCCESS)

    def wait(self):
        """All of them wait in event.from."""
        token = self.daemon.api("event.from", ["pool"], "", 1.0)["token"]
        self.clients.wait(",".join(part.zfill(20) for part in token.split(",")))
        wait_idle(self.daemon.pid)

    def wake(self):
        self.wait()
        return self.clients.go()

    def stop(self):
        self.clients.stop()


class Monitors:
    """The same with ovsdb-server: monitors of a table with the same fields."""

    def __init__(self, peer, n, cls, field, value):
        self.peer, table = peer, f"{cls}_watched"
        self.clients = peer.load.fanout([peer.monitor(table)] * n, peer.update(table, 0, {field: value}), '"method":"update"', '"count":1', 1)

    def wake(self):
        self.clients.wait()
        wait_idle(self.peer.pid)
        return self.clients.go()

    def stop(self):
        self.clients.stop()


def wake_row(bench, name, cls, field, value):
    row = Row(name, ("<=", 0.8), ratio="ours/peer")
    daemon, peer = bench.daemon(), bench.ovsdb()
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(stopping(Waiters(daemon, bench.waiters, cls, field, value)))
        theirs = stack.enter_context(stopping(Monitors(peer, bench.waiters, cls, field, value)))
        taken = take_pairs(bench.plan(80), ours.wake, theirs.wake)
    judge(row, taken, lambda p: p.ours["last_ms"] / p.peer["last_ms"])
    row.ours, row.peer = ms(middle(taken[0], lambda p: p.ours["last_ms"])), ms(middle(taken[0], lambda p: p.peer["last_ms"]))
    first = taken[0][0]
    row.note = f"{bench.waiters} clients; {first.ours['bytes_min']} B to each against {first.peer['bytes_min']} B"
    return row


@section("waiters", "clients waiting in event.from: woken by one change, against as many monitors of ovsdb-server")
def waiters(bench):
    return [wake_row(bench, "waiters-wake-vm", "VM", "name_description", COUNTER),
            wake_row(bench, "waiters-wake-small", "VM_metrics", "other_config", {"change": COUNTER})]


def cost_row(name, limit, taken, value, shown):
    """A bound, not a ratio: what each measurement gave."""
    row = judge(Row(name, ("<=", limit), ratio="ours"), taken, value)
    row.ours = shown(row.median)
    return row


@section("waiting", "clients waiting in event.from: memory and threads for each, CPU while nothing happens")
def waiting(bench):
    daemon, n = bench.small_daemon(), bench.waiters
    fresh = memory_of(daemon.pid)
    daemon.session(n)
    wait_idle(daemon.pid)
    idle, threads = memory_of(daemon.pid), threads_of(daemon.pid)

    def measure():
        clients.wait()
        memory, more, cpu = memory_of(daemon.pid), threads_of(daemon.pid) - threads, cpu_of(daemon.pid)
        time.sleep(bench.seconds)
        cpu = (cpu_of(daemon.pid) - cpu) / bench.seconds
        clients.clients.go()
        return (memory - fresh) / n, (memory - idle) / n, more, cpu * 100

    with stopping(Waiters(daemon, n, "VM", "name_description", COUNTER)) as clients:
        taken = take_pairs(bench.plan(40), measure, lambda: None)
    bench.end("small daemon")
    memory = cost_row("waiting-memory", 4096, taken, lambda p: p.ours[0], lambda v: f"{v:.0f} B")
    memory.note = f"{n} clients, each with its session; {middle(taken[0], lambda p: p.ours[1]):.0f} B without it"
    return [memory, cost_row("waiting-threads", 8, taken, lambda p: p.ours[2], lambda v: f"{v:.0f} more"),
            cost_row("waiting-idle-cpu", None, taken, lambda p: p.ours[3], lambda v: f"{v:.2f} %")]


# --- durable updates ------------------------------------------------------------------------------------------

def update_rate(server, requests, connections, seconds, expect):
    def take():
        before = cpu_of(server.pid)
        answer = server.load.closed(requests, connections, seconds, expect)
        return answer["rate"], (cpu_of(server.pid) - before) / answer["done"] * 1e6
    return take


def update_row(bench, clients, target, seconds):
    row = Row(f"updates-{clients}", target, ratio="ours/peer")
    daemon, peer = bench.daemon(), bench.ovsdb()
    refs = daemon.sample("VM", clients)
    requests = [daemon.request("VM.set_name_description", refs[i], COUNTER, client=i) for i in range(clients)]
    updates = [peer.update("VM", i, {"name_description": COUNTER}) for i in range(clients)]
    taken = take_pairs(bench.plan(45), update_rate(daemon, requests, clients, seconds, SUCCESS),
                       update_rate(peer, updates, clients, seconds, '"count":1'))
    judge(row, taken, lambda p: p.ours[0] / p.peer[0])
    row.ours, row.peer = f"{middle(taken[0], lambda p: p.ours[0]):.0f}/s", f"{middle(taken[0], lambda p: p.peer[0]):.0f}/s"
    row.note = f"{middle(taken[0], lambda p: p.ours[1]):.0f} us of CPU each against {middle(taken[0], lambda p: p.peer[1]):.0f} us"
    return row


@section("updates", "durable field updates by 16 clients (and 1 and 64), against ovsdb-server")
def updates(bench):
    return [update_row(bench, 16, (">=", 1.5), 2 * bench.seconds), update_row(bench, 1, (">=", None), bench.seconds),
            update_row(bench, 64, (">=", None), bench.seconds)]


# --- start-up -------------------------------------------------------------------------------------------------

@section("start", "from starting the daemon to serving, and its CPU when nothing happens")
def start(bench):
    daemon = bench.daemon()
    idle = []
    with Others() as others:
        for _ in range(3):
            daemon.restart()
            before = cpu_of(daemon.pid)
            time.sleep(2 * bench.seconds)
            idle.append((cpu_of(daemon.pid) - before) / (2 * bench.seconds) * 100)
    return [figure("start", daemon.starts[-3:], others, f"{bench.vms} VMs with 8 objects each; seconds"),
            figure("idle-cpu", idle, others, "percent of a core")]


def figure(name, values, others, note):
    """For information, without a peer."""
    values = sorted(values)
    return Row(name, ratio="ours", median=statistics.median(values), worst=values[-1], pairs=len(values), load=f"{others.share:.0%}", note=note)


# --- programs that measure by themselves ------------------------------------------------------------------------

LINE = re.compile(r"row (?P<name>.+?) median (?P<median>\S+) worst (?P<worst>\S+) target (?P<op>\S+) (?P<limit>\S+)"
                  r" pairs (?P<pairs>\d+) repeated (?P<repeated>\d+) load (?P<load>.+)")


def row_of_line(line):
    m = LINE.fullmatch(line.strip())
    if m is None:
        return None
    target = (m["op"] if m["op"] != "-" else "<=", None if m["limit"] == "-" else float(m["limit"]))
    return Row(m["name"], target, ratio="see notes", median=float(m["median"]), worst=float(m["worst"]), pairs=int(m["pairs"]),
               repeated=int(m["repeated"]), load=m["load"])


def rows_of(lines, share):
    """The rows among the lines a program printed; the lines before each are its notes."""
    rows, notes = [], []
    for line in lines:
        row = row_of_line(line)
        if row is None:
            notes.append(line)
            continue
        row.load = row.load if row.load != "-" else f"{share:.0%}"
        row.note, notes = "\n".join(notes), []
        rows.append(row)
    if rows:
        rows[-1].note = "\n".join([rows[-1].note, *notes]).strip()
    return rows


def program_rows(bench, name, *arguments, seconds=240):
    """The rows a C program prints. One that has none in the common form is quoted, and its SHORT line counts."""
    path = program(bench.build, name)
    try:
        with Others() as others:
            done = subprocess.run([path, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
    except FileNotFoundError:
        raise Failed("there is no such program") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"took more than {seconds} s") from None
    lines = done.stdout.splitlines()
    short = re.fullmatch(r"SHORT (\d+)", lines[-1]) if lines else None
    if done.returncode != 0 and (done.returncode != 1 or short is None):
        raise Failed(f"ended with {done.returncode}: {' '.join(lines[-3:])}")
    if short is not None:
        lines.pop()
    return rows_of(lines, others.share) or [Row(name, ratio="see below", counted=int(short[1]) if short else 0, load=f"{others.share:.0%}",
                                                note="\n".join(lines))]


@section("wire", "bench_wire: serialising into a discarded buffer against memcpy")
def wire(bench):
    return program_rows(bench, "bench_wire", bench.vms, bench.pairs)


@section("stream", "bench_stream: a memory stream against a bare socket copy, plain and TLS")
def stream(bench):
    return program_rows(bench, "bench_stream", *((32, 3) if bench.quick else (128, bench.pairs)))


@section("front", "bench_http: the front by itself")
def front(bench):
    return program_rows(bench, "bench_http")


@section("db", "bench_db: the database by itself")
def db(bench):
    return program_rows(bench, "bench_db", "-d", bench.dir, "-n", bench.vms, "-s", bench.seconds)
