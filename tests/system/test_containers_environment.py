"""What a program finds inside (containers.md 7): variables, names, users, mounts, devices, limits."""

from __future__ import annotations

import os
import re
import resource
import stat
from pathlib import Path

import pytest
from engines import IMAGE, PASSWD, ROOTLESS, out, sh

from pyengine import Engine
from pyengine.errors import CannotEnforce, InvalidValue, KernelError, PyengineError, StartFailed

pytestmark = pytest.mark.rootless


def mounts(engine: Engine, **options: object) -> dict[str, tuple[str, set[str]]]:
    """Place → type and options of what is mounted inside."""
    found = {}
    for line in out(engine, "cat /proc/self/mountinfo", **options).splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        found[fields[4]] = kind[0], set(fields[5].split(",")) | set(kind[2].split(",")) | set(fields[6:])
    return found


# --- variables, names


def test_the_variables_of_a_plain_container(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["env"])
    with box.start_attached() as attachment:
        variables = (attachment.read() or ("", b""))[1].decode().splitlines()
    assert sorted(variables) == [
        f"HOME={'/root'}",
        f"HOSTNAME={box.short_id}",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM=xterm",
        "container=podman",
    ]


def test_variables_that_are_given_win(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    text = out(engine, "env", env=["TERM=dumb", "A=b=c", "EMPTY=", "SECRET", "HOME=/x"])
    lines = set(text.splitlines())
    assert {"TERM=dumb", "A=b=c", "EMPTY=", "HOME=/x"} <= lines
    assert "of the host" not in text


def test_the_host_name(engine: Engine) -> None:
    assert out(engine, "hostname; cat /etc/hostname; echo $HOSTNAME", hostname="box.example") == "\n".join(
        ["box.example"] * 3
    )
    result = sh(engine, "hostname; cat /etc/hostname")
    assert result.stdout.decode().split() == [result.container_id[:12]] * 2
    assert out(engine, "hostname; cat /etc/hostname", uts="host") == "\n".join([os.uname().nodename] * 2)
    with pytest.raises(InvalidValue, match="the host name cannot be set: the uts namespace is host"):
        sh(engine, "true", uts="host", hostname="x")


def test_the_files_of_the_engine(engine: Engine) -> None:
    assert out(engine, "stat -c '%s %a' /run/.containerenv; stat -c %a /etc/hostname") == "0 644\n644"
    assert not {"/etc/hosts", "/etc/resolv.conf"} & mounts(engine).keys()
    with open("/etc/hosts") as file:
        assert out(engine, "cat /etc/hosts", network="host") == file.read().removesuffix("\n")


# --- users


@pytest.mark.parametrize(
    ("user", "groups", "expected", "home"),
    [
        ("", [], "0 0", "/root"),
        ("ann", [], "1000 1000 29", "/home/ann"),
        ("1000", [], "1000 1000 29", "/home/ann"),
        ("1000:1000", [], "1000 1000", "/home/ann"),
        ("0:audio", [], "0 29", "/root"),
        ("ann:29", ["video", "77"], "1000 29 44 77", "/home/ann"),
        ("ann", ["nosuchgroup", "video"], "1000 1000 29 44", "/home/ann"),
        ("4321", [], "4321 0", "/"),
    ],
)
def test_users_and_groups(engine: Engine, user: str, groups: list[str], expected: str, home: str) -> None:
    # CVE-2022-2989, CVE-2022-36109, CVE-2023-25173: supplementary groups of somebody else
    text = out(engine, "id -u; id -g; id -G; echo $HOME", user=user, group_add=groups).splitlines()
    uid, gid, *supplementary = expected.split()
    assert (text[0], text[1], text[3]) == (uid, gid, home)
    assert set(text[2].split()) - {gid} == set(supplementary)


def test_a_number_that_is_nobody_gets_a_line(engine: Engine) -> None:
    script = "cat /etc/passwd; id -u; id -g"
    assert out(engine, script, user="4321:1234", workdir="/tmp").splitlines() == [
        *PASSWD.decode().splitlines(),
        "4321:x:4321:1234:container user:/tmp:/bin/sh",
        "4321",
        "1234",
    ]
    assert out(engine, "grep -c container /etc/passwd || true", user="ann") == "0"


def test_umask_and_oom_score(engine: Engine) -> None:
    assert out(engine, "umask") == "0022"
    assert out(engine, "umask", umask="0077") == "0077"
    with open("/proc/self/oom_score_adj") as file:
        own = int(file.read())
    assert out(engine, "cat /proc/self/oom_score_adj") == str(max(own, 0))
    assert out(engine, "cat /proc/self/oom_score_adj", oom_score_adj=500) == "500"
    assert out(engine, "cat /proc/1/oom_score_adj", oom_score_adj=1000) == "1000"


# --- mounts


def test_the_default_mounts(engine: Engine) -> None:
    found = mounts(engine)
    expected = {
        "/": ("overlay", {"rw"}),
        "/proc": ("proc", {"nosuid", "noexec", "nodev", "rw"}),
        "/dev": ("tmpfs", {"nosuid", "mode=755", "size=65536k", "rw"}),
        "/dev/pts": ("devpts", {"nosuid", "noexec", "ptmxmode=666", "mode=620"}),
        "/dev/mqueue": ("mqueue", {"nosuid", "noexec", "nodev"}),
        "/dev/shm": ("tmpfs", {"nosuid", "noexec", "nodev", "size=64000k"}),
        "/sys": ("sysfs", {"nosuid", "noexec", "nodev", "ro"}),
        "/sys/fs/cgroup": ("cgroup2", {"nosuid", "noexec", "nodev", "ro"}),
    }
    for place, (kind, options) in expected.items():
        assert found[place][0] == kind
        assert options <= found[place][1], place
    assert not [o for _, options in found.values() for o in options if o.startswith("shared:")]
    # Bound files of the host follow it where it shares its mounts.
    assert not [o for place in expected for o in found[place][1] if o.startswith("master:")]
    assert out(engine, "stat -c %a /dev/shm") == "1777"
    assert out(engine, "touch /dev/shm/x; ls /dev/shm") == "x"


def test_masked_paths_are_empty_and_read_only_ones_are_not_written(engine: Engine) -> None:
    script = """
    for path in /proc/acpi /proc/scsi /sys/firmware; do [ -d $path ] && ls -A $path; done
    for path in /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/sched_debug; do
        [ -e $path ] && head -c 10 $path; done
    for path in /proc/bus /proc/fs /proc/irq /proc/sys; do grep -q " $path ro," /proc/self/mountinfo || echo $path; done
    (echo x > /proc/sys/kernel/domainname) 2>&1; true
    """
    assert out(engine, script) == "sh: can't create /proc/sys/kernel/domainname: Read-only file system"


def test_the_devices(engine: Engine) -> None:
    names = "null zero full random urandom tty"
    text = out(engine, f"for name in {names}; do stat -c '%F %t %T %a' /dev/$name; done; ls /dev")
    lines = text.splitlines()
    for line, name in zip(lines, names.split(), strict=False):
        host = os.stat(f"/dev/{name}")
        major, minor = os.major(host.st_rdev), os.minor(host.st_rdev)
        assert line == f"character special file {major:x} {minor:x} 666"
    assert " ".join(lines[6:]) == "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    script = "echo x > /dev/null; head -c 4 /dev/zero | od -An -tx1; readlink /dev/fd; readlink /dev/ptmx"
    assert out(engine, script) == " 00 00 00 00\n/proc/self/fd\npts/ptmx"


def test_nodes_cannot_be_used_beyond_those_that_were_given(engine: Engine) -> None:
    result = sh(engine, "mknod /tmp/null c 1 3 && echo made; cat /tmp/null; mknod /tmp/mem c 1 1; head -c 1 /tmp/mem")
    if ROOTLESS:
        assert result.stdout == b""
        assert b"mknod: /tmp/null: Operation not permitted" in result.stderr
    else:
        assert result.stdout == b"made\n"  # the usual ones may be made again
        assert b"/tmp/mem: Operation not permitted" in result.stderr
    assert result.exit_code != 0


def test_a_device_of_the_host(engine: Engine) -> None:
    script = "stat -c '%t %T' /dev/mine; head -c 2 /dev/mine | od -An -tx1"
    assert out(engine, script, device=["/dev/zero:/dev/mine"]) == "1 5\n 00 00"
    with pytest.raises(InvalidValue, match="device /dev/nothing: there is no device on the host"):
        engine.containers.create(IMAGE, ["true"], device=["/dev/nothing"])
    if ROOTLESS:
        with pytest.raises(CannotEnforce, match="device rules need a device filter, which only root can load"):
            engine.containers.create(IMAGE, ["true"], device_cgroup_rule=["c 1:* rwm"])
    else:
        script = "mknod /tmp/kmsg c 1 11 && : < /tmp/kmsg"
        assert b"Operation not permitted" in sh(engine, script, cap_add=["SYSLOG"]).stderr
        assert sh(engine, script, cap_add=["SYSLOG"], device_cgroup_rule=["c 1:11 rm"]).exit_code == 0


def test_a_read_only_root(engine: Engine) -> None:
    script = "touch /x; touch /tmp/x && touch /run/x && touch /var/tmp/x && echo tmpfs; touch /dev/shm/x && echo shm"
    result = sh(engine, script, read_only=True)
    assert (result.stdout, result.stderr) == (b"tmpfs\nshm\n", b"touch: /x: Read-only file system\n")
    result = sh(engine, "touch /tmp/x; touch /etc/x", read_only=True, read_only_tmpfs=False)
    assert result.stderr == b"touch: /tmp/x: Read-only file system\ntouch: /etc/x: Read-only file system\n"


def test_a_tmpfs_takes_over_what_was_there(engine: Engine) -> None:
    text = out(engine, "cat /etc/group | head -n 1; stat -c %a /etc; touch /etc/x; df /etc | tail -n 1", tmpfs=["/etc"])
    assert text.splitlines()[:2] == ["root:x:0:", "755"]
    assert text.splitlines()[2].startswith("tmpfs")
    assert out(engine, "ls -A /etc", tmpfs=["/etc:notmpcopyup"]) == "hostname"
    kind, options = mounts(engine, tmpfs=["/new/place:size=1m,mode=700,exec,nr_inodes=10"])["/new/place"]
    assert kind == "tmpfs"
    assert {"rw", "nosuid", "nodev", "size=1024k", "mode=700", "nr_inodes=10"} <= options
    assert "noexec" not in options
    assert sh(engine, "head -c 2000000 /dev/zero > /new/x", tmpfs=["/new:size=1m"]).exit_code != 0


def test_binds(engine: Engine, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "file").write_text("of the host")
    assert out(engine, "cat /data/file; echo new > /data/new", volume=[f"{tmp_path}:/data"]) == "of the host"
    assert (tmp_path / "new").read_text() == "new\n"
    result = sh(engine, "touch /data/x; cat /data/new", volume=[f"{tmp_path}:/data:ro"])
    assert (result.stdout, result.stderr) == (b"new\n", b"touch: /data/x: Read-only file system\n")
    assert out(engine, "cat /etc/one", mount=[f"type=bind,src={tmp_path}/file,dst=/etc/one,ro"]) == "of the host"
    assert {"noexec", "nosuid", "nodev"} <= mounts(engine, volume=[f"{tmp_path}:/d:noexec,nosuid,nodev"])["/d"][1]


def test_a_missing_bind_source_is_an_error_before_anything_is_made(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(PyengineError, match=re.escape(f"{tmp_path}/nothing")) as caught:
        sh(engine, "true", volume=[f"{tmp_path}/nothing:/data"])
    assert isinstance(caught.value, InvalidValue | KernelError)
    assert not (tmp_path / "nothing").exists()
    assert engine.containers.list(all=True) == []


def test_a_bind_through_a_symbolic_link_stays_inside(engine: Engine, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "inner").mkdir()
    box = engine.containers.create(IMAGE, ["sh", "-c", "ls -d /link/x"], volume=[f"{tmp_path}/inner:/link/x"])
    upper = Path(engine.root) / "containers" / box.id / "upper"
    (upper / "link").symlink_to(tmp_path)  # as a program in the container would have made it
    with box.start_attached() as attachment:
        assert attachment.read() == ("stdout", b"/link/x\n")
        assert attachment.wait(10) == 0
    assert not (tmp_path / "x").exists()


def test_mounts_that_contradict_each_other(engine: Engine) -> None:
    with pytest.raises(InvalidValue, match="mount destination '/a' is given twice"):
        engine.containers.create(IMAGE, ["true"], volume=["/tmp:/a"], tmpfs=["/a/"])
    with pytest.raises(InvalidValue, match="mount destination '/' is the root itself"):
        engine.containers.create(IMAGE, ["true"], tmpfs=["/"])


def test_the_size_of_shm(engine: Engine) -> None:
    assert "size=1000k" in mounts(engine, shm_size=1024000)["/dev/shm"][1]
    assert "/dev/shm" not in mounts(engine, ipc="none")


# --- limits of processes


CAP_SYS_RESOURCE = 24


def test_rlimits(engine: Engine) -> None:
    script = "ulimit -Sn; ulimit -Hn; ulimit -c"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = [int(word) for word in out(engine, "ulimit -Sn; ulimit -Hn").split()]
    if ROOTLESS:
        assert found == [soft, hard]
    else:
        assert found[0] == found[1] == min(1048576, hard)
    assert out(engine, script, ulimit=["nofile=100:200", "core=0"]) == "100\n200\n0"
    with pytest.raises(InvalidValue, match="the soft limit is above the hard limit"):
        engine.containers.create(IMAGE, ["true"], ulimit=["nofile=2:1"])
    with open("/proc/self/status") as status:
        effective = int(next(line for line in status if line.startswith("CapEff:")).split()[1], 16)
    with open("/proc/sys/fs/nr_open") as file:
        most = int(file.read())  # nobody goes beyond, whatever his rights
    if effective & 1 << CAP_SYS_RESOURCE and not ROOTLESS:
        above = min(hard + 1, most)
        assert out(engine, "ulimit -Hn", ulimit=[f"nofile={above}"]) == str(above)
        return
    with pytest.raises(
        CannotEnforce, match=rf"ulimit nofile: {hard + 1} is above the hard limit {hard} of this process"
    ):
        engine.containers.create(IMAGE, ["true"], ulimit=[f"nofile={hard + 1}"])


def test_sysctls(engine: Engine) -> None:
    text = out(
        engine,
        "cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max /proc/sys/net/ipv4/ip_forward",
        sysctl={"kernel.msgmax": "4096", "fs.mqueue.msg_max": "5", "net.ipv4.ip_forward": "1"},
    )
    assert text == "4096\n5\n1"
    with pytest.raises(InvalidValue, match=r"kernel\.panic"):
        engine.containers.create(IMAGE, ["true"], sysctl={"kernel.panic": "1"})
    with pytest.raises(InvalidValue, match=r"net\.ipv4\.ip_forward"):
        engine.containers.create(IMAGE, ["true"], sysctl={"net.ipv4.ip_forward": "1"}, network="host")


# --- rights

DEFAULT, NONE = 0xA80425FB, 0


def capabilities(engine: Engine, **options: object) -> dict[str, int]:
    text = out(engine, "grep Cap /proc/self/status", **options)
    return {line[3:6]: int(line.split()[1], 16) for line in text.splitlines()}


def test_capabilities(engine: Engine) -> None:
    # CVE-2022-24769: inheritable capabilities were not empty
    plain = {"Inh": NONE, "Prm": DEFAULT, "Eff": DEFAULT, "Bnd": DEFAULT, "Amb": NONE}
    assert capabilities(engine) == plain
    assert capabilities(engine, user="ann") == plain | {"Prm": NONE, "Eff": NONE}
    none = dict.fromkeys(plain, NONE)
    assert capabilities(engine, cap_drop=["all"]) == none
    chown = none | dict.fromkeys(("Prm", "Eff", "Bnd"), 1)
    assert capabilities(engine, cap_drop=["ALL"], cap_add=["chown"]) == chown
    assert capabilities(engine, cap_drop=["ALL"], cap_add=["CAP_CHOWN"], user="ann") == dict.fromkeys(plain, 1)
    without = DEFAULT & ~(1 << 27)
    assert capabilities(engine, cap_drop=["MKNOD"])["Eff"] == without
    assert capabilities(engine, cap_add=["SYS_PTRACE"])["Bnd"] == DEFAULT | 1 << 19
    with pytest.raises(InvalidValue, match="both added and dropped: CAP_CHOWN"):
        engine.containers.create(IMAGE, ["true"], cap_add=["CHOWN"], cap_drop=["CAP_CHOWN"])


def test_no_new_privileges(engine: Engine) -> None:
    script = "grep NoNewPrivs /proc/self/status"
    assert out(engine, script).split()[1] == "0"
    assert out(engine, script, security_opt=["no-new-privileges"]).split()[1] == "1"


@pytest.mark.parametrize("option", ["default", "unconfined", "privileged"])
def test_the_filter_of_system_calls(engine: Engine, option: str) -> None:
    # CVE-2022-0185, CVE-2022-0492
    options: dict[str, object] = {}
    if option == "unconfined":
        options = {"security_opt": ["seccomp=unconfined"], "cap_add": ["SYS_ADMIN"]}
    if option == "privileged":
        options = {"privileged": True}
    assert out(engine, "grep Seccomp: /proc/self/status", **options).split()[1] == ("2" if option == "default" else "0")
    result = sh(engine, "unshare -m true", **options)
    if option == "default":
        assert (result.exit_code, result.stderr) == (1, b"unshare: unshare(0x20000): Operation not permitted\n")
    else:
        assert result.exit_code == 0


def test_a_profile_of_ones_own(engine: Engine, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", '
        '"errnoRet": 99}]}'
    )
    result = sh(engine, "mkdir /x; touch /y && echo y", security_opt=[f"seccomp={profile}"])
    assert (result.stdout, result.stderr) == (
        b"y\n",
        b"mkdir: can't create directory '/x': Cannot assign requested address\n",
    )
    with pytest.raises(InvalidValue, match="expected unconfined, or the absolute path of a profile"):
        engine.containers.create(IMAGE, ["true"], security_opt=["seccomp=profile.json"])
    with pytest.raises(InvalidValue, match=f"seccomp profile {tmp_path}/none: No such file or directory"):
        engine.containers.create(IMAGE, ["true"], security_opt=[f"seccomp={tmp_path}/none"])
    profile.write_text("{")
    with pytest.raises(InvalidValue, match="profile"):
        engine.containers.create(IMAGE, ["true"], security_opt=[f"seccomp={profile}"])


def test_privileged(engine: Engine) -> None:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        every = (1 << (int(file.read()) + 1)) - 1
    with open("/proc/self/status") as file:
        bounding = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))
    assert capabilities(engine, privileged=True)["Eff"] == (every if ROOTLESS else bounding)
    found = mounts(engine, privileged=True)
    assert "ro" not in found["/sys"][1]
    assert "ro" not in found["/sys/fs/cgroup"][1]
    assert "/proc/kcore" not in found
    assert "/proc/sys" not in found
    assert out(engine, "ls /dev/kmsg 2>/dev/null || true", privileged=True) == (
        "/dev/kmsg" if os.path.exists("/dev/kmsg") else ""
    )


def test_the_root_of_another_user_is_closed(engine: Engine) -> None:
    # CVE-2021-41091: other users of the host could reach set-user-ID files in layers
    for place in (f"{engine.root}/layers", f"{engine.root}/containers"):
        path = place
        while path != "/" and os.stat(path).st_mode & stat.S_IXOTH:
            path = os.path.dirname(path)
        assert path.startswith(engine.root), f"{place} can be reached by everybody"


def test_the_monitor_cannot_be_reached_from_inside(engine: Engine) -> None:
    # /proc shows only the container's own processes, and its first one is not the monitor
    assert out(engine, "readlink /proc/1/exe; ls -d /proc/[0-9]* | wc -l").split()[0] == "/bin/busybox"
    with pytest.raises(StartFailed):
        engine.containers.run(IMAGE, ["/proc/self/exe/x"])
