"""Names that say nothing: patients, studies and scans under salted hashes, the same in every store of one user.

The salt and the lists that lead back from a hash to a name lie in ``private_folder()``, never in a store or a run.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from scanlearn.errors import ScanlearnError

SALT_BYTES = 32
# 60 bits: among ten million names the chance of two alike is 1 in 20,000.
DIGITS = 15


def private_folder() -> Path:
    """Where salt and name lists lie: ``$SCANLEARN_PRIVATE``, else ``scanlearn`` in the user's data folder (XDG)."""
    chosen = os.environ.get("SCANLEARN_PRIVATE")
    if chosen:
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "scanlearn"


def salt() -> bytes:
    """The user's salt: ``$SCANLEARN_SALT`` (any text), else the file ``salt``, made on the first use."""
    given = os.environ.get("SCANLEARN_SALT")
    if given:
        return hashlib.sha256(given.encode()).digest()
    path = private_folder() / "salt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_once(path)
        found = path.read_bytes()
    except OSError as error:
        raise ScanlearnError(
            f"The salt of the patients' pseudonyms cannot be kept in {path.parent} ({error.strerror}); set "
            "SCANLEARN_PRIVATE to a folder of your own, or SCANLEARN_SALT to a secret text."
        ) from error
    if len(found) != SALT_BYTES:
        raise ScanlearnError(f"{path} is damaged: put it back from a backup, or delete it to begin with a new salt.")
    return found


def pseudonyms(kind: str, names: Iterable[str], key: bytes) -> list[str]:
    """``kind-3f9c...`` for each name, a function of (kind, name, key) alone; "" stays ""."""
    person = kind.encode()[:16]
    width = (DIGITS + 1) // 2
    return [
        f"{kind}-{hashlib.blake2b(n.encode(), digest_size=width, key=key, person=person).hexdigest()[:DIGITS]}"
        if n
        else ""
        for n in names
    ]


def _make_once(path: Path) -> None:
    """Write a new salt unless there is one; of several processes that try at once, one wins and all read the same."""
    if path.exists():
        return
    own = path.with_name(f".salt.{os.getpid()}")
    with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(secrets.token_bytes(SALT_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(own, path)  # fails where another process was first
    except FileExistsError:
        pass
    finally:
        own.unlink()
