"""A PostgreSQL server of our own: started in a temporary directory, on a Unix socket only, and ended by its pid."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from tests.waiting import until_sync

__all__ = ["Postgres"]

ACCOUNT = "postgres"


def _program(name: str) -> str:
    """Find a program of the server. Debian keeps them out of the path."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(places[-1]) if places else None)
    assert found is not None, "these tests need a PostgreSQL server: apt-get install postgresql"
    return found


class Postgres:
    """The server. It may be stopped and started again, with what it holds."""

    def __init__(self) -> None:
        # Short, since the name of a Unix socket is limited; and where the server's own account may go.
        self.home = Path(tempfile.mkdtemp(prefix="rto-pg-"))
        # The server refuses to run as root, so a root who tests lends it an account.
        self._account = ACCOUNT if os.geteuid() == 0 else None
        if self._account is not None:
            shutil.chown(self.home, self._account, self._account)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        initdb = [_program("initdb"), "-D", str(self.home / "data"), "-U", ACCOUNT, "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, user=self._account, cwd=self.home)
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.home)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        arguments = ["-D", str(self.home / "data"), "-k", str(self.home), "-c", "listen_addresses=", "-c", "max_connections=40"]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), *arguments], stdout=log, stderr=log, user=self._account, cwd=self.home
            )
        until_sync(self._answers)

    def stop(self) -> None:
        """End it as a crash would, as far as its clients can tell: connections are cut, nothing is asked of them."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the server and all that serves its clients: connections stay, and nothing is answered."""
        assert self._process is not None
        server = self._process.pid
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        processes = [server, *map(int, children)]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in processes:
                # One that has a client may have ended since.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        name = f"test_{next(self._numbers)}"
        engine = create_engine(self._url(ACCOUNT), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url(name).replace("+psycopg", "")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "log").read_text()
        engine = create_engine(self._url(ACCOUNT))
        try:
            engine.connect().close()
        except OperationalError:
            return False
        finally:
            engine.dispose()
        return True

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://{ACCOUNT}@/{database}?host={self.home}"
