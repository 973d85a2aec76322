"""Open the storage of a study: a journal file, sqlite or PostgreSQL.

The URL may hold a password, so it does not travel: each process resolves it for itself.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError


class StudyStorageError(Exception):
    """A study's storage that cannot be opened; the text never holds a password."""


class _KernelLock(JournalFileOpenLock):
    """Lock a journal by flock: the kernel lets go when its holder is killed, where Optuna's own lock waits for 30 s."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._path = journal.with_name(f"{journal.name}.lock")
        self._held: IO[bytes] | None = None

    def acquire(self) -> bool:
        held = self._path.open("ab")
        fcntl.flock(held, fcntl.LOCK_EX)
        self._held = held
        return True

    def release(self) -> None:
        if self._held is None:
            raise RuntimeError(f"expected the lock {self._path} to be held, got a release without an acquire")
        self._held.close()
        self._held = None


@dataclass(frozen=True)
class StudyAddress:
    """Say where studies live without saying a secret.

    They live where the URL in the environment variable `env` says, or in the journal file `path`. An address travels
    between processes; each of them looks the variable up in its own environment.
    """

    path: str
    env: str = ""
    from_env: bool = False

    @classmethod
    def choose(cls, path: Path, env: str) -> StudyAddress:
        """Prefer the environment variable when it is set in this process."""
        return cls(str(path), env, bool(env and os.environ.get(env)))

    def url(self) -> str:
        """Return the URL or path; StudyStorageError when this process lacks the variable."""
        if not self.from_env:
            return self.path
        if self.env not in os.environ:
            raise StudyStorageError(
                f"expected the environment variable {self.env} with a storage URL on this process "
                f"({os.uname().nodename}, pid {os.getpid()}), "
                "got none; set it for the Dask scheduler as well, or unset it everywhere to use a journal file"
            )
        return os.environ[self.env]

    def __str__(self) -> str:
        return f"the storage named by {self.env}" if self.from_env else self.path


def open_storage(address: StudyAddress) -> BaseStorage:
    """Open the storage at an address; StudyStorageError when that fails.

    A URL is journal:///path or a plain path, sqlite:///path, or postgresql://user@host/name.
    """
    url = address.url()
    try:
        if "://" not in url and address.from_env:
            raise ArgumentError(f"no URL in {address}")
        if "://" not in url or url.startswith("journal://"):
            path = Path(url.removeprefix("journal://"))
            path.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(path), _KernelLock(path)))
        driver = make_url(url).get_backend_name()
        if driver not in ("sqlite", "postgresql"):
            raise StudyStorageError(f"expected journal, sqlite or postgresql as storage in {address}, got '{driver}'")
        if driver == "postgresql" and url.startswith("postgresql://"):
            url = "postgresql+psycopg" + url.removeprefix("postgresql")
        engine = {"connect_args": {"timeout": 30}} if driver == "sqlite" else {"pool_pre_ping": True}
        return get_storage(RDBStorage(url, engine_kwargs=engine))
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError, ValueError) as error:
        raise StudyStorageError(
            f"expected a study storage that opens ({address}), got {type(error).__name__}: "
            f"{_without_secret(str(error), url)}; "
            "check that the server runs, the address, the user's rights and that its driver is installed (psycopg "
            "for PostgreSQL)"
        ) from None


def _without_secret(text: str, url: str) -> str:
    """Return the first line of a message without the password of the URL; nothing of a URL that cannot be read."""
    try:
        password = make_url(url).password or ""
    except (ArgumentError, ValueError):
        return "the URL cannot be read"
    for secret in filter(None, (url, str(password))):
        text = text.replace(secret, "***")
    return text.strip().splitlines()[0] if text.strip() else "no message"
