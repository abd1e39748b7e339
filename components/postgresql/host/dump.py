"""Dumps of single databases, consistent and counted."""

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, Dict, List, NamedTuple, Optional

from components.postgresql.host.instance import OPEN_STDIN, Instance, quote
from host import command
from host.command import Program
from host.compression import compressor, decompressor
from host.errors import HostError
from host.packing import folder_bytes, free_bytes
from host.pipeline import Pipeline
from host.snapshot import Snapshot, file_name

RESERVE_BYTES = 256 << 20
"""A dump is ended when less than this is left: a full disk would stop the server itself."""

COUNTED_TABLES = """
SELECT json_build_array(n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname
"""
"""Tables whose rows a dump has. Those of extensions it has only in part."""


class Dumped(NamedTuple):
    """A finished dump: its file or folder, and the rows of each counted table."""

    path: str
    rows: Optional[List[List[Any]]]


class Session:
    """A psql session that stays open, to hold a transaction."""

    def __init__(self, instance: Instance, database: str) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        psql = Program(
            [
                instance.program("psql"), "--no-psqlrc", "--no-password", "--quiet",
                "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1",
                "--dbname=" + instance.conninfo(database), "--file=-",
            ],
            instance.user,
        )  # fmt: skip
        self._process = command.start(
            psql,
            stdin=subprocess.PIPE,
            stderr=self._errors,
            directory="/",
            extra_environment=instance.environment(),
        )

    def ask(self, sql: str) -> str:
        """Run one statement; returns what it prints. Raises HostError if the session ended."""
        marker = "epibackup-end-of-answer"
        if self._process.stdin and self._process.stdout:
            try:
                self._process.stdin.write(command.encode("%s;\n\\echo %s\n" % (sql, marker)))
                self._process.stdin.flush()
            except BrokenPipeError:
                pass  # the error is read below
            answer: List[str] = []
            for line in iter(self._process.stdout.readline, b""):
                text = command.decode(line).rstrip("\n")
                if text == marker:
                    return "\n".join(answer)
                answer.append(text)
        self._errors.seek(0)
        raise HostError("psql ended: " + command.last_lines(command.decode(self._errors.read())))

    def abort(self) -> None:
        """End the session from another thread, even while it waits for a lock."""
        command.end(self._process)

    def close(self) -> None:
        """End the session and its transaction."""
        if self._process.stdin:
            # psql ends when its input does; where it has ended already, there is no pipe left.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            command.end(self._process)
        self._errors.close()


def dump_all(
    instance: Instance, snapshot: Snapshot, names: List[str], prefix: str
) -> Dict[str, Dumped]:
    """Dump databases, several at a time; raises HostError for the first that fails.

    prefix: put before each file name, to keep the servers of one host apart.

    Settings: `format` custom (a file each) or directory (a folder each, several jobs on one
    database); `jobs`, processes at the same time; `count_rows`.
    """
    jobs = int(snapshot.settings.get("jobs") or min(4, os.cpu_count() or 1))
    directory = snapshot.settings.get("format") == "directory"
    stop = threading.Event()
    with ThreadPoolExecutor(1 if directory else jobs) as pool:
        dumps = {
            name: pool.submit(
                _dump, instance, snapshot, name, prefix, jobs if directory else 0, stop
            )
            for name in names
        }
        try:
            return {name: dump.result() for name, dump in dumps.items()}
        except BaseException:
            stop.set()
            raise


def _dump(
    instance: Instance,
    snapshot: Snapshot,
    name: str,
    prefix: str,
    jobs: int,
    stop: threading.Event,
) -> Dumped:
    """Dump one database in one transaction; the same transaction counts its rows."""
    if stop.is_set():
        raise HostError("not dumped, because another database could not be dumped")
    session = Session(instance, name)
    try:
        session.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        exported = session.ask("SELECT pg_export_snapshot()").strip()
        options = ["--snapshot=" + exported, "--no-password", "--compress=0"]
        base = prefix + file_name(name)
        if jobs:
            path = snapshot.path(base)
            dump = _start_to_folder(instance, name, [*options, "-Fd", "-j%d" % jobs], path)
        else:
            path = snapshot.path(snapshot.stored_name(base + ".dump"))
            dump = _start_to_file(instance, snapshot, name, [*options, "-Fc"], path)
        rows = None
        watched = _Watch(dump, session, path, stop)
        try:
            if snapshot.settings.get("count_rows", True):
                rows = count_rows(session)
            dump.finish()
        except HostError as error:
            cause = _failure(dump) or error
            raise watched.reason() or HostError(
                "the dump of database %s failed: %s" % (name, cause.message), cause.hint
            ) from None
        finally:
            dump.end()
            watched.close()
    finally:
        session.close()
    _check(instance, path, name)
    return Dumped(path, rows)


def _start_to_folder(instance: Instance, name: str, options: List[str], path: str) -> Pipeline:
    os.mkdir(path, 0o700)
    instance.hand_over(path)
    folder = os.open(path, os.O_RDONLY)
    try:
        return Pipeline(
            [_dump_command(instance, name, [*options, "--file=" + OPEN_STDIN])],
            stdin=folder,
            directory="/",
            extra_environment=instance.environment(),
        )
    finally:
        os.close(folder)


def _start_to_file(
    instance: Instance, snapshot: Snapshot, name: str, options: List[str], path: str
) -> Pipeline:
    packer = compressor(snapshot.compression)
    dump = _dump_command(instance, name, options)
    with open(path, "wb") as stored:
        return Pipeline(
            [dump, *([Program(packer)] if packer else [])],
            stdout=stored,
            directory="/",
            extra_environment=instance.environment(),
        )


def _dump_command(instance: Instance, name: str, options: List[str]) -> Program:
    argv = [instance.program("pg_dump"), *options, "--dbname=" + instance.conninfo(name)]
    return Program(argv, instance.user)


def _failure(dump: Pipeline) -> Optional[HostError]:
    """Why pg_dump or its compressor failed; None if it was not they who failed."""
    if dump.has_failed():
        try:
            dump.finish()
        except HostError as error:
            return error
    return None


class _Watch:
    """Ends a dump and its session when the disk gets too full, when another dump has failed, or
    when the dump has failed while the session still waits for a lock."""

    def __init__(self, dump: Pipeline, session: Session, path: str, stop: threading.Event) -> None:
        self._dump = dump
        self._session = session
        self._path = path
        self._stop = stop
        self._done = threading.Event()
        self._reason: Optional[HostError] = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            if free_bytes(self._path) < RESERVE_BYTES:
                self._reason = HostError(
                    "the dump was ended, because less than %d MiB are left on the disk of %s"
                    % (RESERVE_BYTES >> 20, self._path),
                    "free space, or set epibackup:host_directory to a folder on a larger disk",
                )
            if self._reason or self._stop.is_set() or self._dump.has_failed():
                self._dump.end()
                self._session.abort()
                return

    def reason(self) -> Optional[HostError]:
        """Why the dump was ended from here; None if it was not."""
        return self._reason

    def close(self) -> None:
        """Stop watching."""
        self._done.set()
        self._thread.join()


def count_rows(session: Session) -> List[List[Any]]:
    """[schema, table, rows] of each counted table, and the number of large objects."""
    counted: List[List[Any]] = []
    for line in session.ask(COUNTED_TABLES.strip()).splitlines():
        schema, table = json.loads(line)
        rows = session.ask("SELECT count(*) FROM ONLY %s.%s" % (quote(schema), quote(table)))
        counted.append([schema, table, int(rows)])
    objects = session.ask("SELECT count(*) FROM pg_largeobject_metadata")
    counted.append(["", "large objects", int(objects)])
    return counted


def _check(instance: Instance, path: str, name: str) -> None:
    """Have pg_restore read the dump's table of contents; raises HostError if it can't."""
    try:
        list_contents(instance, path)
    except HostError as error:
        raise HostError(
            "pg_restore cannot read the dump of database %s: %s" % (name, error.message)
        ) from None


def list_contents(instance: Instance, path: str) -> str:
    """The table of contents of a dump, as `pg_restore --list` prints it."""
    argv = [instance.program("pg_restore"), "--list"]
    unpacker = decompressor(path) if os.path.isfile(path) else None
    if unpacker is None:
        return instance.run_on(path, argv)
    with open(path, "rb") as dump:
        # pg_restore reads only the beginning: the unpacker's end by SIGPIPE is no failure.
        source = command.start(Program(unpacker), stdin=dump, stderr=subprocess.DEVNULL)
    try:
        return command.run(
            argv, stdin=source.stdout, extra_environment=instance.environment()
        ).stdout
    finally:
        command.end(source)


def size_of(path: str) -> int:
    """The size of a dump's file or folder, in bytes."""
    return folder_bytes(path) if os.path.isdir(path) else os.path.getsize(path)
