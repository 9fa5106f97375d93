from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import guest
from machine.guest import closed_directories, command, configuration, environment, interpreters, shown_again
from machine.host import VMError
from machine.options import Options, parse

OPTIONS = Options(("true",), directory="/work")


def test_nothing_of_the_hosts_environment_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert environment(OPTIONS, "uml", "dumb") == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYENGINE_VM": "uml",
        "PYENGINE_TEST_HOST": "root",
    }


def test_the_user_has_a_home_and_a_runtime_directory_and_given_variables_win() -> None:
    options = Options(("true",), user=True, out="/results", environment=(("LANG", "C"), ("X", "1")))
    given_ = environment(options, "tcg", "dumb")
    assert given_["HOME"] == "/scratch/home/tester"
    assert given_["XDG_RUNTIME_DIR"] == "/run/user/4242"
    assert given_["PYENGINE_TEST_HOST"] == "user"
    assert (given_["LANG"], given_["X"], given_["VM_OUT"]) == ("C", "1", "/run/vm/out")


@settings(max_examples=15)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=4))
def test_the_shell_reads_back_what_is_configured(values: list[str]) -> None:
    text = configuration({f"V{number}": value for number, value in enumerate(values)})
    names = " ".join(f'"$VM_V{number}"' for number in range(len(values)))
    script = text + f"printf '%s\\0' {names}".encode()
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.decode() == "".join(
        value + "\0" for value in values
    )


def test_the_command_becomes_the_user_after_entering_the_cgroup() -> None:
    options = Options(("echo", "a b"), user=True, directory="/a b")
    lines = command(options, {"X": "1 2"}).decode().splitlines()
    assert lines[0] == 'echo $$ >"$1/cgroup.procs"'
    assert lines[1] == "cd '/a b' || exit 125"
    assert lines[-1] == (
        "exec /usr/bin/env -i 'X=1 2' /usr/bin/setpriv --reuid=4242 --regid=4242 --clear-groups "
        "--inh-caps=-all -- echo 'a b'"
    )


def test_root_stays_root() -> None:
    assert command(OPTIONS, {}).decode().splitlines()[-1] == "exec /usr/bin/env -i true"


def test_directories_that_are_closed_to_others_are_found(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "open" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    inner.chmod(0o710)
    (inner / "file").touch(0o644)
    closed = closed_directories([str(inner / "file"), str(inner)])
    assert [path for path in closed if path.startswith(str(tmp_path / "closed"))] == [
        str(inner),
        str(tmp_path / "closed"),
    ]
    assert len(set(closed)) == len(closed)


def test_the_interpreter_of_a_script_is_followed_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"\x7fELF")
    (tmp_path / "python").symlink_to("real")
    (tmp_path / "script").write_text(f"#!{tmp_path}/python -I\n")
    found = interpreters(str(tmp_path / "script"))
    assert found == [str(tmp_path / name) for name in ("script", "script", "python", "real")]


def test_a_script_that_names_itself_and_a_missing_file_end() -> None:
    assert interpreters("/nonexistent/program") == ["/nonexistent/program", "/nonexistent/program"]


@pytest.mark.parametrize(
    ("directory", "shown"),
    [
        ("/tmp/clone/sub", "/tmp/clone"),
        ("/tmp/clone", "/tmp/clone"),
        ("/var/tmp/x/y/z", "/var/tmp/x"),
        ("/run/x", "/run/x"),
        ("/tmp", ""),
        ("/tmpfoo/x", ""),
        ("/work/main", ""),
        ("/", ""),
    ],
)
def test_a_checkout_below_a_replaced_directory_is_shown_again(directory: str, shown: str) -> None:
    assert shown_again(directory) == shown


@pytest.mark.parametrize("directory", ["/dev/shm", "/proc", "/sys/fs/cgroup"])
def test_a_directory_that_the_guest_has_of_its_own_is_refused(directory: str) -> None:
    with pytest.raises(VMError, match=f"cannot start in {directory}: go elsewhere$"):
        shown_again(directory)


def test_settings_open_the_way_to_the_users_interpreter(tmp_path: Path) -> None:
    binaries = tmp_path / "checkout/.venv/bin"
    binaries.mkdir(parents=True)
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o700)
    (home / "python").touch()
    (binaries / "python").symlink_to(home / "python")
    options = Options(("sh", "-c", "true"), user=True, directory=str(tmp_path / "checkout"))
    assert str(home) in str(guest.settings(options, "uml", "seed", 80, 24)["OPEN"]).split()
    as_root = Options(options.command, directory=options.directory)
    assert guest.settings(as_root, "uml", "seed", 80, 24)["OPEN"] == ""


def test_options_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("HERE", "y")
    words = ["--engine", "tcg", "--user", "--timeout", "5", "--memory", "1G"]
    options = parse([*words, "--env", "A=b", "--env", "HERE", "--", "echo", "--user"])
    assert options == Options(
        ("echo", "--user"),
        engine="tcg",
        user=True,
        timeout=5,
        memory=1 << 30,
        environment=(("A", "b"), ("HERE", "y")),
    )
    assert parse(["--tty"]).command == ("/bin/bash", "-l")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command"),
        (["--timeout", "0", "x"], "not a time in seconds: '0'"),
        (["--timeout", "nan", "x"], "not a time in seconds: 'nan'"),
        (["--memory", "much", "x"], "not a size: 'much'"),
        (["--env", "a-b=c", "x"], "not the name of a variable: 'a-b'"),
        (["--env", "NOT_SET_HERE", "x"], "NOT_SET_HERE is not set here"),
        (["--cpus", "0", "x"], "--cpus must be at least 1"),
        (["--engine", "xen", "x"], "invalid choice: 'xen'"),
    ],
)
def test_bad_options_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
