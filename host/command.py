"""Running programs on a host: argument lists, never a shell."""

import os
import pwd
import subprocess
from typing import IO, Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Union

from host.errors import HostError

LAST_LINES = 12
"""How many lines of a failed program's output an error quotes."""


class Completed(NamedTuple):
    """A program that has ended; code is negative if a signal ended it."""

    code: int
    stdout: str
    stderr: str


class Program(NamedTuple):
    """A command line, and the user of this host who runs it; None for root."""

    argv: List[str]
    user: Optional[str] = None


def environment(extra: Optional[Dict[str, str]] = None) -> Dict[bytes, bytes]:
    """This process's environment with English messages, as bytes (see `encode`)."""
    merged = dict(os.environ)
    merged["LC_ALL"] = "C"
    merged.update(extra or {})
    return {encode(name): encode(value) for name, value in merged.items()}


def encode(text: str) -> bytes:
    """UTF-8, whatever the locale: under LC_ALL=C Python 3.6 refuses other than ASCII arguments."""
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    """The counterpart of `encode`; bytes that are no UTF-8 survive a round trip."""
    return data.decode("utf-8", "surrogateescape")


def run(
    argv: Sequence[str],
    user: Optional[str] = None,
    stdin: Union[str, int, IO[bytes], None] = None,
    extra_environment: Optional[Dict[str, str]] = None,
    directory: Optional[str] = None,
    timeout_seconds: Optional[float] = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return its output.

    stdin: text to send, an open file or its descriptor, or None for nothing.
    Raises HostError if the program is missing, takes longer than `timeout_seconds`, or – with
    `check` – ends with another code than 0; the message has its last lines.
    """
    process = start(
        Program(list(argv), user),
        stdin=_source(stdin),
        stdout=subprocess.PIPE,
        extra_environment=extra_environment,
        directory=directory,
    )
    sent = encode(stdin) if isinstance(stdin, str) else None
    try:
        stdout, stderr = process.communicate(sent, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        end(process)
        raise HostError(
            "%s did not finish within %d seconds" % (argv[0], timeout_seconds or 0)
        ) from None
    completed = Completed(process.returncode, decode(stdout), decode(stderr))
    if check and completed.code != 0:
        raise failed(argv, completed.code, completed.stderr or completed.stdout)
    return completed


def _source(stdin: Union[str, int, IO[bytes], None]) -> Any:
    if isinstance(stdin, str):
        return subprocess.PIPE
    return subprocess.DEVNULL if stdin is None else stdin


def start(
    program: Program,
    stdin: Any = subprocess.DEVNULL,
    stdout: Any = subprocess.PIPE,
    extra_environment: Optional[Dict[str, str]] = None,
    directory: Optional[str] = None,
    stderr: Any = subprocess.PIPE,
) -> "subprocess.Popen[bytes]":
    """Start a program; raises HostError if it is missing.

    It stays in the agent's process group, so that what ends the agent ends it too.
    """
    added = dict(extra_environment or {})
    become = _become(program.user, added) if program.user else None
    try:
        return subprocess.Popen(
            [encode(argument) for argument in program.argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment(added),
            cwd=directory,
            preexec_fn=become,
        )
    except FileNotFoundError:
        raise HostError(
            "the program %s is missing on this host" % program.argv[0],
            "install %s" % program.argv[0],
        ) from None


def _become(user: str, added: Dict[str, str]) -> Callable[[], None]:
    """What turns a new process into another user's, before it starts its program.

    Not runuser or su: they stay in between, log a session for each program, and wait two
    seconds before they end one (util-linux, su-common.c).
    """
    entry = pwd.getpwnam(user)
    groups = os.getgrouplist(user, entry.pw_gid)
    added.update(HOME=entry.pw_dir, USER=user, LOGNAME=user)

    def become() -> None:  # only system calls: it runs between fork and exec
        os.setgroups(groups)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)

    return become


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a program that `start` started: politely, after five seconds for certain."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def failed(argv: Sequence[str], code: int, output: str, hint: str = "") -> HostError:
    """The error for a program that ended with `code`, quoting its last lines."""
    how = "was killed by signal %d" % -code if code < 0 else "failed with exit code %d" % code
    lines = last_lines(output)
    return HostError("%s %s%s" % (argv[0], how, ": " + lines if lines else ""), hint)


def last_lines(output: str) -> str:
    """The end of a program's output, cut to what an error message can carry."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    return "\n".join(line[:500] for line in lines[-LAST_LINES:])


def find(name: str) -> Optional[str]:
    """Where a program is, or None; looks in the system's folders too if PATH lacks them."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    for folder in [*folders, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin"]:
        path = os.path.join(folder, name)
        if folder and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None
