"""A write load that knows what was acknowledged."""

import subprocess
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import IO

from lab.errors import LabError
from lab.machine import SYSTEM_PATH
from lab.services.postgresql.server import SUPERUSER, PostgreSQL

_SCHEMA = """\
CREATE SCHEMA IF NOT EXISTS lab_load;
CREATE TABLE IF NOT EXISTS lab_load.debit (number bigint PRIMARY KEY);
CREATE TABLE IF NOT EXISTS lab_load.credit (number bigint PRIMARY KEY);
"""
# psql puts the number in, and prints it when the commit is confirmed.
_TRANSACTION = b"""\\set number %d
BEGIN;
INSERT INTO lab_load.debit VALUES (:number) ON CONFLICT DO NOTHING;
INSERT INTO lab_load.credit VALUES (:number) ON CONFLICT DO NOTHING;
COMMIT;
\\echo :number
"""
# One statement, one snapshot: the load may go on meanwhile.
_COUNT = """\
SELECT count(debit.number), count(credit.number), coalesce(max(debit.number), 0)
  FROM lab_load.debit FULL JOIN lab_load.credit USING (number)
"""


class WriteLoad:
    """Writes numbered transactions into a database as long as its `with` block lasts.

    Number n puts n into two tables in one transaction, so a consistent backup has the same
    numbers in both, without a gap, and at least those acknowledged before it began. When the
    server goes away, the load connects again and goes on where it was.
    """

    def __init__(
        self, server: PostgreSQL, database: str = "postgres", pause_seconds: float = 0.002
    ) -> None:
        self._server = server
        self._database = database
        self._pause_seconds = pause_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="write load")
        self.acknowledged = 0
        """The highest number whose commit the server has confirmed; all below are, too."""
        self.longest_wait_seconds = 0.0
        """The longest time between two acknowledged transactions."""

    def __enter__(self) -> "WriteLoad":
        self._server.sql(_SCHEMA, self._database)
        self.acknowledged = highest_number(self._server, self._database)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def wait_for(self, number: int, timeout_seconds: float = 120) -> None:
        """Waits until a number is acknowledged.

        Raises LabError when that takes too long.
        """
        deadline = time.monotonic() + timeout_seconds
        while self.acknowledged < number:
            if time.monotonic() > deadline:
                raise LabError(f"the write load got to {self.acknowledged} only, not to {number}")
            time.sleep(0.01)

    def _write(self) -> None:
        last = time.monotonic()
        while not self._over.is_set():
            try:
                command = self._server.host.command(
                    self._server.psql(), SUPERUSER, self._server.environment(self._database)
                )
            except LabError:  # the host is down: a load goes on when it is back
                self._over.wait(0.1)
                continue
            with subprocess.Popen(
                command,
                env={"PATH": SYSTEM_PATH},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as psql:
                assert psql.stdin is not None  # noqa: S101 - both are pipes
                assert psql.stdout is not None  # noqa: S101
                while not self._over.is_set() and self._transaction(psql.stdin, psql.stdout):
                    now = time.monotonic()
                    self.longest_wait_seconds = max(self.longest_wait_seconds, now - last)
                    last = now
                    self._over.wait(self._pause_seconds)
                psql.kill()
                with suppress(BrokenPipeError):  # of a statement that was never sent
                    psql.stdin.close()
            self._over.wait(0.1)

    def _transaction(self, stdin: IO[bytes], stdout: IO[bytes]) -> bool:
        """Writes one number; false when the connection is gone.

        A commit whose confirmation was lost may be there or not: hence ON CONFLICT.
        """
        number = self.acknowledged + 1
        statement = _TRANSACTION % number
        try:
            stdin.write(statement)
            stdin.flush()
        except BrokenPipeError:
            return False
        if stdout.readline().strip() != str(number).encode():
            return False
        self.acknowledged = number
        return True


def highest_number(server: PostgreSQL, database: str = "postgres") -> int:
    """The highest number of a load that a database holds; 0 if none.

    Raises LabError if the two tables differ or a number is missing: then what was restored is
        not a state that the database ever was in.
    """
    debited, credited, highest = map(int, server.sql(_COUNT, database).split("\t"))
    if not debited == credited == highest:
        raise LabError(
            f"not a consistent state: {debited} debits, {credited} credits, the last is {highest}"
        )
    return highest
