"""Why each step of a plan is there, in a sentence, and the manual page that says more."""

from __future__ import annotations

from typing import NamedTuple

from pyengine.runtime import plan
from pyengine.runtime.compile_devices import DEFAULT_DEVICES


class Reason(NamedTuple):
    """``text`` is a sentence or two; ``manual`` what to read next."""

    text: str
    manual: str


REASONS: dict[type[plan.Step], Reason] = {
    plan.JoinNamespace: Reason(
        "It is there already, and others live in it. Joining comes first: it gives the rights for what follows.",
        "setns(2)",
    ),
    plan.OpenSources: Reason(
        "Root of the container is nobody on the host: neither the store nor what is bound is in his reach. What is to "
        "be mounted is opened before, and the store with his ids, so that id 0 in an image is he.",
        "mount_setattr(2), user_namespaces(7)",
    ),
    plan.UnshareCgroup: Reason(
        "From here on the container's own group looks like the top of the hierarchy.", "cgroup_namespaces(7)"
    ),
    plan.Loopback: Reason(
        "A new network namespace has this one interface, and it is down.", "network_namespaces(7), netdevice(7)"
    ),
    plan.SetHostname: Reason("The name belongs to the UTS namespace: the host keeps its own.", "uts_namespaces(7)"),
    plan.SetDomainname: Reason("The NIS domain name, which belongs to the same namespace.", "setdomainname(2)"),
    plan.Propagation: Reason(
        "The mount table is a copy of the host's. What is mounted from here on stays in the copy; what the host mounts "
        "later below a shared place still arrives.",
        "mount_namespaces(7)",
    ),
    plan.Overlay: Reason(
        "One tree out of many directories. The layers are shared by all containers of the image and never change; "
        "what the container writes goes into a directory of its own.",
        "Documentation/filesystems/overlayfs.rst",
    ),
    plan.BindRoot: Reason("A root has to be a mount of its own before it can be pivoted into.", "pivot_root(2)"),
    plan.Mount: Reason("A new instance of a file system, for this container only.", "fsopen(2), mount(2)"),
    plan.Bind: Reason(
        "The same files at a second place. What is forbidden there (writing, devices, set-user-ID) is forbidden for "
        "that place only.",
        "open_tree(2), mount_setattr(2)",
    ),
    plan.MakeDirectory: Reason(
        "The working directory has to exist. It is made below the root, wherever links in the image point.",
        "openat2(2)",
    ),
    plan.Symlink: Reason("Names that programs expect; they lead into /proc or /dev/pts.", "proc(5), pts(4)"),
    plan.Device: Reason("A device of the host that was asked for, as a node of the container's own.", "mknod(2)"),
    plan.Sysctl: Reason("A kernel parameter that belongs to one of the container's namespaces.", "namespaces(7)"),
    plan.MaskPath: Reason(
        "What the kernel tells there is about the whole machine. The path is covered: a file by /dev/null, a directory "
        "by an empty one.",
        "mount(2)",
    ),
    plan.ReadonlyPath: Reason("Settings of the whole kernel: to be read, not to be changed.", "mount_setattr(2)"),
    plan.LookupUser: Reason(
        "Names of users are the image's, and so are these files: only regular ones are read, at most a mebibyte, and "
        "no link leads out of the root.",
        "passwd(5), group(5), openat2(2)",
    ),
    plan.ReadonlyRoot: Reason(
        "All places to mount on exist now. From here on only what is mounted below can be written.", "mount_setattr(2)"
    ),
    plan.PivotRoot: Reason(
        "The new root becomes /, and the old one is detached: no path leads to the host's files any more. "
        "(chroot(2) would leave them reachable.)",
        "pivot_root(2)",
    ),
    plan.Rlimit: Reason(
        "Limits of each process, which children inherit. Set while they may still be raised.", "setrlimit(2)"
    ),
    plan.OomScore: Reason("Says whom the kernel kills first when memory runs out.", "proc(5), oom_score_adj"),
    plan.NewSession: Reason(
        "No controlling terminal is inherited: a process could push input into the shell of whoever started it.",
        "setsid(2), credentials(7)",
    ),
    plan.Terminal: Reason(
        "A pair from the container's own /dev/pts. The monitor keeps the master end; the slave is stdin, stdout and "
        "stderr.",
        "pty(7)",
    ),
    plan.Chdir: Reason(
        "Root may still enter every directory. Afterwards it is checked that the place lies below the root: a leaked "
        "descriptor would lead outside (CVE-2024-21626).",
        "chdir(2), getcwd(3)",
    ),
    plan.Seccomp: Reason(
        "From here on each system call passes this filter, in every process to come, and nothing takes it off.",
        "seccomp(2)",
    ),
    plan.User: Reason(
        "User, group and supplementary groups, all of them: one that is left over is a right that is left over.",
        "setresuid(2), setgroups(2)",
    ),
    plan.Capabilities: Reason(
        "Root's power in pieces. The bounding set is the ceiling for whatever is executed later, set-user-ID or not.",
        "capabilities(7)",
    ),
    plan.NoNewPrivileges: Reason(
        "Set-user-ID bits and file capabilities give nothing any more.", "prctl(2), PR_SET_NO_NEW_PRIVS"
    ),
    plan.AwaitStart: Reason(
        "The container is created, its command is not started: whatever can fail has failed before this.",
        "docs/monitor.md",
    ),
    plan.Exec: Reason(
        "The set-up code is replaced by the container's program. Every descriptor that was not meant for it is closed.",
        "execve(2), close_range(2)",
    ),
}

_FILE_SYSTEMS = {
    "proc": Reason(
        "Shows the processes of the container's PID namespace, and no others.", "proc(5), pid_namespaces(7)"
    ),
    "tmpfs": Reason("Files in memory, which are gone when the container ends.", "tmpfs(5)"),
    "devpts": Reason("Pseudo terminals of its own: those of the host cannot be named.", "pts(4)"),
    "mqueue": Reason("POSIX message queues of the container's IPC namespace.", "mq_overview(7)"),
    "sysfs": Reason("Devices as the kernel sees them, and the interfaces of its network namespace.", "sysfs(5)"),
    "cgroup": Reason("Limits and counters, from the container's own group downwards.", "cgroups(7)"),
    "cgroup2": Reason("Limits and counters, from the container's own group downwards.", "cgroups(7)"),
}
_OWN_DEV = Reason("A /dev of its own: only what is put there exists.", "tmpfs(5)")
_DEFAULT_DEVICE = Reason("Programs rely on these nodes. None of them reaches hardware.", "null(4), random(4), mknod(2)")
_HOST_DEVICE = Reason(
    "A node of the host: nobody can make one in a user namespace, and the host's permissions guard it.",
    "mknod(2), user_namespaces(7)",
)
_MADE_FILE = Reason("A file that the engine writes for each start, outside of the image.", "hosts(5), resolv.conf(5)")
_MADE_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv")
_DEFAULT_PATHS = frozenset(device.path for device in DEFAULT_DEVICES)


def reason_of(step: plan.Step) -> Reason:
    """Why this step is in a plan."""
    if isinstance(step, plan.Mount):
        if (step.fstype, step.target) == ("tmpfs", "/dev"):
            return _OWN_DEV
        return _FILE_SYSTEMS.get(step.fstype, REASONS[plan.Mount])
    if isinstance(step, plan.Device) and step.path in _DEFAULT_PATHS:
        return _DEFAULT_DEVICE
    if isinstance(step, plan.Bind):
        if step.target in _MADE_FILES:
            return _MADE_FILE
        if step.source.startswith("/dev/") and step.source.count("/") == step.target.count("/"):
            return _HOST_DEVICE
    return REASONS[type(step)]
