"""The suites in the VMs: which tests run in which machine, side by side, and one summary of all."""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from xml.etree import ElementTree

from machine import guest, probe
from machine.host import VMError

VM = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
CHECKOUT = os.path.dirname(VM)
RESULTS = os.path.join(CHECKOUT, "build", "vm")
# a machine that hangs must not take the whole of a CI run's time
BOUND = 330
# for the boot, tried twice, and for unpacking what the suite left
GRACE = 200


@dataclass(frozen=True)
class Suite:
    """Tests by marker expression, and the machine for them; ``bound`` is in seconds, without the boot.

    The engine ``host`` is no machine: those tests start machines themselves.
    """

    name: str
    engine: str
    user: bool
    markers: str
    paths: tuple[str, ...] = ("tests/vm",)
    bound: int = BOUND

    def choice(self) -> str:
        """Which tests, for people."""
        return " ".join(self.paths) + (f" -m '{self.markers}'" if self.markers else "")


# Of tests/system, what an older kernel, delegating cgroup namespaces and controllers can change: containers from their
# creation to their end, sessions, crashes, hostile containers.
SYSTEM = tuple(
    f"tests/system/test_{name}.py"
    for name in (
        "containers_ending",
        "containers_environment",
        "containers_lifecycle",
        "containers_run",
        "containers_start",
        "crash_engine",
        "exec",
        "linux_groups",
        "namespaces",
        "threats_containers",
        "user_namespaces",
    )
)

# The longest come first, since they run side by side. User Mode Linux runs Python at native speed, so it takes what
# it can, and emulation what only it can.
VM_RUN = Suite("vm-run", "host", False, "", ("vm/tests",))
WITHOUT_KVM = (
    VM_RUN,
    Suite("system-root", "uml", False, "", SYSTEM),
    Suite("system-user", "uml", True, "rootless", SYSTEM),
    Suite("emulation-root", "tcg", False, "needs_emulation and not as_user"),
    Suite("emulation-user", "tcg", True, "needs_emulation and not as_root"),
    Suite("uml-root", "uml", False, "vm_any and not as_user"),
    Suite("uml-user", "uml", True, "vm_any and not as_root"),
)
WITH_KVM = (
    VM_RUN,
    Suite("system-root", "kvm", False, "", SYSTEM),
    Suite("system-user", "kvm", True, "rootless", SYSTEM),
    Suite("kvm-root", "kvm", False, "not as_user"),
    Suite("kvm-user", "kvm", True, "not as_root"),
)


@dataclass(frozen=True)
class Result:
    """What came of a suite. ``status`` is vm/run's; counts are 0 when the machine gave no report."""

    suite: Suite
    status: int
    seconds: float
    output: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def good(self) -> bool:
        """Whether every test passed: a skip is a failure, and so is a suite without tests."""
        return self.status == 0 and self.passed > 0 and not self.failed and not self.skipped

    def line(self) -> str:
        """One line for people."""
        if self.status in (124, 125) or not self.passed + self.failed + self.skipped:
            reasons = {124: "timed out", 125: "the machine failed", 5: "no tests"}
            what = reasons.get(self.status, f"no report, exit status {self.status}")
        else:
            what = counts(self.passed, self.failed, self.skipped)
        return f"{'ok    ' if self.good else 'FAILED'} {self.suite.name:16} {self.seconds:6.1f} s  {what}"


def counts(passed: int, failed: int, skipped: int) -> str:
    """Counts in pytest's words."""
    named = ((failed, "failed"), (passed, "passed"), (skipped, "skipped"))
    return ", ".join(f"{number} {name}" for number, name in named if number) or "no tests ran"


def parse_junit(text: str) -> tuple[int, int, int]:
    """Passed, failed (errors too) and skipped tests of a pytest JUnit report. Raises VMError.

    What was expected to fail and did is none of the three, though the report files it under skipped.
    """
    try:
        report = ElementTree.fromstring(text)
        suites = list(report.iter("testsuite"))
        total, failed, without_result = (
            sum(int(suite.attrib[name]) for suite in suites for name in names)
            for names in (("tests",), ("failures", "errors"), ("skipped",))
        )
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise VMError(f"not a JUnit report: {error!r}") from error
    skipped = sum(mark.get("type") != "pytest.xfail" for mark in report.iter("skipped"))
    return total - failed - without_result, failed, skipped


def words(suite: Suite, extra: list[str]) -> list[str]:
    """The command line that runs a suite."""
    results = os.path.join(RESULTS, suite.name)
    pytest = [os.path.join(CHECKOUT, ".venv/bin/pytest"), "-q", "-p", "no:cacheprovider"]
    if suite.engine == "host":
        return [*pytest, f"--junitxml={results}/junit.xml", "-m", suite.markers, *extra, *suite.paths]
    line = [os.path.join(VM, "run"), "--engine", suite.engine, "--timeout", str(suite.bound)]
    line += ["--user"] if suite.user else []
    line += ["--out", results]
    # what pytest does not load it need not start: xdist has nothing to do on so few CPUs
    line += ["--env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", "--env", "PYTHONUNBUFFERED=1"]
    # the checkout is not the user's to write
    line += ["--env", "HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis", "--"]
    line += [*pytest, "-p", "pytest_timeout", f"--junitxml={guest.OUT}/junit.xml"]
    return [*line, "-m", suite.markers, *extra, *suite.paths]


def run(suite: Suite, extra: list[str]) -> Result:
    """Run a suite to its end and read its report."""
    report = os.path.join(RESULTS, suite.name, "junit.xml")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(report)
    start = time.monotonic()
    try:
        done = subprocess.run(
            words(suite, extra),
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=suite.bound + GRACE,
            check=False,
        )
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        status, output = 124, late.stdout or b""
    seconds = time.monotonic() - start
    text = output.decode(errors="replace")
    try:
        with open(report, encoding="utf-8") as file:
            return Result(suite, status, seconds, text, *parse_junit(file.read()))
    except (OSError, VMError) as error:
        return Result(suite, status or 1, seconds, f"{text}\n{error}")


def prepare() -> None:
    """Compile the tests as pytest does, once and on the host: the guests only read what this leaves."""
    pytest = os.path.join(CHECKOUT, ".venv/bin/pytest")
    if not os.path.exists(pytest):
        raise VMError(f"{pytest} is not there: make setup")
    for tests in ("tests/vm", "tests/system"):
        collect = [pytest, "-q", "-p", "no:cacheprovider", "--collect-only", tests]
        done = subprocess.run(collect, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise VMError(f"{tests} cannot be collected:\n{done.stdout}{done.stderr}")


def run_all(suites: list[Suite], jobs: int, extra: list[str]) -> list[Result]:
    """Run suites, ``jobs`` at a time; each one's output is printed whole when it ends."""
    waiting: queue.SimpleQueue[Suite] = queue.SimpleQueue()
    for suite in suites:
        waiting.put(suite)
    results: list[Result] = []
    lock = threading.Lock()

    def lane() -> None:
        while True:
            try:
                suite = waiting.get_nowait()
            except queue.Empty:
                return
            result = run(suite, extra)
            with lock:
                results.append(result)
                print(
                    f"----- {suite.name}: {' '.join(suite.paths)} -m '{suite.markers}'\n{result.output.rstrip()}\n",
                    flush=True,
                )

    lanes = [threading.Thread(target=lane) for _ in range(jobs)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
    return sorted(results, key=lambda result: suites.index(result.suite))


def summary(results: list[Result], seconds: float) -> str:
    """A line for each suite, and one in pytest's form for all."""
    total = counts(*(sum(getattr(result, name) for result in results) for name in ("passed", "failed", "skipped")))
    last = f" {total} in {seconds:.2f}s "
    return "\n".join([*(result.line() for result in results), last.center(80, "=")])


def main(arguments: list[str]) -> int:
    """Run the suites that this host can run; 0 when all of them are good."""
    parser = argparse.ArgumentParser(
        prog="vm/suites",
        description="Run tests/vm and a part of tests/system in disposable VMs, as root and as a user.",
    )
    parser.add_argument("--list", action="store_true", help="say which suites there are here")
    parser.add_argument("--only", action="append", default=[], metavar="SUITE", help="this one; can be repeated")
    parser.add_argument("--jobs", type=int, default=2, help="machines side by side; 2 unless told")
    parser.add_argument("pytest", nargs="*", metavar="ARGUMENT", help="after --, for pytest")
    options = parser.parse_args(arguments)
    try:
        suites = list(WITH_KVM if probe.choose("auto").engine == "kvm" else WITHOUT_KVM)
        unknown = set(options.only) - {suite.name for suite in suites}
        if unknown or options.jobs < 1:
            parser.error(f"no suite {', '.join(sorted(unknown))}" if unknown else "--jobs must be at least 1")
        suites = [suite for suite in suites if not options.only or suite.name in options.only]
        if options.list:
            for suite in suites:
                print(f"{suite.name:16} {suite.engine}{' --user' if suite.user else ''}  {suite.choice()}")
            return 0
        start = time.monotonic()
        prepare()
    except VMError as error:
        print(f"vm/suites: {error}", file=sys.stderr)
        return 125
    results = run_all(suites, options.jobs, options.pytest)
    print(summary(results, time.monotonic() - start), flush=True)
    return 0 if all(result.good for result in results) else 1
