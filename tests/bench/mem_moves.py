"""The rows of the memory table that move guests which store: blackouts, promises kept, predictions, many at once.

Ours goes from daemon to daemon over TLS, QEMU's from process to process in plain. Both guests store into random pages of the
same working set at the same rate, and both links are capped. A blackout is the longest silence of the guest, on its own
clock of a thousand ticks a second, from the beginning of its move until it is heard at the destination."""
import statistics

from mem_qemu import move_storing
from mem_rows import section
from pairs import Failed, Row, judge, middle, take_pairs

MIB = 1 << 20


class Guest:
    """One of ours that stores at a part of the link's rate; it is paused between its moves."""

    def __init__(self, bench, part, **platform):
        self.bench, self.ours = bench, bench.ours()
        self.rate = part * bench.link / MIB
        self.vm = self.ours.guest(bench.mib, bench.set_mib, self.rate, **platform)
        self.ours.api("VM.pause", self.vm)

    def move(self, **options):
        return self.ours.storing(self.vm, self.bench.link, self.bench.limit_ms, **options)

    def peer(self, multifd=2, means=(), seconds=30):
        return move_storing(self.bench, self.bench.mib, self.bench.set_mib, self.rate, self.bench.link, self.bench.limit_ms, multifd, means, seconds)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bench.pool is not None:
            self.ours.gone(self.vm)


def ms(seconds):
    return f"{seconds * 1000:.0f} ms"


def peer_moves(guest, **how):
    outcome = guest.peer(**how)
    if outcome is None:
        raise Failed("QEMU did not converge")
    return outcome


def blackout_row(bench, part, taken):
    peers = middle(taken[0], lambda p: p.peer.blackout)
    row = judge(Row(f"blackout-{part:.2f}", ("<=", 1.0), ratio="blackout"), taken, lambda p: p.ours.blackout / peers)
    ours = middle(taken[0], lambda p: p.ours.blackout)
    row.ours, row.peer = ms(ours), ms(peers)
    row.note = "stretch 50 ms: " + ("met" if ours <= 0.05 else "not met") + "; " + ", ".join(
        f"{side} {middle(taken[0], lambda p: take(p).seconds):.1f} s, {middle(taken[0], lambda p: take(p).bytes) / MIB:.0f} MiB, "
        f"{middle(taken[0], lambda p: take(p).rounds):.0f} rounds" for side, take in (("ours", lambda p: p.ours), ("peer", lambda p: p.peer)))
    return row


def count_row(name, good, runs, wanted, note=""):
    """So many of the runs must be good."""
    return Row(name, (">=", float(wanted)), ours=f"{good} of {runs}", ratio="runs", median=float(good), worst=float(good), pairs=runs, note=note)


def kept_row(bench, runs):
    good = sum(r.blackout * 1000 <= bench.limit_ms for r in runs)
    return count_row("within-budget", good, len(runs), len(runs), f"declared {bench.limit_ms} ms, longest {ms(max(r.blackout for r in runs))}")


def fact(outcome, key):
    text = outcome.record["other_config"].get("migrate:" + key)
    return float(text) if text not in (None, "", "-1") else None


def near(predicted, measured, part=0.25):
    return predicted is not None and abs(predicted - measured) <= part * measured


def prediction_rows(bench, runs):
    wanted, rows = round(0.9 * len(runs)), []
    for name, predicted, measured in (("predicted-time", lambda r: fact(r, "predicted_total_us"), lambda r: fact(r, "duration_us") or r.seconds * 1e6),
                                      ("predicted-blackout", lambda r: fact(r, "predicted_blackout_us"), lambda r: r.blackout * 1e6)):
        if all(predicted(r) is None for r in runs):
            rows.append(Row(name, failure="the engine does not predict this yet"))
            continue
        rows.append(count_row(name, sum(near(predicted(r), measured(r)) for r in runs), len(runs), wanted,
                              "predicted / measured: " + " ".join(f"{(predicted(r) or 0) / measured(r):.2f}" for r in runs)))
    return rows


@section("blackout", "silence of a guest that stores at 0.5 and 0.85 of the link's rate, against QEMU (multifd 2); promises and predictions")
def blackout(bench):
    rows, runs = [], []
    for part in (0.5, 0.85):
        with Guest(bench, part) as guest:
            def ours():
                runs.append(guest.move())
                return runs[-1]
            taken = take_pairs(bench.plan(120, bench.moves), ours, lambda: peer_moves(guest))
            rows.append(blackout_row(bench, part, taken))
            while len(runs) < bench.runs * (1 if part > 0.5 else 0.5):
                runs.append(guest.move())
    return rows + [kept_row(bench, runs)] + prediction_rows(bench, runs)


# --- more than the link takes ------------------------------------------------------------------------------------------

# name, our options, QEMU's capabilities, the fact that says it was used
MEANS = (("post-copy", {"postcopy": "allowed"}, ("postcopy-ram",), "postcopy"),
         ("throttle", {"auto_converge": "true"}, ("auto-converge",), "throttle"))


def ended(bench, name, runs, used):
    limit = 1.3 * bench.mib * MIB / bench.link
    row = Row(f"diverging-{name}", ("<=", 1.3), ratio="time", pairs=len(runs), peer=f"{limit / 1.3:.2f} s (RAM/link)")
    times = sorted(r.seconds / (limit / 1.3) for r in runs)
    row.ours, row.median, row.worst = f"{statistics.median(r.seconds for r in runs):.2f} s", statistics.median(times), times[-1]
    row.note = f"blackouts {' '.join(ms(r.blackout) for r in runs)}; sent {statistics.median(r.bytes for r in runs) / MIB:.0f} MiB"
    late = [r for r in runs if r.blackout * 1000 > bench.limit_ms]
    if not any(used(r) for r in runs):
        row.note = "the engine did not use it; " + row.note
    if late:
        row.failure = f"{len(late)} of {len(runs)} blackouts are beyond the declared {bench.limit_ms} ms"
    return row


def peer_row(bench, guest, name, means):
    outcome = guest.peer(multifd=0, means=means, seconds=60)
    row = Row(f"diverging-{name}-qemu", peer="never" if outcome is None else f"{outcome.seconds:.2f} s")
    if outcome is not None:
        row.note = f"for comparison: blackout {ms(outcome.blackout)}, longest stall after it {ms(outcome.stall)}, sent {outcome.bytes / MIB:.0f} MiB"
    return row


@section("diverging", "a guest that stores at 1.25 of the link's rate: post-copy or throttling must end it within 1.3 x RAM/link")
def diverging(bench):
    rows = []
    with Guest(bench, 1.25) as guest:
        for name, options, means, key in MEANS:
            runs = []
            try:
                runs += [guest.move(**options) for _ in range(bench.moves)]
                rows.append(ended(bench, name, runs, lambda r, k=key: (fact_word(r, k) not in ("", "0", "false"))))
            except Exception as error:
                rows.append(Row(f"diverging-{name}", failure=f"after {len(runs)} moves: {error}"))
                guest.ours.settle(guest.vm)
            if not bench.quick:
                rows.append(peer_row(bench, guest, name, means))
        rows.append(told_row(bench, guest))
    return rows


def fact_word(outcome, key):
    return outcome.record["other_config"].get("migrate:" + key, "")


def told_row(bench, guest):
    """That it cannot converge is said within two rounds."""
    outcome = guest.move()
    if "migrate:will_not_converge" not in outcome.record["other_config"]:
        return Row("diverging-told", failure="the engine does not say so yet")
    told = fact_word(outcome, "will_not_converge") in ("1", "true")
    return count_row("diverging-told", int(told), 1, 1, f"{outcome.rounds} rounds")


# --- many at once --------------------------------------------------------------------------------------------------------

MANY = 10


@section("many", "ten guests at once, each with a tenth of the link: total against bytes/link, blackouts against one alone")
def many(bench):
    ours, share = bench.ours(), bench.link // MANY
    mib, rate = (16 if bench.quick else 128), 0.25 * share / MIB
    options = {"bandwidth": share // MIB, "max_downtime_ms": bench.limit_ms}
    vms = [ours.guest(mib, mib // 2, rate, name=f"one of many {i}") for i in range(MANY)]
    try:
        solo = []
        for vm in vms[:1 if bench.quick else 5]:
            ours.move(vm, **options)
            solo.append(ours.fresh(vm, "blackout_us") / 1e6)
            ours.move(vm, **options)
        done, seconds = ours.all_at_once(vms, **options)
        blackouts = [ours.fresh(vm, "blackout_us") / 1e6 for vm in vms]
        sent = sum(int(record["other_config"].get("migrate:bytes", 0)) for record, _ in done.values())
    finally:
        for vm in vms:
            ours.gone(vm)
    ideal, alone = sent / bench.link, statistics.median(solo)
    total = Row("many-total", ("<=", 1.15), ours=f"{seconds:.2f} s", peer=f"{ideal:.2f} s", ratio="time", median=seconds / ideal, worst=seconds / ideal,
                pairs=1, note=f"{sent / MIB:.0f} MiB over {bench.link / MIB:.0f} MiB/s")
    ratios = sorted(b / alone for b in blackouts)
    each = Row("many-blackout", ("<=", 1.3), ours=ms(max(blackouts)), peer=ms(alone), ratio="blackout", median=ratios[-1], worst=ratios[-1], pairs=MANY,
               note="the longest counts; all: " + " ".join(ms(b) for b in sorted(blackouts)))
    return [total, each]
