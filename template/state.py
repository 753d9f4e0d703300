"""A neuron's own folder: one process of a role at a time, and one hotkey on one subnet of one chain for ever.

    with claimed(settings.state_dir, "miner", genesis, netuid, hotkey.ss58): ...     # raises StateUnavailable
    secret = read_secret(settings.state_dir / "secret")

Scores, rounds and used nonces mean something only where they were made. A ledger that followed its wallet's name to
another subnet, to a chain that began anew, or into a second process would pay by somebody else's history.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from template.errors import StateUnavailable

RECORD = "belongs-to.json"
SECRET_BYTES = 32


@contextlib.contextmanager
def claimed(folder: Path, role: str, genesis: str, netuid: int, hotkey: str) -> Iterator[None]:
    """Hold `folder` for one `role` until the block ends; the lock dies with the process.

    The folder is made if missing and closed to other users. `role` is "miner", "validator" or "gateway", which may run
    beside each other: they keep different files, but for the ledger, which validator and gateway may both write.
    `genesis` is the hash of block 0. Raises StateUnavailable.
    """
    owner = {"genesis": genesis, "netuid": netuid, "hotkey": hotkey}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # challenges lie there before they are sent
        lock = os.open(folder / f"{role}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        remedy = "make it writable, or give another --data-dir"
        raise StateUnavailable(f"{folder} cannot be used: {error.strerror}", remedy=remedy) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "stop it, or give another --data-dir"
            raise StateUnavailable(f"another {role} process uses {folder}", remedy=remedy) from None
        _check_owner(folder, owner)
        yield
    finally:
        os.close(lock)


def read_secret(path: Path) -> bytes:
    """The secret that challenges and audits are drawn with, made when it is first asked for, readable by this user
    only. All who read the same path get the same. Raises StateUnavailable."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(SECRET_BYTES))
        with contextlib.suppress(FileExistsError):  # another process was faster: its secret counts
            os.link(scratch, path)
        scratch.unlink()
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise StateUnavailable(f"{path} does not hold {SECRET_BYTES} bytes", remedy="remove it; a new one is made")
    return secret


def _check_owner(folder: Path, owner: dict[str, object]) -> None:
    record = folder / RECORD
    if not record.exists():
        scratch = record.with_suffix(".new")
        scratch.write_text(json.dumps(owner))
        scratch.replace(record)
        return
    try:
        known = json.loads(record.read_bytes())
    except ValueError:
        known = None
    if known != owner:
        what = [key for key in owner if not isinstance(known, dict) or known.get(key) != owner[key]]
        raise StateUnavailable(
            f"{folder} holds the history of another {' and '.join(what)}",
            remedy="give another --data-dir, or move the folder away to start without scores",
        )
