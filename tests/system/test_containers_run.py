"""run(): what goes in, what comes out, and that the host program is as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import leaks
import pytest
from engines import IMAGE, eventually, out, sh

from pyengine import Engine
from pyengine.errors import ContainerNotFound, ImageNotFound, InvalidValue, OutputTooLarge, StartFailed, WaitTimeout

pytestmark = pytest.mark.rootless


def test_stdout_and_stderr_come_apart(engine: Engine) -> None:
    result = sh(engine, "echo one; echo two >&2; echo three; exit 5")
    assert (result.exit_code, result.stdout, result.stderr) == (5, b"one\nthree\n", b"two\n")
    assert len(result.container_id) == 64
    assert not engine.containers.exists(result.container_id)


def test_all_bytes_go_in_and_come_out(engine: Engine) -> None:
    data = bytes(range(256)) * 8000 + os.urandom(3_000_000)
    result = engine.containers.run(IMAGE, ["cat"], input=data)
    assert (result.exit_code, result.stderr) == (0, b"")
    assert result.stdout == data


def test_both_streams_at_once_lose_nothing(engine: Engine) -> None:
    script = "yes stdout | head -c 2000000 & yes stderr | head -c 1500000 >&2 & wait"
    result = sh(engine, script)
    assert result.stdout == (b"stdout\n" * 285715)[:2000000]
    assert result.stderr == (b"stderr\n" * 214286)[:1500000]


def test_without_input_stdin_is_empty(engine: Engine) -> None:
    assert out(engine, "cat; echo end") == "end"


def test_input_that_is_not_read_is_no_error(engine: Engine) -> None:
    result = sh(engine, "head -c 3; exit 4", input=b"x" * 5_000_000)
    assert (result.exit_code, result.stdout) == (4, b"xxx")


def test_empty_input_is_the_end_of_file(engine: Engine) -> None:
    assert sh(engine, "cat; echo end", input=b"").stdout == b"end\n"


def test_too_much_output_is_an_error_with_the_exit_code(engine: Engine) -> None:
    with pytest.raises(OutputTooLarge) as caught:
        sh(engine, "yes | head -c 100001; exit 6", output_limit=100_000)
    assert (caught.value.limit, caught.value.exit_code) == (100_000, 6)
    assert str(caught.value) == (
        "the command wrote more than 100000 bytes (exit code 6): raise output_limit, or read its output as it comes "
        "with start_attached() or open_exec()"
    )
    assert len(sh(engine, "yes | head -c 100000", output_limit=100_000).stdout) == 100_000
    assert engine.containers.list(all=True) == []


@pytest.mark.parametrize("script", ["sleep 1000", "yes", "sleep 1000 & sleep 1000", "exec >&- 2>&-; sleep 1000"])
def test_what_takes_too_long_is_killed_and_removed(engine: Engine, script: str) -> None:
    with pytest.raises(WaitTimeout, match=r"^container slow did not end within 0\.2 seconds and was killed$"):
        sh(engine, script, timeout=0.2, name="slow")
    assert engine.containers.list(all=True) == []


def test_a_container_that_is_to_stay_stays(engine: Engine) -> None:
    result = sh(engine, "echo x; exit 3", remove=False)
    box = engine.containers.get(result.container_id)
    assert (box.status, box.wait(), [line.text for line in box.logs()]) == ("exited", 3, [b"x"])


def test_a_failed_start_leaves_no_container(engine: Engine) -> None:
    with pytest.raises(StartFailed):
        engine.containers.run(IMAGE, ["/no/such"])
    assert engine.containers.list(all=True) == []


def test_an_image_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(ImageNotFound, match="nothing"):
        engine.containers.run("localhost/nothing:1", ["true"])


def test_an_option_that_is_not_known_suggests_another(engine: Engine) -> None:
    with pytest.raises(InvalidValue, match="there is no option 'privilege': did you mean 'privileged'"):
        engine.containers.run(IMAGE, ["true"], privilege=True)
    with pytest.raises(InvalidValue, match="expected a sequence of words"):
        engine.containers.run(IMAGE, "echo hello")


# --- the host program


def run_and_exec(engine: Engine) -> None:
    with engine.containers.create(IMAGE, ["cat"], interactive=True) as box:
        with box.start_attached() as attachment:
            attachment.write(b"x")
            assert attachment.read() == ("stdout", b"x")
        box.exec(["true"])
        box.pause()
        box.unpause()
        box.kill("USR1")
        with box.attach() as attachment:
            attachment.close_stdin()
            assert attachment.wait(10) == 0
        box.start()
        list(box.logs())
        list(engine.containers.list(all=True))
        box.stop(0)


PUBLIC_CALLS: dict[str, Callable[[Engine], object]] = {
    "life, exec, attach, logs": run_and_exec,
    "run": lambda engine: sh(engine, "exit 0", input=b"x"),
    "info and version": lambda engine: (engine.info(), engine.version()),
    "images": lambda engine: (engine.images.list(), engine.images.get(IMAGE).inspect(), engine.images.exists("x")),
    "explain": lambda engine: engine.explain(IMAGE).text(),
}


@pytest.mark.parametrize("call", PUBLIC_CALLS)
def test_a_public_call_leaves_the_host_program_as_it_was(
    engine: Engine, call: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    PUBLIC_CALLS[call](engine)  # what is made once for an engine is there now
    monkeypatch.setenv("PYENGINE_TEST", "x")
    before = leaks.state()
    while leaks.differences(before, patience=0.2):
        before = leaks.state()  # a monitor of the first call was still ending
    PUBLIC_CALLS[call](engine)
    assert leaks.differences(before) == []
    assert capfd.readouterr() == ("", "")


def test_children_of_the_host_program_are_its_own(engine: Engine) -> None:
    received = []
    before = signal.signal(signal.SIGCHLD, lambda number, frame: received.append(number))
    try:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        assert sh(engine, "exit 3").exit_code == 3
        box = engine.containers.create(IMAGE, ["true"])
        box.start()
        assert box.wait(10) == 0
        of_the_engine = len(received)
        child.communicate()
        assert child.returncode == 0
        assert eventually(lambda: len(received) > of_the_engine)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert of_the_engine <= 4  # of starting monitors, which nobody has to reap
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_program_that_ignores_children_loses_nothing(engine: Engine) -> None:
    # With SIG_IGN the kernel reaps by itself, and waitpid() of a naive engine would fail.
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        result = sh(engine, "true & wait; exit 3")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert result.exit_code == 3


def test_signal_dispositions_of_the_host_program_do_not_reach_the_container(engine: Engine) -> None:
    ignored = [signal.SIGUSR1, signal.SIGPIPE, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
    try:
        status = engine.containers.run(IMAGE, ["grep", "^Sig", "/proc/self/status"]).stdout.decode()
        box = engine.containers.create(IMAGE, ["sleep", "100"])
        box.start()
        inside = box.exec(["grep", "^Sig", "/proc/self/status"]).stdout.decode()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    for text in (status, inside):
        sets = dict(line.split(":\t") for line in text.splitlines())
        assert (sets["SigBlk"], sets["SigIgn"]) == ("0" * 16, "0" * 16)


def test_an_interrupted_call_leaves_nothing_and_the_container_ends(engine: Engine) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            sh(engine, "sleep 1000")
    finally:
        signal.signal(signal.SIGUSR1, before)
        timer.join()
    assert engine.containers.list(all=True) == []


def test_many_threads_run_at_once(engine: Engine) -> None:
    # CVE-2020-14370: the environment of one container was seen in another
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(4):
            try:
                result = sh(
                    engine,
                    "cat; echo $MINE; env | grep -c ^NUMBER; exit $MINE",
                    env={"MINE": str(number), f"NUMBER{number}_{turn}": "x"},
                    input=f"{turn} ".encode() * 10000,
                )
            except Exception as error:  # noqa: BLE001 - the thread's result
                wrong.append(error)
                continue
            if (result.exit_code, result.stdout) != (number, f"{turn} ".encode() * 10000 + f"{number}\n1\n".encode()):
                wrong.append(result)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert engine.containers.list(all=True) == []


def test_a_thread_that_waits_does_not_hold_up_others(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sleep", "1000"])
    box.start()
    waiting = threading.Thread(target=box.wait)
    waiting.start()
    time.sleep(0.05)
    assert sh(engine, "exit 0").exit_code == 0
    box.kill()
    waiting.join(10)
    assert not waiting.is_alive()


PROGRAM = """
import os, sys
os.close(0); os.close(1)
if sys.argv[4] == "2": os.close(2)
from pyengine import Engine
with Engine(sys.argv[1], sys.argv[2]) as engine:
    script = "echo out; echo err >&2; cat; ls /proc/self/fd"
    result = engine.containers.run(sys.argv[3], ["sh", "-c", script], input=b"in")
    box = engine.containers.create(sys.argv[3], ["sleep", "100"])
    box.start()
    inside = box.exec(["sh", "-c", "cat; echo err >&2"], input=b"in")
    box.remove(force=True)
os._exit(0 if (result.stdout, result.stderr) == (b"out\\nin0\\n1\\n2\\n3\\n", b"err\\n")
         and (inside.stdout, inside.stderr) == (b"in", b"err\\n") else 1)
"""


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_program_without_standard_streams_gets_the_same(engine: Engine, closed: str) -> None:
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM, engine.root, engine.run_root, IMAGE, closed], check=False, timeout=60
    )
    assert program.returncode == 0


def test_a_container_removed_by_somebody_else_meanwhile_is_not_found(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["true"])
    engine.containers.get(box.id).remove()
    for call in (
        box.start,
        box.stop,
        box.remove,
        box.wait,
        box.state,
        lambda: box.rename("x"),
        lambda: box.exec(["x"]),
    ):
        with pytest.raises(ContainerNotFound):
            call()
