"""Containers of root with a user namespace of their own: ids inside, on the disk and on the host; what they may do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import IMAGE, import_image, left_over, out, root_tar, sh
from plan_box import build_helper

from pyengine import Engine
from pyengine.engine.container import Container
from pyengine.errors import CannotEnforce, InvalidState, InvalidValue, StartFailed, StepError

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "store"))

from layer_archives import archive, directory, docker_archive, file

LAYERS = "localhost/layers:test"
MAP = ["0:100000:65536"]
SLEEP = ["sleep", "1000"]


@pytest.fixture
def layers(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """An image of two layers: the upper one deletes, makes a directory opaque, and has files of all kinds of owners."""
    helper = build_helper().read_bytes()
    upper = archive(
        file("bin/.wh.vi"),
        directory("home"), file("home/.wh..wh..opq"), file("home/new", b"new"),
        file("bin/helper", helper, mode=0o755),
        file("bin/as-root", helper, mode=0o4755),
        file("bin/as-ann", helper, mode=0o4755, uid=1000, gid=1000),
        file("srv/of-ann", b"hers", mode=0o600, uid=1000, gid=1000),
        file("srv/of-root", b"his", mode=0o600),
        file("srv/of-nobody-mapped", b"x", mode=0o600, uid=70000, gid=70000),
    )  # fmt: skip
    (tmp_path / "image.tar").write_bytes(docker_archive([([LAYERS], [root_tar(), upper])]))
    engine.images.load(str(tmp_path / "image.tar"))
    yield LAYERS
    for container in engine.containers.list(all=True):
        container.remove(force=True)
    engine.images.remove(LAYERS)


def started(engine: Engine, image: str = IMAGE, command: list[str] = SLEEP, **options: object) -> Container:
    box = engine.containers.create(image, command, **options)
    box.start()
    return box


def run(box: Container, script: str, **options: object) -> str:
    """What a shell in a running container wrote; it has to succeed, and may not complain."""
    result = box.exec(["sh", "-c", script], **options)
    assert (result.exit_code, result.stderr) == (0, b""), result
    return result.stdout.decode().removesuffix("\n")


# --- ids


def test_the_maps_are_those_that_were_asked_for(engine: Engine) -> None:
    maps = {"uidmap": ["0:100000:1000", "1000:5000:1"], "gidmap": ["0:200000:10"]}
    found = out(engine, "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g", **maps)
    assert [line.split() for line in found.splitlines()] == [
        ["0", "100000", "1000"], ["1000", "5000", "1"], ["0", "200000", "10"], ["0"], ["0"],
    ]  # fmt: skip


def test_owners_inside_are_those_of_the_image(engine: Engine, layers: str) -> None:
    found = engine.containers.run(layers, ["sh", "-c", "stat -c '%n %u:%g' / /bin /srv/*"], uidmap=MAP).stdout.decode()
    assert found.splitlines() == [
        "/ 0:0", "/bin 0:0", "/srv/of-ann 1000:1000", "/srv/of-nobody-mapped 65534:65534", "/srv/of-root 0:0",
    ]  # fmt: skip


def test_a_file_is_of_the_same_id_inside_and_on_the_disk_and_of_the_mapped_one_for_the_host(engine: Engine) -> None:
    box = started(engine, uidmap=MAP)
    run(box, "touch /made; mkdir /tmp/d; touch /tmp/d/anns; chown -R ann:ann /tmp/d")
    run(box, "echo more >> /etc/passwd")  # copied up from the layer
    upper = f"{engine.layout.container(box.id)}/upper"
    root = f"/proc/{box.state().pid}/root"

    def owner(path: str) -> tuple[int, int]:
        status = os.stat(path)
        return status.st_uid, status.st_gid

    for path, id in (("", 0), ("/made", 0), ("/tmp/d", 1000), ("/tmp/d/anns", 1000), ("/etc/passwd", 0)):
        assert owner(upper + path) == (id, id), path
        assert owner(root + path) == (100000 + id, 100000 + id), path
    assert owner(f"/proc/{box.state().pid}") == (100000, 100000)
    # the layers stay as they are: another container of the image has them with ids of its own
    assert out(engine, "tail -n1 /etc/passwd; stat -c %u /etc/passwd; test ! -e /made") == (
        "ann:x:1000:1000::/home/ann:/bin/sh\n0"
    )


def test_two_containers_of_an_image_have_ids_of_their_own(engine: Engine) -> None:
    first = started(engine, uidmap=MAP)
    second = started(engine, uidmap=["0:300000:65536"])
    for box, start in ((first, 100000), (second, 300000)):
        assert run(box, "stat -c %u:%g /bin/busybox; stat -c %u /home/ann") == "0:0\n1000"
        status = os.stat(f"/proc/{box.state().pid}/root/bin/busybox")
        assert (status.st_uid, status.st_gid) == (start, start)
    spaces = {os.readlink(f"/proc/{box.state().pid}/ns/user") for box in (first, second)}
    assert len(spaces | {os.readlink("/proc/self/ns/user")}) == 3


def test_users_of_the_image_are_users_of_the_host_in_the_map(engine: Engine) -> None:
    box = started(engine, uidmap=MAP, user="ann")
    with open(f"/proc/{box.state().pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    assert fields["Uid"].split() == ["101000"] * 4
    assert fields["Groups"].split() == ["100029"]
    assert run(box, "id -u; id -G") == "1000\n1000 29"


def test_a_user_without_a_line_gets_one(engine: Engine) -> None:
    line, uid = out(engine, "tail -n1 /etc/passwd; id -u", uidmap=MAP, user="77:78").splitlines()
    assert (line.split(":")[2:], uid) == (["77", "78", "container user", "/", "/bin/sh"], "77")


def test_a_user_that_is_not_mapped_is_an_error(engine: Engine) -> None:
    with pytest.raises(StepError, match="the id is not mapped into the user namespace"):
        sh(engine, "true", uidmap=["0:100000:10"], user="77")


# --- layers


def test_deleted_files_stay_deleted(engine: Engine, layers: str) -> None:
    script = "ls /home; test -e /bin/vi || echo gone; cat /srv/of-ann; rm -r /home /bin/sort; mkdir /home; ls -a /home"
    result = engine.containers.run(layers, ["sh", "-c", script], uidmap=MAP)
    assert (result.stdout, result.stderr) == (b"new\ngone\nhers.\n..\n", b"")


def test_what_is_deleted_in_one_run_is_so_in_the_next(engine: Engine, layers: str) -> None:
    script = "ls /home; test -e /bin/sort && rm -r /bin/sort /home && mkdir /home"
    box = engine.containers.create(layers, ["sh", "-c", script], uidmap=MAP)
    for _ in range(2):
        box.start()
        box.wait()
    assert [line.text for line in box.logs()] == [b"new"]
    # on the disk these are the marks of overlayfs for layers of root
    upper = f"{engine.layout.container(box.id)}/upper"
    assert os.stat(f"{upper}/bin/sort", follow_symlinks=False).st_rdev == 0
    assert os.getxattr(f"{upper}/home", "trusted.overlay.opaque") == b"y"


def test_many_layers(engine: Engine, tmp_path: Path) -> None:
    stack = [root_tar(), *(archive(file(f"layers/{n}", str(n).encode())) for n in range(60))]
    (tmp_path / "image.tar").write_bytes(docker_archive([(["localhost/many:test"], stack)]))
    engine.images.load(str(tmp_path / "image.tar"))
    try:
        script = "cat /layers/0 /layers/59; ls /layers | wc -l"
        result = engine.containers.run("localhost/many:test", ["sh", "-c", script], uidmap=MAP)
        assert (result.stdout, result.stderr) == (b"05960\n", b"")
    finally:
        engine.images.remove("localhost/many:test")


# --- rights


def test_root_has_capabilities_inside_only(engine: Engine) -> None:
    script = "grep CapEff /proc/self/status; hostname other && hostname; mount -t tmpfs x /tmp && echo mounted"
    found = out(engine, script, uidmap=MAP, privileged=True)
    effective, *rest = found.splitlines()
    assert int(effective.split()[1], 16) & (1 << 21)  # CAP_SYS_ADMIN
    assert rest == ["other", "mounted"]
    for forbidden in (
        "mknod /tmp/null c 1 3",
        "echo 1 > /dev/kmsg",
        "cat /proc/sys/vm/swappiness | tee /proc/sys/vm/swappiness",
    ):
        assert sh(engine, forbidden, uidmap=MAP, privileged=True).exit_code != 0, forbidden


def test_set_user_id_works_inside(engine: Engine, layers: str) -> None:
    script = "for program in as-root as-ann helper; do $program id | grep Uid; done"
    result = engine.containers.run(layers, ["sh", "-c", script], uidmap=MAP, user="77")
    assert [line.split()[1:3] for line in result.stdout.decode().splitlines()] == [
        ["77", "0"], ["77", "1000"], ["77", "77"],
    ]  # fmt: skip


def test_files_of_others_of_the_host_are_out_of_reach(engine: Engine, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "seen").write_text("y")
    (tmp_path / "seen").chmod(0o644)
    (tmp_path / "given").write_text("z")
    os.chown(tmp_path / "given", 100000, 100000)
    options = {"uidmap": MAP, "volume": [f"{tmp_path}:/data"]}
    assert (
        out(engine, "stat -c %u /data /data/*; cat /data/seen /data/given", **options) == "65534\n0\n65534\n65534\nyz"
    )
    for script in ("cat /data/secret", "echo > /data/seen", "chown 0 /data/seen", "touch /data/new"):
        assert sh(engine, script, **options).exit_code != 0, script
    assert out(engine, "echo more >> /data/given; chmod 600 /data/given", **options) == ""
    assert (tmp_path / "given").read_text() == "zmore\n"


def test_a_bind_of_the_host_shows_the_store_as_it_is(engine: Engine) -> None:
    """The store with the ids of a container is mounted where it is opened, and nowhere else."""
    store = os.path.realpath(engine.root)
    options = {"uidmap": MAP, "volume": [f"{os.path.dirname(store)}:/outside:ro"]}
    for place in (store, os.path.dirname(store)):
        os.chmod(place, 0o711)
    try:
        script = f"stat -c %u /outside/{os.path.basename(store)}/targets; grep -c /outside /proc/mounts"
        found = out(engine, script, **options)
    finally:
        for place in (store, os.path.dirname(store)):
            os.chmod(place, 0o700)
    assert found == "65534\n1"


def test_a_source_in_a_closed_directory_can_be_bound(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "closed" / "data").mkdir(parents=True)
    (tmp_path / "closed" / "data" / "file").write_text("found")
    (tmp_path / "closed").chmod(0o700)
    options = {"uidmap": MAP, "volume": [f"{tmp_path}/closed/data:/data:ro", f"{tmp_path}/closed/data/file:/file"]}
    assert (
        out(engine, "cat /data/file /file; grep -E ' /(data|file) ' /proc/mounts | wc -l", **options) == "foundfound2"
    )
    assert sh(engine, "touch /data/new", **options).exit_code != 0


def test_the_files_of_the_engine_are_those_of_root(engine: Engine) -> None:
    script = "stat -c %u:%g /etc/hostname /run/.containerenv; echo other > /etc/hostname; cat /etc/hostname"
    assert out(engine, script, uidmap=MAP) == "0:0\n0:0\nother"


def test_nothing_that_was_opened_stays_open(engine: Engine, layers: str) -> None:
    result = engine.containers.run(layers, ["helper", "ls-fd"], uidmap=MAP, user="77", device=["/dev/null:/dev/x"])
    assert [line.split()[0] for line in result.stdout.decode().splitlines()] == ["0", "1", "2"], result
    box = started(engine, layers, uidmap=MAP)
    found = box.exec(["helper", "ls-fd"]).stdout.decode()
    assert [line.split()[0] for line in found.splitlines()] == ["0", "1", "2"], found


def test_a_terminal(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "tty; stat -c %u $(tty); stat -c %t:%T /dev/console"],
                                   tty=True, uidmap=MAP)  # fmt: skip
    box.start()
    assert box.wait() == 0
    assert [line.text.strip() for line in box.logs()][:2] == [b"/dev/pts/0", b"0"]


def test_read_only(engine: Engine) -> None:
    script = "touch /x 2> /dev/null || echo refused; touch /tmp/x /run/x && echo written"
    assert out(engine, script, uidmap=MAP, read_only=True) == "refused\nwritten"


@pytest.mark.parametrize(
    "options", [{"network": "host"}, {"pid": "host"}, {"ipc": "host"}, {"uts": "host"}, {"cgroupns": "host"}]
)
def test_other_namespaces_of_the_host(engine: Engine, options: dict[str, str]) -> None:
    assert out(engine, "id -u; ls /proc/self /sys /dev > /dev/null", uidmap=MAP, **options) == "0"


# --- exec


def test_exec_is_in_the_namespace(engine: Engine) -> None:
    box = started(engine, uidmap=MAP)
    assert run(box, "id -u; cat /proc/self/uid_map; touch /by-exec; stat -c %u /by-exec").split() == [
        "0", "0", "100000", "65536", "0",
    ]  # fmt: skip
    assert run(box, "id -u", user="ann") == "1000"
    plain, privileged = (
        run(box, "grep CapEff /proc/self/status", privileged=flag).split()[1] for flag in (False, True)
    )
    assert int(privileged, 16) & ~int(plain, 16) & (1 << 21)


def test_exec_in_the_cgroup_namespace_of_the_host(engine: Engine) -> None:
    """The root of a user namespace may not put anything into a group of root: it has to be made in there."""
    box = started(engine, uidmap=MAP, cgroupns="host")
    group = run(box, "cat /proc/self/cgroup")
    assert box.id in group
    assert "exec" in group


# --- joining


def test_a_container_joins_the_user_namespace_of_another(engine: Engine) -> None:
    first = started(engine, uidmap=MAP)
    second = started(engine, userns=f"container:{first.name}")
    spaces = {os.readlink(f"/proc/{box.state().pid}/ns/user") for box in (first, second)}
    assert len(spaces) == 1
    run(second, "touch /made")
    assert os.stat(f"{engine.layout.container(second.id)}/upper/made").st_uid == 0
    assert os.stat(f"/proc/{second.state().pid}/root/made").st_uid == 100000
    assert run(second, "stat -c %u:%g /etc/hostname") == "0:0"


def test_all_namespaces_of_another_container(engine: Engine) -> None:
    first = started(engine, uidmap=MAP)
    of = f"container:{first.name}"
    second = started(engine, userns=of, network=of, pid=of, ipc=of)
    for kind in ("user", "net", "pid", "ipc"):
        assert len({os.readlink(f"/proc/{box.state().pid}/ns/{kind}") for box in (first, second)}) == 1, kind
    assert run(second, "id -u; ls /sys/class/net") == "0\nlo"


def test_the_namespace_of_a_path(engine: Engine, tmp_path: Path) -> None:
    first = started(engine, uidmap=["0:100000:1000"], gidmap=["0:200000:1000"])
    path = f"/proc/{first.state().pid}/ns/user"
    box = started(engine, userns=f"ns:{path}")
    assert run(box, "cat /proc/self/uid_map; cat /proc/self/gid_map").split() == [
        "0",
        "100000",
        "1000",
        "0",
        "200000",
        "1000",
    ]
    run(box, "touch /made")
    made = os.stat(f"{engine.layout.container(box.id)}/upper/made")
    assert (made.st_uid, made.st_gid) == (0, 0)
    seen = os.stat(f"/proc/{box.state().pid}/root/made")
    assert (seen.st_uid, seen.st_gid) == (100000, 200000)


def test_the_namespace_of_the_host_is_not_joined(engine: Engine) -> None:
    with pytest.raises(InvalidValue, match="the user namespace that it is to join is the host's"):
        sh(engine, "true", userns="ns:/proc/self/ns/user")
    plain = started(engine)
    with pytest.raises(InvalidValue, match="the user namespace that it is to join is the host's"):
        sh(engine, "true", userns=f"container:{plain.name}")


def test_the_container_has_to_run(engine: Engine) -> None:
    first = engine.containers.create(IMAGE, SLEEP, uidmap=MAP)
    second = engine.containers.create(IMAGE, SLEEP, userns=f"container:{first.name}")
    with pytest.raises(InvalidState, match="it shares the user namespace of container"):
        second.start()


# --- a root file system of the host


def test_a_root_file_system_is_taken_as_it_is(engine: Engine, tmp_path: Path) -> None:
    """No layers, so nothing is mapped: its files belong to the ids of the host that the maps name."""
    root = tmp_path / "closed" / "root"
    root.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    subprocess.run(["tar", "x", "-C", root], input=root_tar(), check=True)
    subprocess.run(["chown", "-hR", "100000:100000", root], check=True)
    result = engine.containers.run(
        rootfs=str(root), command=["sh", "-c", "id -u; stat -c %u /bin; touch /x"], uidmap=MAP
    )
    assert (result.stdout, result.stderr) == (b"0\n0\n", b"")
    assert os.stat(root / "x").st_uid == 100000


# --- ends


def test_restart_policies_hold(engine: Engine) -> None:
    script = "echo >> /count; cat /proc/self/uid_map; test $(wc -l < /count) = 3"
    box = engine.containers.create(IMAGE, ["sh", "-c", script], uidmap=MAP, restart="on-failure:5")
    box.start()
    assert box.wait() == 0
    assert [line.text.split() for line in box.logs()] == [[b"0", b"100000", b"65536"]] * 3


def test_stop_and_start(engine: Engine) -> None:
    box = started(engine, uidmap=MAP)
    run(box, "echo kept > /file")
    box.stop(timeout=0)
    box.start()
    found = run(box, "cat /file; stat -c %u /file; cat /proc/self/uid_map").split()
    assert found == ["kept", "0", "0", "100000", "65536"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"command": ["/missing"]}, StartFailed, "execute /missing"),
        ({"volume": ["/missing:/x"]}, StepError, "bind /missing on /x: No such file or directory (step"),
        ({"user": "nobody-there"}, StartFailed, "no such user in the container's /etc/passwd"),
        ({"uidmap": ["0:100000:1"], "user": "5"}, StepError, "not mapped into the user namespace"),
        ({"volume": ["/tmp:/etc/passwd"]}, StepError, "bind /tmp on /etc/passwd"),
    ],
)
def test_a_start_that_fails_says_why_and_leaves_nothing(
    engine: Engine, options: dict[str, object], error: type[Exception], text: str
) -> None:
    arguments: dict[str, object] = {"uidmap": MAP, "command": ["true"], **options}
    with pytest.raises(error) as caught:
        engine.containers.run(IMAGE, **arguments)
    assert text in str(caught.value)
    assert left_over(engine) == []


def test_explain_and_inspect_know_the_namespace(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, SLEEP, uidmap=MAP)
    text = str(box.explain())
    assert f"open the sources of mounts outside of the user namespace, files of {engine.root} with its ids" in text
    assert "join the user namespace of the container" in text


def test_a_file_system_without_id_maps_is_named(engine: Engine, tmp_path: Path) -> None:
    """ramfs cannot be mounted with other ids, and cannot hold a writable layer either: but that comes later."""
    place = tmp_path / "ramfs"
    place.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", place], check=True)
    try:
        with Engine(root=f"{place}/root", run_root=f"{tmp_path}/run") as other:
            import_image(other)
            with pytest.raises(CannotEnforce, match="cannot be mounted with the ids of a user namespace"):
                sh(other, "true", uidmap=MAP)
            assert left_over(other) == []
            other.reset()
    finally:
        subprocess.run(["umount", place], check=True)
