"""One run: the files it needs, the processes, the end of all of them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import tty
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType

from machine import guest, initramfs, kernel, qemu, share, uml
from machine.channels import Conversation, Outcome
from machine.host import VMError, program
from machine.options import Options
from machine.probe import Choice

# in the order in which the guest numbers them
CHANNELS = ("control", "out", "err", "files")
ATTEMPTS = 2
FAILED = 125


def run(options: Options, choice: Choice) -> int:
    """Boot, run the command, and return its exit status, 124 or 125. A machine that did not boot is tried again."""
    for attempt in range(1, ATTEMPTS + 1):
        with Session(options, choice) as session:
            outcome = session.run()
        if outcome.status is not None:
            return outcome.status
        print(f"vm/run: {outcome.failure}; the console said:\n{session.console()}", file=sys.stderr)
        if outcome.started:
            break
        if attempt < ATTEMPTS:
            print("vm/run: the machine did not come up, trying again", file=sys.stderr)
    return FAILED


class Session:
    """The run directory and the processes of one machine; leaving it ends both."""

    def __init__(self, options: Options, choice: Choice) -> None:
        self._options = options
        self._choice = choice
        self._processes: list[subprocess.Popen[bytes]] = []
        self._cleanup = contextlib.ExitStack()
        self._console = ""
        self._directory = ""

    def __enter__(self) -> Session:
        self._directory = tempfile.mkdtemp(prefix="vm-run-")
        if self._options.keep:
            print(f"vm/run: the run directory is {self._directory}", file=sys.stderr)
        else:
            self._cleanup.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self._cleanup.callback(self._end_processes)
        os.mkdir(self._path("root"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError), open(self._path("console"), errors="replace") as file:
            self._console = file.read()[-4000:]
        self._cleanup.close()

    def console(self) -> str:
        """The end of what the machine wrote to its console, once the session is over."""
        return self._console.strip()

    def run(self) -> Outcome:
        """Start the machine and carry its input and output until it ends."""
        with contextlib.ExitStack() as sockets:
            ours: dict[str, socket.socket] = {}
            theirs: dict[str, socket.socket] = {}
            for name in CHANNELS:
                ours[name], theirs[name] = map(sockets.enter_context, socket.socketpair())
            machine = self._start({name: end.fileno() for name, end in theirs.items()})
            for end in theirs.values():
                end.close()
            with _raw_terminal(self._options.tty):
                return Conversation(self._options, ours, machine).carry()

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _start(self, channels: Mapping[str, int]) -> subprocess.Popen[bytes]:
        self._make_scratch()
        prefix, root = share.private_root(self._path("root"), self._options.directory)
        if self._choice.engine == "uml":
            self._make_initramfs(uml.MODULES, {"SCRATCH": "ubda", "HOST_ROOT": root})
            machine = uml.Machine(
                kernel=self._choice.kernel.image,
                initramfs=self._path("initramfs"),
                memory=self._options.memory,
                scratch=self._path("scratch"),
                run_directory=self._directory,
                channels=channels,
                tty=self._options.tty,
            )
            cpu = self._cleanup.enter_context(uml.own_cpu())
            words = [program("taskset", "util-linux"), "--cpu-list", str(cpu), *prefix, *machine.argv()]
            environment = uml.environment(self._options.memory)
            return self._spawn(words, channels.values(), self._options.tty, environment)
        self._make_initramfs(qemu.MODULES, {"SCRATCH": "vda"})
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._path("share"))
            listener.listen(1)
            self._spawn([*prefix, *qemu.virtiofsd_argv(listener.fileno(), root)], [listener.fileno()])
        emulated = self._choice.engine == "tcg"
        vm = qemu.Machine(
            accelerator=self._choice.engine,
            kernel=kernel.unpacked(self._choice.kernel.image),
            initramfs=self._path("initramfs"),
            memory=self._options.memory,
            cpus=self._options.cpus,
            scratch=self._path("scratch"),
            share=self._path("share"),
            console=self._path("console"),
            channels=channels,
            tty=self._options.tty,
            tsc_khz=qemu.tsc_khz() if emulated else 0,
        )
        return self._spawn(vm.argv(), channels.values(), self._options.tty)

    def _make_scratch(self) -> None:
        path = self._path("scratch")
        with open(path, "wb") as file:
            file.truncate(self._options.scratch)
        words = [program("mkfs.ext4", "e2fsprogs"), "-q", "-F", "-O", "^has_journal", "-m", "0"]
        words += ["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", path]
        made = subprocess.run(words, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise VMError(f"cannot make the scratch disk: {made.stderr.strip()}")

    def _make_initramfs(self, modules: tuple[str, ...], particular: dict[str, str | int]) -> None:
        engine, options = self._choice.engine, self._options
        size = shutil.get_terminal_size()
        values = guest.settings(options, engine, os.urandom(32).hex(), size.columns, size.lines)
        values |= {"MODULES": self._choice.kernel.modules, **particular}
        variables = guest.environment(options, engine, os.environ.get("TERM", "dumb") if options.tty else "dumb")
        initramfs.complete(
            initramfs.base(self._choice.kernel, modules),
            guest.configuration(values),
            guest.command(options, variables),
            self._path("initramfs"),
        )

    def _spawn(
        self,
        words: list[str],
        descriptors: Iterable[int],
        terminal: bool = False,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        # when vm/run is killed nothing of the machine stays
        words = [program("setpriv", "util-linux"), "--pdeathsig", "KILL", "--", *words]
        if self._options.verbose:
            print("vm/run:", shlex.join(words), file=sys.stderr)
        with open(self._path("console"), "ab") as console:
            process = subprocess.Popen(
                words,
                stdin=None if terminal else subprocess.DEVNULL,
                stdout=None if terminal else console,
                stderr=None if terminal else console,
                pass_fds=tuple(descriptors),
                env=environment,
                start_new_session=not terminal,
            )
        self._processes.append(process)
        return process

    def _end_processes(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                if os.getpgid(process.pid) == process.pid:
                    os.killpg(process.pid, signal.SIGKILL)  # UML's own children are in its group
                else:
                    process.kill()
            process.wait()


@contextlib.contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    if not wanted or not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
