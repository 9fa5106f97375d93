"""run, create, exec, attach, start -a, explain: every flag reaches the request; streams and exit codes are right."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import Attachment, Config, Engine

from pyengine.cli.container_options import FLAGS
from pyengine.engine.options import Options, make_request
from pyengine.engine.request import ContainerRequest, NamespaceRequest, RestartPolicy
from pyengine.engine.request_mounts import BindMount
from pyengine.errors import ContainerNotFound, ImageNotFound, NameInUse, StartFailed


@pytest.fixture
def engine() -> Engine:
    return Engine()


def request(*args: str, env: dict[str, str] | None = None) -> ContainerRequest:
    """The request that ``pyengine create ARGS`` makes."""
    engine = Engine()
    result = engine.run("create", *args, env=env)
    assert (result.exit_code, result.stderr) == (0, "")
    return make_request(**engine.containers.created[0])


def test_the_table_has_every_option_of_the_engine_and_no_other() -> None:
    # those of the engine that the command line does not have: for programs that embed it
    embedders = {"die_with_parent", "environment", "hugetlb"}
    files = {"env_file", "label_file"}
    assert {flag.name for flag in FLAGS} - files == set(Options.__annotations__) - embedders


def test_no_two_flags_share_a_name() -> None:
    names = [name for flag in FLAGS for name in flag.names.split()]
    assert len(names) == len(set(names))


def test_a_plain_create_asks_for_nothing_but_image_and_command(engine: Engine) -> None:
    assert engine.run("create", "img").exit_code == 0
    assert engine.run("create", "img", "sh", "-c", "x", "--tty").exit_code == 0
    assert engine.containers.created == [{"image": "img"}, {"image": "img", "command": ("sh", "-c", "x", "--tty")}]


RESOURCES = "resources."


@pytest.mark.parametrize(
    ("args", "field", "expected"),
    [
        (["--entrypoint", "/bin/x"], "entrypoint", ("/bin/x",)),
        (["--entrypoint", '["a","b"]'], "entrypoint", ("a", "b")),
        (["--entrypoint", ""], "entrypoint", ()),
        (["-e", "A=1", "--env", "B=x,y"], "env", {"A": "1", "B": "x,y"}),
        (["-e", "FROM_HERE"], "env", {"FROM_HERE": "yes"}),
        (["-e", "NOT_HERE"], "env", {}),
        (["-u", "1000:10"], "user", "1000:10"),
        (["--group-add", "a,b", "--group-add=7"], "group_add", ("a", "b", "7")),
        (["-w", "/x"], "workdir", "/x"),
        (["--umask", "027"], "umask", 0o27),
        (["-t"], "tty", True),
        (["-i"], "interactive", True),
        (["--name", "box"], "name", "box"),
        (["-h", "host"], "hostname", "host"),
        (["-l", "a=b,c", "--label", "d"], "labels", {"a": "b,c", "d": ""}),
        (["--annotation", "a=b,c=d"], "annotations", {"a": "b", "c": "d"}),
        (["-v", "/a:/b:ro"], "mounts", (BindMount(source="/a", target="/b", ro=True),)),
        (["--mount", "type=bind,src=/a,dst=/b"], "mounts", (BindMount(source="/a", target="/b"),)),
        (["--read-only"], "read_only", True),
        (["--read-only", "--read-only-tmpfs=false"], "read_only_tmpfs", False),
        (["--shm-size", "1m"], "shm_size", 1_000_000),
        (["--cap-add", "net_admin,CAP_CHOWN"], "cap_add", ("CAP_NET_ADMIN", "CAP_CHOWN")),
        (["--cap-drop", "all"], "cap_drop", ("ALL",)),
        (["--privileged"], "privileged", True),
        (["--security-opt", "no-new-privileges"], "no_new_privileges", True),
        (["--security-opt=seccomp=unconfined"], "seccomp", "unconfined"),
        (["--security-opt", "seccomp=/p.json"], "seccomp", "/p.json"),
        (["--sysctl", "net.ipv4.ip_forward=1"], "sysctls", {"net.ipv4.ip_forward": "1"}),
        (["--ulimit", "host"], "host_ulimits", True),
        (["--network", "host"], "net", NamespaceRequest("host")),
        (["--net=container:x"], "net", NamespaceRequest("container", "x")),
        (["--pid", "host"], "pid", NamespaceRequest("host")),
        (["--ipc=none"], "ipc", NamespaceRequest("none")),
        (["--uts=host"], "uts", NamespaceRequest("host")),
        (["--cgroupns=host"], "cgroup", NamespaceRequest("host")),
        (["--userns=keep-id"], "user_namespace", NamespaceRequest("keep-id")),
        (["-m", "64m"], "resources.memory", 64 << 20),
        (["--memory-reservation=8m"], "resources.memory_reservation", 8 << 20),
        (["-m=64m", "--memory-swap", "-1"], "resources.memory_swap", -1),
        (["--cpus", "1.5"], "resources.cpus", 1.5),
        (["--cpu-period=50000"], "resources.cpu_period", 50000),
        (["--cpu-quota=-1"], "resources.cpu_quota", -1),
        (["-c", "512"], "resources.cpu_shares", 512),
        (["--cpuset-cpus=0-3,7"], "resources.cpuset_cpus", "0-3,7"),
        (["--cpuset-mems=0"], "resources.cpuset_mems", "0"),
        (["--pids-limit=100"], "resources.pids_limit", 100),
        (["--blkio-weight=200"], "resources.blkio_weight", 200),
        (["--cgroup-conf=memory.high=1000"], "resources.unified", {"memory.high": "1000"}),
        (["--oom-score-adj=-5"], "oom_score_adj", -5),
        (["--cgroup-parent=/x"], "cgroup_parent", "/x"),
        (["--restart=on-failure:3"], "restart", RestartPolicy("on-failure", 3)),
        (["--rm"], "auto_remove", True),
        (["--rm=false"], "auto_remove", False),
        (["--stop-signal=HUP"], "stop_signal", 1),
        (["--stop-timeout=0"], "stop_timeout", 0),
    ],
)
def test_a_flag_reaches_the_request(args: list[str], field: str, expected: object) -> None:
    value: Any = request(*args, "img", env={"FROM_HERE": "yes"})
    for name in field.split("."):
        value = getattr(value, name)
    assert value == expected


@pytest.mark.parametrize(
    ("args", "field", "expected"),
    [
        (["--device", "/dev/null:/dev/x:r"], "devices", [("/dev/null", "/dev/x", "r")]),
        (["--device-cgroup-rule", "c 1:3 rwm"], "device_rules", [("c", 1, 3, "rwm")]),
        (["--ulimit", "nofile=10:20,core=0"], "ulimits", [("nofile", 10, 20), ("core", 0, 0)]),
        (["--uidmap", "0:1000:5"], "uid_map", [(0, 1000, 5)]),
        (["--uidmap=0:1000:5", "--gidmap", "0:2000:5"], "gid_map", [(0, 2000, 5)]),
        (["--blkio-weight-device", "/dev/a:100"], "resources.blkio_weight_device", [("/dev/a", 100)]),
        (["--device-read-bps", "/dev/a:1m"], "resources.device_read_bps", [("/dev/a", 1 << 20)]),
        (["--device-write-bps", "/dev/a:1m"], "resources.device_write_bps", [("/dev/a", 1 << 20)]),
        (["--device-read-iops", "/dev/a:7"], "resources.device_read_iops", [("/dev/a", 7)]),
        (["--device-write-iops", "/dev/a:7"], "resources.device_write_iops", [("/dev/a", 7)]),
    ],
)
def test_a_flag_of_several_parts_reaches_the_request(args: list[str], field: str, expected: list[tuple[Any]]) -> None:
    value: Any = request(*args, "img")
    for name in field.split("."):
        value = getattr(value, name)
    assert [tuple(getattr(item, name) for name in type(item).__dataclass_fields__) for item in value] == expected


def test_logs_and_tmpfs_reach_the_request() -> None:
    made = request("--log-driver=json-file", "--log-opt", "path=/l,max-size=1k", "--tmpfs", "/t:size=1m", "img")
    assert (made.log.driver, made.log.path, made.log.max_size) == ("json-file", "/l", 1024)
    assert made.mounts[0].target == "/t"


def test_a_root_file_system_takes_the_place_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = request("--rootfs", "root", "sh")
    assert (made.image, made.rootfs, made.command) == ("", f"{tmp_path}/root", ("sh",))


def test_paths_of_the_host_are_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = request(
        *("-v", "./a:/a"), *("-v", "..:/up"), *("--mount", "type=bind,source=./b,target=/b"),
        *("--security-opt", "seccomp=p.json"), *("--log-opt", "path=my.log"), "img",
    )  # fmt: skip
    assert [mount.source for mount in made.mounts if isinstance(mount, BindMount)] == [
        f"{tmp_path}/b",
        f"{tmp_path}/a",
        str(tmp_path.parent),
    ]
    assert made.seccomp == f"{tmp_path}/p.json"
    assert made.log.path == f"{tmp_path}/my.log"


def test_files_of_variables_and_labels_come_before_flags(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\n\nA=file\nB=file\nFROM_HERE\n")
    (tmp_path / "labels").write_text("# comment\na=file\nb=x=y\n")
    made = request(
        f"--env-file={tmp_path}/env", "-e", "A=flag", f"--label-file={tmp_path}/labels", "-l", "a=flag", "img",
        env={"FROM_HERE": "yes"},
    )  # fmt: skip
    assert made.env == {"A": "flag", "B": "file", "FROM_HERE": "yes"}
    assert made.labels == {"a": "flag", "b": "x=y"}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (None, "open environment file {}: No such file or directory"),
        (lambda path: path.write_bytes(b"A=\xff"), "environment file {}: not UTF-8 at byte 2"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 30), "larger than 16 MiB"),
        (lambda path: path.write_text("=x"), "expected NAME=VALUE"),
    ],
)
def test_a_bad_file_of_variables_is_named(
    engine: Engine, tmp_path: Path, make: Callable[[Path], object] | None, text: str
) -> None:
    path = tmp_path / "env"
    if make:
        make(path)
    result = engine.run("create", "--env-file", str(path), "img")
    assert result.exit_code == 125
    assert text.format(path) in result.stderr
    assert not engine.containers.created


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "an image has to be named"),
        (["--add-host=a:1.2.3.4", "img"], "No such option '--add-host'"),
        (["--frobnicate", "img"], "No such option '--frobnicate'"),
        (["--cpus=many", "img"], "'many' is not a valid float"),
        (["--pids-limit", "img"], "'img' is not a valid integer"),
        (["--name"], "--name needs a value"),
    ],
)
def test_nonsense_is_refused_before_anything_is_made(engine: Engine, args: list[str], text: str) -> None:
    for command in ("run", "create", "explain"):
        result = engine.run(command, *args)
        assert result.exit_code == 125
        assert text in result.stderr
    assert not engine.containers.created


# --- run


def test_run_returns_the_containers_exit_code_and_output(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    attachment = Attachment([("stdout", b"out\n"), ("stderr", b"err\n")], code=3)
    engine.containers.next = {"attachment": attachment}
    result = engine.run("run", "img", "sh")
    assert result.exit_code == 3
    assert capfd.readouterr() == ("out\n", "err\n")
    assert engine.calls == [("made_up", "start_attached", False)]
    assert attachment.pumped == (None, 1, 2, "")
    assert attachment.closed


def test_run_interactive_hands_over_stdin(engine: Engine) -> None:
    attachment = Attachment()
    engine.containers.next = {"attachment": attachment}
    assert engine.run("run", "-i", "img").exit_code == 0
    assert engine.calls == [("made_up", "start_attached", True)]
    assert attachment.pumped[0] == 0


def test_run_removes_what_it_was_told_to_remove(engine: Engine) -> None:
    attachment = Attachment()
    engine.containers.next = {"attachment": attachment}
    assert engine.run("run", "--rm", "img").exit_code == 0
    assert engine.calls == [("made_up", "start_attached", False), ("made_up", "remove", True)]
    assert attachment.released


def test_run_takes_it_well_if_the_container_is_gone_already(engine: Engine) -> None:
    engine.containers.next = {"errors": {"remove": ContainerNotFound("x", "gone")}, "attachment": Attachment(code=5)}
    result = engine.run("run", "--rm", "img")
    assert (result.exit_code, result.output) == (5, "")


def test_detaching_leaves_the_container_and_succeeds(engine: Engine) -> None:
    attachment = Attachment(code=None)
    engine.containers.next = {"attachment": attachment}
    result = engine.run("run", "--rm", "-i", "img")
    assert result.exit_code == 0
    assert engine.calls == [("made_up", "start_attached", True)]
    assert attachment.closed
    assert not attachment.released  # the monitor removes it


def test_run_detached_prints_the_id(engine: Engine) -> None:
    result = engine.run("run", "-d", "--name=x", "img")
    assert (result.exit_code, result.stdout, engine.calls) == (0, "01" * 32 + "\n", [("x", "start")])


@pytest.mark.parametrize("code", [126, 127])
@pytest.mark.parametrize("flags", [[], ["-d"]])
def test_a_command_that_cannot_start_has_its_exit_code(engine: Engine, code: int, flags: list[str]) -> None:
    error = StartFailed("exec /nope: No such file or directory", code)
    engine.containers.next = {"errors": {"start": error, "start_attached": error}}
    result = engine.run("run", *flags, "img", "/nope")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == "Error: exec /nope: No such file or directory\n"


def test_a_failed_start_leaves_nothing_with_rm(engine: Engine) -> None:
    engine.containers.next = {"errors": {"start_attached": StartFailed("no", 127)}}
    assert engine.run("run", "--rm", "img").exit_code == 127
    assert engine.calls[-1] == ("made_up", "remove", True)


@pytest.mark.parametrize(
    "error", [ImageNotFound("img", "unable to find 'img' in local storage: no such image"), NameInUse("x", "0" * 64)]
)
def test_what_cannot_be_created_is_125(engine: Engine, error: Exception) -> None:
    engine.containers.error = error
    result = engine.run("run", "--name=x", "img")
    assert (result.exit_code, result.stderr) == (125, f"Error: {error}\n")


def test_ids_are_written_to_files(engine: Engine, tmp_path: Path) -> None:
    cid, pid = tmp_path / "cid", tmp_path / "pid"
    pid.write_text("old, and longer than the new")
    engine.containers.next = {"state": type(engine.add("other").now)("running", pid=4321)}
    assert engine.run("run", "-d", f"--cidfile={cid}", "--pidfile", str(pid), "img").exit_code == 0
    assert cid.read_text() == "02" * 32
    assert pid.read_text() == "4321\n"


def test_an_id_file_is_never_overwritten(engine: Engine, tmp_path: Path) -> None:
    cid = tmp_path / "cid"
    cid.write_text("mine")
    result = engine.run("create", "--cidfile", str(cid), "img")
    assert result.exit_code == 125
    assert f"container ID file {cid} exists" in result.stderr
    assert cid.read_text() == "mine"
    assert not engine.containers.created


def test_an_id_file_goes_with_a_container_that_could_not_be_made(engine: Engine, tmp_path: Path) -> None:
    engine.containers.error = ImageNotFound("img", "no such image")
    assert engine.run("create", f"--cidfile={tmp_path}/cid", "img").exit_code == 125
    assert list(tmp_path.iterdir()) == []


def test_replace_removes_the_one_that_had_the_name(engine: Engine) -> None:
    engine.add("box", "running")
    engine.add("other")
    assert engine.run("create", "--replace", "--name=box", "img").exit_code == 0
    assert engine.calls == [("box", "remove", True)]
    assert [container.name for container in engine.containers.all] == ["other", "box"]
    assert engine.run("run", "--replace", "--name=new", "img").exit_code == 0
    assert engine.calls[1:] == [("new", "start_attached", False)]
    assert engine.run("create", "--name=box", "img").exit_code == 125
    result = engine.run("create", "--replace", "img")
    assert (result.exit_code, result.stderr) == (
        125,
        "Error: --replace needs --name: it says which container is to be replaced\n",
    )


@pytest.mark.parametrize("flags", [[], ["-d"]])
def test_a_signal_during_the_start_unwinds_it(engine: Engine, flags: list[str]) -> None:
    class Slow(dict[str, Any]):
        def __contains__(self, name: object) -> bool:
            if name in ("start", "start_attached"):
                os.kill(os.getpid(), signal.SIGTERM)
            return False

    engine.containers.next = {"errors": Slow()}
    result = engine.run("run", "--rm", *flags, "img")
    assert (result.exit_code, result.output) == (143, "")
    assert engine.calls[-1] == ("made_up", "remove", True)


# --- signals


def test_signals_go_on_to_the_container(engine: Engine) -> None:
    attachment = Attachment()
    attachment.during = lambda: (
        [os.kill(os.getpid(), n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] and None
    )
    engine.containers.next = {"attachment": attachment}
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGWINCH)]
    assert engine.run("run", "img").exit_code == 0
    assert [call[1:] for call in engine.calls] == [
        ("start_attached", False),
        ("kill", signal.SIGTERM),
        ("kill", signal.SIGUSR1),
        ("kill", signal.SIGINT),
    ]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGWINCH)] == before


def test_a_signal_for_a_container_that_has_just_ended_is_dropped(engine: Engine) -> None:
    from fake_engine import wrong_state

    attachment = Attachment(code=4)
    attachment.during = lambda: os.kill(os.getpid(), signal.SIGTERM)
    engine.containers.next = {"attachment": attachment, "errors": {"kill": wrong_state("exited")}}
    result = engine.run("run", "img")
    assert (result.exit_code, result.output) == (4, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_without_the_proxy_signals_end_this_process_and_not_the_container(
    engine: Engine, number: int, code: int
) -> None:
    attachment = Attachment()
    attachment.during = lambda: os.kill(os.getpid(), number)
    engine.containers.next = {"attachment": attachment}
    assert engine.run("run", "--sig-proxy=false", "img").exit_code == code
    assert engine.calls == [("made_up", "start_attached", False)]
    assert attachment.closed


def test_an_ignored_signal_stays_ignored(engine: Engine) -> None:
    attachment = Attachment()
    attachment.during = lambda: os.kill(os.getpid(), signal.SIGHUP)
    engine.containers.next = {"attachment": attachment}
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert engine.run("run", "img").exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert engine.calls == [("made_up", "start_attached", False)]


# --- start -a, attach, exec


def test_start_attached_stays_for_the_exit_code(engine: Engine) -> None:
    engine.add("a", "exited", attachment=Attachment(code=9))
    assert engine.run("start", "-a", "a").exit_code == 9
    assert engine.calls == [("a", "start_attached", False)]


def test_start_interactive_gives_stdin_to_what_has_one(engine: Engine) -> None:
    engine.add("a", config=Config(stdin=True))
    engine.add("b")
    engine.add("c", "running", config=Config(stdin=True))
    for name in "abc":
        assert engine.run("start", "-ai", name).exit_code == 0
    assert engine.calls == [("a", "start_attached", True), ("b", "start_attached", False), ("c", "attach", True)]


def test_only_one_can_have_the_terminal(engine: Engine) -> None:
    result = engine.run("start", "-a", "a", "b")
    assert (result.exit_code, result.stderr) == (
        125,
        "Error: exactly one container has to be named: there is one terminal\n",
    )


def test_attach_joins_what_runs(engine: Engine) -> None:
    attachment = Attachment(code=7)
    engine.add("a", "running", attachment=attachment, config=Config(stdin=True))
    assert engine.run("attach", "a").exit_code == 7
    assert engine.run("attach", "--no-stdin", "-l").exit_code == 7
    assert engine.calls == [("a", "attach", True), ("list", True, None), ("a", "attach", False)]


def test_attach_to_what_does_not_run_is_an_error(engine: Engine) -> None:
    engine.add("a", "exited")
    result = engine.run("attach", "a")
    assert (result.exit_code, result.stderr) == (
        125,
        "Error: cannot attach to container a: it is exited, not running\n",
    )


def test_exec_hands_everything_over(engine: Engine, tmp_path: Path) -> None:
    attachment = Attachment(code=6)
    engine.add("a", "running", attachment=attachment)
    (tmp_path / "env").write_text("A=0\nC=3\n")
    result = engine.run(
        "exec",
        "-it",
        "-u",
        "1:2",
        "-w/x",
        "-e",
        "A=1",
        f"--env-file={tmp_path}/env",
        "--privileged",
        "a",
        "sh",
        "-c",
        "x",
    )
    assert result.exit_code == 6
    options = {"user": "1:2", "workdir": "/x", "env": ["A=1", "C=3"], "tty": True, "privileged": True, "stdin": True}
    assert engine.calls == [("a", "open_exec", ("sh", "-c", "x"), options)]
    assert attachment.finished
    assert attachment.closed


def test_exec_detached_does_not_wait(engine: Engine) -> None:
    attachment = Attachment(code=6)
    engine.add("a", "running", attachment=attachment)
    result = engine.run("exec", "-di", "a", "sleep", "9")
    assert (result.exit_code, result.stdout) == (0, "e" * 64 + "\n")
    assert engine.calls[0][3]["stdin"] is False
    assert (attachment.pumped, attachment.closed, attachment.finished) == ((), True, False)


def test_exec_of_what_cannot_start_has_its_exit_code(engine: Engine) -> None:
    engine.add("a", "running", errors={"open_exec": StartFailed("exec x: No such file or directory", 127)})
    assert engine.run("exec", "a", "x").exit_code == 127
    assert engine.run("exec", "-l", "x").exit_code == 127
    assert engine.run("exec", "b", "x").exit_code == 125


def test_exec_needs_a_command(engine: Engine) -> None:
    engine.add("a", "running")
    result = engine.run("exec", "a")
    assert (result.exit_code, result.stderr) == (125, "Error: exec needs a container and a command\n")


# --- explain


def test_explain_takes_a_container_or_what_would_be_one(engine: Engine) -> None:
    engine.add("box")
    assert engine.run("explain", "box").stdout == "container box\n"
    assert engine.run("explain", "--memory=64m", "img", "sh").stdout == "image img\n"
    assert engine.explained == {"memory": "64m", "image": "img", "command": ("sh",)}
    assert engine.run("explain", "box", "sh").stdout == "image box\n"
