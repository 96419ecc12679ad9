"""Landlock's domains, judged by the kernel: around a whole sandbox, or around the command in it."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sandboxes import LIMITS, USER, Workshop, needs_bubblewrap, open_folder, workshop

from lender.sandbox.plan import TaskOutcome
from lender.sandbox.walls import bubblewrap, confine, enter, landlock

__all__ = ["open_folder", "workshop"]  # fixtures
PROGRAM = Path(enter.__file__).with_name("enter")
needs_scopes = pytest.mark.skipif(
    landlock.abi() < 6, reason=f"Landlock of this kernel is of ABI {landlock.abi()}, not 6"
)
needs_file_rules = pytest.mark.skipif(
    landlock.abi() < 2, reason=f"Landlock of this kernel is of ABI {landlock.abi()}, not 2"
)
needs_enter = pytest.mark.skipif(not PROGRAM.exists(), reason="the walls are not built: make walls")


def inside(do: Callable[[], object]) -> subprocess.CompletedProcess[bytes]:
    """Do something in a fork in the domain; 0 when it went well, else the error's number."""
    domain = landlock.scoped()
    assert domain is not None
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            confine.never_gain_privileges()
            landlock.restrict(domain)
            do()
            status = 0
        except OSError as error:
            status = error.errno or 254
        finally:
            os._exit(status)
    os.close(domain)
    _, status = os.waitpid(pid, 0)
    return subprocess.CompletedProcess([], os.waitstatus_to_exitcode(status))


@pytest.fixture
def abstract_name() -> Iterator[str]:
    """The name of an abstract socket that listens outside."""
    with socket.socket(socket.AF_UNIX) as listener:
        name = f"\0lender-{os.urandom(8).hex()}"
        listener.bind(name)
        listener.listen()
        yield name


def connect(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(name)


@needs_scopes
def test_no_signal_leaves_the_domain() -> None:
    outside = subprocess.Popen(["sleep", "60"])
    try:
        assert inside(lambda: os.kill(outside.pid, 0)).returncode == 1, "EPERM"
        assert inside(lambda: os.kill(os.getppid(), 0)).returncode == 1, "EPERM"
        assert inside(lambda: os.kill(os.getpid(), 0)).returncode == 0
        assert inside(own_child).returncode == 0
    finally:
        outside.kill()
        outside.wait()


def own_child() -> None:
    child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@needs_scopes
def test_no_abstract_socket_outside_is_reached(abstract_name: str) -> None:
    assert inside(lambda: connect(abstract_name)).returncode == 1, "EPERM"

    def among_themselves() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0lender-{os.urandom(8).hex()}")
            listener.listen()
            connect(listener.getsockname().decode())

    assert inside(among_themselves).returncode == 0


@needs_scopes
def test_signals_from_outside_reach_in() -> None:
    domain = landlock.scoped()
    assert domain is not None
    pid = os.fork()
    if pid == 0:
        confine.never_gain_privileges()
        landlock.restrict(domain)
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60)
        os._exit(1)
    os.close(domain)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


@needs_scopes
@needs_bubblewrap
@pytest.mark.parametrize("scoped", [True, False])
def test_bubblewrap_stands_in_it_and_it_holds_without_a_namespace(
    abstract_name: str, *, scoped: bool
) -> None:
    """In the host's network namespace its abstract sockets are seen, but for the domain."""
    bwrap, domain = bubblewrap.find(), landlock.scoped()
    assert bwrap is not None
    assert domain is not None
    code = (
        "import socket, sys\n"
        "try: socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[1]); print('reached')\n"
        "except PermissionError: print('refused')"
    )

    def restrict() -> None:
        if USER is not None:
            confine.become(*USER)
        confine.never_gain_privileges()
        if scoped:
            landlock.restrict(domain)

    words = [bwrap, "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc"]
    words += ["--tmpfs", "/tmp", "--die-with-parent", "--cap-drop", "ALL", "/usr/bin/python3"]
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no python3 in /usr/bin")
    done = subprocess.run(
        [*words, "-I", "-S", "-c", code, abstract_name[1:]],
        preexec_fn=restrict,
        capture_output=True,
        check=False,
        env={},
    )
    os.close(domain)
    assert done.stdout.decode().split() == ["refused" if scoped else "reached"], done.stderr


async def shell(workshop: Workshop, script: str) -> TaskOutcome:
    sandbox = await workshop.prepared("process", script)
    return await sandbox.run(0)


def entered(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, check=False, input=stdin
    )


LIBRARIES = ("-x", "/usr", "-x", "/lib", "-x", "/lib64", "-r", "/etc/ld.so.cache")


@needs_file_rules
@needs_enter
@pytest.mark.parametrize(
    ("rule", "script", "works"),
    [
        ("-n", "ls .", True),
        ("-n", "cat here", False),
        ("-r", "cat here; ls .", True),
        ("-r", "echo > here", False),
        ("-r", ": > new", False),
        ("-r", "./run", False),
        ("-r", "rm here", False),
        ("-x", "./run", True),
        ("-x", "echo > here", False),
        ("-w", "./run; echo > here; mkdir d; mv here d/there; ln -s a b; rm -r d b", True),
        ("-w", "mkfifo f; truncate -s 3 here", True),
        ("-d", "echo > here; cat here", True),
        ("-d", "rm here", False),
        ("-d", ": > new", False),
        (None, "ls .", False),
        (None, "cat here", False),
    ],
)
def test_what_a_rule_allows(tmp_path: Path, rule: str | None, script: str, *, works: bool) -> None:
    (tmp_path / "here").write_text("content")
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o755)
    rules = () if rule is None else (rule, str(tmp_path))
    script = f"set -e; cd {tmp_path}; {script}"
    done = entered(*LIBRARIES, *rules, "--", "/bin/sh", "-c", script)
    assert (done.returncode == 0) == works, done
    assert works or "denied" in done.stderr, done


@needs_file_rules
@needs_enter
def test_a_file_elsewhere_is_out_of_reach_even_by_a_descriptor(tmp_path: Path) -> None:
    """Whatever leads to the machine's own files: the rules know what they are, not their names."""
    secret = tmp_path / "secret"
    secret.write_text("owner's")
    with secret.open() as file:
        done = subprocess.run(
            [PROGRAM, *LIBRARIES, "-r", "/proc", "--", "cat", f"/dev/fd/{file.fileno()}"],
            capture_output=True,
            text=True,
            check=False,
            pass_fds=[file.fileno()],
        )
    assert (done.returncode, done.stdout) == (1, ""), done


@needs_scopes
@needs_enter
def test_nothing_leads_out_of_the_commands_domain(abstract_name: str) -> None:
    code = (
        "import os, socket, sys\n"
        "for call in (lambda: os.kill(int(sys.argv[1]), 0), lambda: os.kill(os.getpid(), 0),\n"
        "             lambda: socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[2])):\n"
        "  try: call(); print('done')\n"
        "  except PermissionError: print('refused')"
    )
    python = (sys.executable, "-I", "-S", "-c", code, str(os.getpid()), abstract_name[1:])
    assert entered("-x", "/", "--", *python).stdout.split() == ["refused", "done", "refused"]


@needs_file_rules
@needs_enter
def test_limits_and_the_command_are_set(tmp_path: Path) -> None:
    script = tmp_path / "none"
    script.write_text("echo")
    limits = ("-l", f"{resource.RLIMIT_NOFILE}=77", "-l", f"{resource.RLIMIT_FSIZE}=4096")
    done = entered(*limits, *LIBRARIES, "--", "sh", "-c", "ulimit -n; ulimit -f; ulimit -Hn")
    assert done.stdout.split() == ["77", "8", "77"]
    assert entered(*LIBRARIES, "--", "sh", "-c", "exit 7").returncode == 7
    missing = entered(*LIBRARIES, "--", "no-such-command")
    assert (missing.returncode, missing.stderr.split(":")[:2]) == (
        127,
        ["enter", " no-such-command"],
    )
    assert entered(*LIBRARIES, "-r", str(tmp_path), "--", str(script)).returncode == 126


@needs_enter
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--",),
        ("true",),
        ("-z", "/usr", "--", "true"),
        ("-l", "x=1", "--", "true"),
        ("-l", "7", "--", "true"),
        ("-l", "999=1", "--", "true"),
        ("-x", "/usr", "--"),
        ("-x",),
        ("-r", "/etc/passwd/x", "--", "true"),
    ],
)
def test_what_is_no_command_line_starts_nothing(words: tuple[str, ...]) -> None:
    done = entered(*words)
    assert (done.returncode, done.stdout) == (enter.FAILED, "")
    assert done.stderr.startswith("enter: ")


@needs_file_rules
@needs_enter
async def test_a_task_keeps_to_its_files(workshop: Workshop) -> None:
    outcome = await shell(
        workshop,
        "set -e\n"
        "[ -e /dev/lender-enter ] || { echo 'not behind the rules'; exit 1; }\n"
        "mkdir a b; echo x > a/f; mv a/f b/g; ln b/g a/h; cat b/g >&2; rm -r a\n"
        "printf '#!/bin/sh\\necho run' > r; chmod +x r; ./r\n"
        "for f in /tmp /dev/shm; do echo $f > $f/x; cat $f/x; done\n"
        "cat /dev/stdin; echo > /dev/null; head -c 1 /dev/urandom > r; echo out > /dev/stdout\n"
        "ls / /usr/bin /etc > /dev/null; cat /proc/self/status > /dev/null\n"
        "(echo name > /proc/self/comm) 2> /dev/null && echo 'wrote to /proc'\n"
        "/dev/lender-enter -c 2> /dev/null && echo 'ran it again'\n"
        "echo done",
    )
    assert outcome.value.decode().split() == ["run", "/tmp", "/dev/shm", "out", "done"], outcome


@needs_bubblewrap
@pytest.mark.parametrize(
    "built", [pytest.param(True, marks=[needs_enter, needs_file_rules]), False]
)
def test_both_ways_in_set_the_same_limits(monkeypatch: pytest.MonkeyPatch, *, built: bool) -> None:
    monkeypatch.setattr(enter, "find", lambda: str(PROGRAM) if built else None)
    monkeypatch.setattr(enter, "PLACE", str(PROGRAM))
    limits = bubblewrap.resource_limits(LIMITS) | {"nproc": 4096}
    rules = [("-x", "/usr"), ("-x", "/lib"), ("-x", "/lib64"), ("-r", "/etc"), ("-r", "/proc")]
    words = enter.command(["cat", "/proc/self/limits"], limits, rules)
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    shown = {line[:25].strip(): line[25:].split()[:2] for line in done.stdout.splitlines()}
    expected = {
        "Max processes": "4096",
        "Max open files": "256",
        "Max file size": str(limits["fsize"]),
        "Max address space": str(limits["as"]),
        "Max locked memory": "0",
        "Max msgqueue size": "0",
        "Max pending signals": "128",
        "Max nice priority": "0",
        "Max realtime priority": "0",
    }
    assert {name: shown[name] for name in expected} == {n: [v, v] for n, v in expected.items()}


@needs_bubblewrap
@pytest.mark.parametrize(
    ("argv", "exit_code", "error"),
    [
        (("no-such-command",), 127, "command not found: no-such-command"),
        (("/usr",), 126, "command not executable: /usr"),
        (("/etc/ld.so.cache",), 126, "command not executable: /etc/ld.so.cache"),
        (("./none",), 127, "command not found: ./none"),
        (("sh", "-c", "exit 127"), 127, None),
        (("sh", "-c", "exit 125"), 125, None),
        (("sh", "-c", "echo 'enter: a word' >&2; exit 3"), 3, None),
    ],
)
async def test_what_cannot_be_executed_is_told_as_a_shell_would(
    workshop: Workshop, argv: tuple[str, ...], exit_code: int, error: str | None
) -> None:
    sandbox = workshop.sandbox(workshop.plan("process", "")._replace(argv=argv))
    await sandbox.prepare()
    outcome = await sandbox.run(0)
    assert (outcome.state, outcome.exit_code, outcome.error) == ("failed", exit_code, error)


def test_a_program_that_is_missing_or_does_not_hold_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getresuid", lambda: (1000, 1000, 1000))
    for program in (tmp_path / "missing", Path(shutil.which("false") or "")):
        monkeypatch.setattr(enter, "_PROGRAM", program)
        assert enter.find() is None
        assert enter.options() == []
        assert enter.command(["x"], {"core": 1})[0] == "/usr/bin/prlimit"
