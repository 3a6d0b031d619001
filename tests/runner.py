#!/usr/bin/env python3
"""Runs test programs, a few at a time, and counts: exit 0 passed, 77 skipped, anything else failed.

usage: runner.py [--jobs N] [--timeout S] [--log-dir DIR] PROGRAM...

Prints one line a program, the output of those that failed, and last "N passed, N failed, N skipped".
A program that outlives its time, or leaves processes in its group behind, has failed. So has one during which any
sanitized process found something, also a tapd that was started again."""
import argparse
import concurrent.futures
import glob
import os
import signal
import subprocess
import sys
import time


def command(program):
    if program.endswith(".py"):
        return [sys.executable, program]
    if "-thread" in program or "-address" in program:  # sanitizers dislike randomised addresses
        return ["setarch", "-R", program]
    return [program]


def group_left(pgid):
    try:
        os.killpg(pgid, 0)
        return True
    except (ProcessLookupError, PermissionError):
        return False


def with_findings(findings):
    """The environment in which sanitizers write what they find to files of that name."""
    options = {name: os.environ.get(name, "") + ":log_path=" + findings for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")}
    return dict(os.environ, **options)


def run(program, timeout, log_dir):
    began = time.monotonic()
    log_path = os.path.abspath(os.path.join(log_dir, program.replace("/", "_") + ".log"))
    findings = log_path[:-len(".log")] + ".sanitizer"
    for old in glob.glob(findings + ".*"):
        os.unlink(old)
    with open(log_path, "wb") as log:
        child = subprocess.Popen(command(program), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                 start_new_session=True, env=with_findings(findings))
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            log.write(b"\nrunner: took longer than %d s\n" % timeout)
            status = -signal.SIGALRM
        if group_left(child.pid):
            if status == 0:
                log.write(b"\nrunner: left processes behind\n")
                status = 1
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
        for found in sorted(glob.glob(findings + ".*")):
            with open(found, "rb") as f:
                log.write(b"\n" + f.read())
            status = status or 1
    return program, status, time.monotonic() - began, log_path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("--log-dir", default="build/test-logs")
    parser.add_argument("programs", nargs="*")
    options = parser.parse_args()
    os.makedirs(options.log_dir, exist_ok=True)
    passed = failed = skipped = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(run, p, options.timeout, options.log_dir) for p in options.programs]
        for future in concurrent.futures.as_completed(futures):
            program, status, seconds, log_path = future.result()
            word = "ok" if status == 0 else "SKIP" if status == 77 else "FAIL"
            print(f"{word:5} {seconds:6.1f} s  {program}", flush=True)
            passed += status == 0
            skipped += status == 77
            failed += status not in (0, 77)
            if status == 0:
                continue
            with open(log_path, errors="replace") as log:
                lines = log.read().splitlines()
            for line in lines[-(3 if status == 77 else 60):]:
                print("      | " + line)
            if status not in (0, 77):
                print(f"      | exit status {status}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
