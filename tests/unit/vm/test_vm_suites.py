from __future__ import annotations

import pytest
from machine import suites
from machine.host import VMError
from machine.suites import Result, Suite, parse_junit, summary, words

JUNIT = """<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10">
<testcase><skipped type="pytest.skip"/></testcase><testcase><skipped type="pytest.skip"/></testcase>
<testcase><skipped type="pytest.xfail"/></testcase></testsuite></testsuites>"""
ROOT = Suite("uml-root", "uml", False, "vm_any")


def test_a_report_is_counted_without_what_was_expected_to_fail() -> None:
    assert parse_junit(JUNIT) == (4, 3, 2)


@pytest.mark.parametrize(
    "text", ["", "<a", "<testsuite/>", "<testsuite tests='x' errors='0' failures='0' skipped='0'/>"]
)
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(VMError, match=r"^not a JUnit report: "):
        parse_junit(text)


def test_a_suite_is_good_only_when_every_test_passed() -> None:
    assert Result(ROOT, 0, 1, "", passed=3).good
    for bad in (
        Result(ROOT, 1, 1, "", passed=3),
        Result(ROOT, 0, 1, "", passed=0),
        Result(ROOT, 0, 1, "", passed=3, failed=1),
        Result(ROOT, 0, 1, "", passed=3, skipped=1),
    ):
        assert not bad.good


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (Result(ROOT, 0, 9.44, "", 3), "ok     uml-root            9.4 s  3 passed"),
        (Result(ROOT, 1, 9.44, "", 3, 1, 2), "FAILED uml-root            9.4 s  1 failed, 3 passed, 2 skipped"),
        (Result(ROOT, 124, 9.44, "", 3), "FAILED uml-root            9.4 s  timed out"),
        (Result(ROOT, 125, 9.44, ""), "FAILED uml-root            9.4 s  the machine failed"),
        (Result(ROOT, 5, 9.44, ""), "FAILED uml-root            9.4 s  no tests"),
        (Result(ROOT, 4, 9.44, ""), "FAILED uml-root            9.4 s  no report, exit status 4"),
    ],
)
def test_a_result_is_one_line(result: Result, line: str) -> None:
    assert result.line() == line


def test_the_summary_ends_in_pytests_form() -> None:
    lines = summary([Result(ROOT, 0, 1, "", 3), Result(ROOT, 1, 1, "", 1, 2)], 5).splitlines()
    assert len(lines) == 3
    assert lines[-1].strip("=") == " 2 failed, 4 passed in 5.00s "


def test_a_suite_runs_bounded_in_its_engine_without_cache_and_xdist() -> None:
    line = words(Suite("x", "tcg", True, "needs_emulation", bound=7), ["-x"])
    assert line[0].endswith("/vm/run")
    command = line[line.index("--") + 1 :]
    assert line[1:6] == ["--engine", "tcg", "--timeout", "7", "--user"]
    assert "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1" in line
    assert command[0].endswith("/.venv/bin/pytest")
    assert command[-4:] == ["-m", "needs_emulation", "-x", "tests/vm"]
    assert "--junitxml=/run/vm/out/junit.xml" in command


def test_the_tests_of_vm_run_itself_run_on_the_host() -> None:
    line = words(Suite("x", "host", False, "", ("vm/tests",)), [])
    assert line[0].endswith("/.venv/bin/pytest")
    assert line[-3:] == ["-m", "", "vm/tests"]


def test_every_test_is_in_a_suite_that_can_run_it() -> None:
    """Each combination of markers is chosen by exactly the suites of the users and engines that it allows."""
    for emulation in (True, False):
        for user in (True, False):
            facts = {"needs_emulation": emulation, "vm_any": not emulation, "as_root": not user, "as_user": user}
            for table in (suites.WITHOUT_KVM, suites.WITH_KVM):
                chosen = [suite for suite in table if "tests/vm" in suite.paths and eval(suite.markers, {}, facts)]
                assert [suite.user for suite in chosen] == [user]
                assert all(suite.engine != "uml" for suite in chosen) or not emulation
