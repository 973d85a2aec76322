"""Which trained model is in use: promoted, pinned and rolled back, each step an entry of one history."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from storage.store import MANIFEST, Store, StoreError, read_json, write_json

from .columns import DataError, check_columns
from .promoted import STAGE, Candidate, RegistryError, check

HISTORY = "history.json"
IN_USE = "registry"  # as a name: the model in use
Action = Literal["promote", "rollback", "pin", "unpin"]


@dataclass(frozen=True)
class Used:
    """Hold what the history comes to: digests promoted and not rolled back, the last one in use, pinned or not."""

    digests: tuple[str, ...] = ()
    pinned: bool = False

    @property
    def digest(self) -> str:
        return self.digests[-1] if self.digests else ""

    def after(self, entry: dict[str, Any]) -> Used:
        match entry["action"]:
            case "promote":
                return Used((*self.digests, str(entry["digest"])))
            case "rollback":
                return Used(self.digests[:-1])
            case action:
                return Used(self.digests, action == "pin")


@dataclass(frozen=True)
class Registry:
    """Keep the models of a data folder that were promoted."""

    data: Path
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", Store(self.data))

    @property
    def root(self) -> Path:
        return self.data / STAGE

    def history(self) -> list[dict[str, Any]]:
        """Return all steps, the oldest first: when, action, digest, model, stage, why. RegistryError when damaged."""
        path = self.root / HISTORY
        if not path.exists():
            return []
        try:
            found = read_json(path)
            return [{**one, "digest": str(one["digest"]), "action": str(one["action"])} for one in found]
        except (StoreError, TypeError, KeyError) as error:
            raise RegistryError(
                f"expected the list of promotions in {path}, got something else ({error}); restore the file, or remove "
                "it and promote one of the folders beside it again"
            ) from error

    def used(self) -> Used:
        """Return which model is in use."""
        used = Used()
        for entry in self.history():
            used = used.after(entry)
        return used

    def folder(self, name: str) -> Path:
        """Return the whole folder of a model: `registry` = the one in use, else a digest or its beginning."""
        if name == IN_USE:
            name = self.used().digest
            if not name:
                raise RegistryError(
                    f"expected a model in use in {self.root}, got none; choose one: python scripts/models.py promote"
                )
        found = sorted(path.parent.name for path in self.root.glob(f"{name}*/{MANIFEST}")) if name.isalnum() else []
        if len(found) != 1:
            there = f"{len(found)} that begin so" if found else "none of that name"
            raise RegistryError(
                f"expected the digest of a model in {self.root}, got '{name}': {there}; python scripts/models.py list"
            )
        if self.store.done(STAGE, found[0]) is None:
            raise RegistryError(
                f"expected the files that {self.root / found[0] / MANIFEST} lists, got others or fewer; roll back "
                "(python scripts/models.py rollback), or remove the folder and promote the model again"
            )
        return self.root / found[0]

    def promote(self, trained: Path, model: str = "", why: str = "", *, force: bool = False) -> dict[str, Any]:
        """Put a model of a train stage's last fold in use and return the step, that of before where it is in use.

        model : none = the one whose mean validation rank IC is the highest. RegistryError when the model is incomplete
        or its weights are not those that were trained; also, unless forced, when the model in use is pinned or needs
        other features. The new one is not pinned.
        """
        candidate = Candidate.of(trained, model)
        digest = candidate.digest
        with self._writing() as history:
            used = self.used()
            if used.digest == digest and not force:
                return next(one for one in reversed(history) if one["digest"] == digest)
            if not force:
                self._replaceable(used)
                self._same_features(used, candidate.columns)
            candidate.link(self.store)
            return self._add(history, "promote", digest, candidate.model, candidate.stage, why)

    def pin(self, why: str = "", *, on: bool = True) -> dict[str, Any]:
        """Protect the model in use from being replaced, or (on=False) no longer. RegistryError where it is damaged."""
        with self._writing() as history:
            folder = self.folder(IN_USE)
            if on:
                check(folder)
            return self._again(history, folder, "pin" if on else "unpin", why)

    def rollback(self, why: str = "", *, force: bool = False) -> dict[str, Any]:
        """Put the model in use that was before the present one; RegistryError where there was none, where it is no
        longer whole or, unless forced, where the present one is pinned.
        """
        with self._writing() as history:
            used = self.used()
            if len(used.digests) < 2:
                raise RegistryError(f"expected a model before the one in use in {self.root}, got none to roll back to")
            if not force:
                self._replaceable(used)
            folder = self.folder(used.digests[-2])
            check(folder)
            return self._again(history, folder, "rollback", why)

    def _again(self, history: list[dict[str, Any]], folder: Path, action: Action, why: str) -> dict[str, Any]:
        card = read_json(folder / MANIFEST)
        return self._add(history, action, folder.name, card["model"], card["stage_key"], why)

    def _add(
        self, history: list[dict[str, Any]], action: Action, digest: str, model: str, stage: str, why: str
    ) -> dict[str, Any]:
        when = time.strftime("%Y-%m-%d %H:%M:%S%z")
        entry = {"when": when, "action": action, "digest": digest, "model": model, "stage": stage, "why": why}
        write_json(self.root / HISTORY, [*history, entry])
        return entry

    def _replaceable(self, used: Used) -> None:
        if used.pinned:
            raise RegistryError(
                f"expected a model in use that may be replaced, got {used.digest}, which is pinned; "
                "python scripts/models.py pin --off, or --force"
            )

    def _same_features(self, used: Used, columns: dict[str, Any]) -> None:
        if not used.digest:
            return
        card = self.root / used.digest / MANIFEST
        before = read_json(card)["columns"]
        try:
            check_columns(before["offered"], columns["offered"], Path("the stage to promote"))
            other = [name for name in ("interval", "targets", "target_kind") if before[name] != columns[name]]
            detail = ", ".join(f"{name} {columns[name]} instead of {before[name]}" for name in other)
        except DataError as error:
            detail = str(error)
        if detail:
            raise RegistryError(
                f"expected a model of the features and labels of the one in use ({used.digest}), got others: {detail}. "
                "Who scores with the registry would have to compute them: change that first, then promote with --force"
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[list[dict[str, Any]]]:
        """Give the history to one writer of this machine at a time."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".history.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.history()
