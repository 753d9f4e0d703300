"""A chain in a SQLite file.

One transaction a block, in a thread of its own, in WAL mode: whatever kills the process, the file holds every block but
at most the one being written. The owner waits for `write` before it builds the next block, which is what makes that
true.

    meta     format facts: genesis hash, the shield's secret
    blocks   header, time, extrinsics and undo (storage values from before the block; NULL once history has passed)
    state    the newest value of every key

A file written in another format, by another chain (genesis hash) or in use by another process is refused.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from localnet.codec.scale import opaque, read_compact
from localnet.errors import (
    ChainError,
    LocalnetError,
    ScaleError,
    StateFileError,
    StateFileMismatch,
    StateFileVersion,
)
from localnet.node.blocks import Block, Header
from localnet.node.extrinsic import join_vector, split_vector
from localnet.node.state import Journal, VersionedState

T = TypeVar("T")

APPLICATION_ID = 0x546F7563  # "Touc" in SQLite's header: this is one of our files
FORMAT = 1
REMEDY = "use a copy that is whole, or delete it to start a new chain"
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE blocks (number INTEGER PRIMARY KEY, header BLOB NOT NULL, timestamp INTEGER NOT NULL,
                     extrinsics BLOB, undo BLOB);
CREATE TABLE state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass
class Stored:
    """What a file holds. `blocks` start at genesis."""

    genesis_hash: bytes
    blocks: list[Block]
    state: VersionedState


def encode_journal(journal: Mapping[bytes, bytes | None]) -> bytes:
    return b"".join(opaque(key) + (b"\0" if value is None else b"\1" + opaque(value)) for key, value in journal.items())


def decode_journal(data: bytes) -> Journal:
    journal: Journal = {}
    offset = 0
    while offset < len(data):
        size, offset = read_compact(data, offset)
        key, offset = data[offset : offset + size], offset + size
        if data[offset]:
            size, start = read_compact(data, offset + 1)
            journal[key], offset = data[start : start + size], start + size
        else:
            journal[key], offset = None, offset + 1
    if offset != len(data):
        raise ScaleError("a record of replaced values ends too early")
    return journal


class Store:
    """An open state file. All methods but `open` run in its thread and are awaited."""

    def __init__(self, path: Path, connection: sqlite3.Connection, executor: ThreadPoolExecutor) -> None:
        self.path, self._db, self._executor = path, connection, executor
        self.secret = b""
        self._discarded = 0  # undo up to this block is gone
        self._last = -1  # number of the newest block in the file

    @classmethod
    def open(cls, path: Path) -> tuple[Store, Stored | None]:
        """Open or create a state file; the second part is None for a new one. Raises StateFileError."""
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="localnet-store")
        try:
            return executor.submit(cls._open, path, executor).result()
        except BaseException:
            executor.shutdown()
            raise

    @classmethod
    def _open(cls, path: Path, executor: ThreadPoolExecutor) -> tuple[Store, Stored | None]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(path, isolation_level=None, timeout=1.0, check_same_thread=True)
        except (OSError, sqlite3.Error) as error:
            raise StateFileError(f"cannot open the state file {path}: {error}") from error
        try:
            store = cls(path, db, executor)
            return store, store._load()
        except sqlite3.OperationalError as error:
            db.close()
            hint = "another process uses it; stop that one or choose another file" if "locked" in str(error) else error
            raise StateFileError(f"cannot use the state file {path}: {hint}") from error
        except sqlite3.DatabaseError as error:
            db.close()
            raise StateFileError(f"{path} is not a state file, or it is damaged ({error}): {REMEDY}") from error
        except StateFileError:
            db.close()
            raise
        except (LocalnetError, LookupError, TypeError, ValueError) as error:  # whatever a damaged row can hold
            db.close()
            raise StateFileError(f"the state file {path} is damaged ({error}): {REMEDY}") from error

    def _load(self) -> Stored | None:
        db = self._db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        application = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("BEGIN EXCLUSIVE")
        empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if empty and application == 0:
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            self.secret = os.urandom(32)
            db.execute("INSERT INTO meta VALUES ('secret', ?)", (self.secret,))
            db.execute("COMMIT")
            return None
        db.execute("COMMIT")
        if application != APPLICATION_ID:
            raise StateFileError(f"{self.path} is an SQLite file of another program; choose another file")
        if version != FORMAT:
            raise StateFileVersion(
                f"{self.path} has format {version}, this program reads format {FORMAT}: use the program that wrote it, "
                "or delete the file to start a new chain"
            )
        return self._read()

    def _read(self) -> Stored | None:
        db = self._db
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        self.secret = meta["secret"]
        if "genesis" not in meta:
            return None  # killed before its first block was written
        blocks: list[Block] = []
        undo: dict[int, Journal] = {}
        for number, header, timestamp, extrinsics, journal in db.execute(
            "SELECT number, header, timestamp, extrinsics, undo FROM blocks ORDER BY number"
        ):
            if number != len(blocks):
                raise ChainError(f"block {len(blocks)} is missing")
            body = None if extrinsics is None else split_vector(extrinsics)
            blocks.append(Block(Header.decode(header), body, int(timestamp)))
            if blocks[-1].number != number or (number and blocks[-1].header.parent_hash != blocks[-2].hash):
                raise ChainError(f"block {number} does not follow the one before it")
            if journal is not None and number > 0:
                undo[number] = decode_journal(journal)
        head = dict(db.execute("SELECT key, value FROM state").fetchall())
        if not blocks or blocks[0].hash != meta["genesis"]:
            raise ChainError("its first block is not its genesis")
        state = VersionedState.restore(head, len(blocks) - 1, undo)
        self._discarded, self._last = state.oldest, len(blocks) - 1
        return Stored(meta["genesis"], blocks, state)

    def check_genesis(self, stored: Stored, genesis_hash: bytes) -> None:
        """Raises StateFileMismatch unless the file belongs to a chain with this genesis."""
        if stored.genesis_hash != genesis_hash:
            raise StateFileMismatch(
                f"{self.path} belongs to a chain with genesis 0x{stored.genesis_hash.hex()[:16]}.., this one has "
                f"0x{genesis_hash.hex()[:16]}..: the runtime, its metadata, the profile or the genesis differ. "
                "Start with the settings of the file, or choose another file"
            )

    # -- writing

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except sqlite3.Error as error:
            raise StateFileError(f"cannot write the state file {self.path}: {error}") from error

    async def create(self, genesis: Block, state: Mapping[bytes, bytes]) -> None:
        """Store the first block and its state."""
        diff: Journal = dict(state)

        def work() -> None:
            with self._transaction() as db:
                db.execute("INSERT INTO meta VALUES ('genesis', ?)", (genesis.hash,))
                self._put(db, genesis, diff, {})
            self._last = genesis.number

        await self._in_thread(work)

    async def write(self, block: Block, diff: Journal, undo: Journal, discarded: int) -> None:
        """Store a block: its changes, and what they replaced. What history below block `discarded` needs goes.

        Raises StateFileError for a block that does not follow the newest one in the file.
        """

        def work() -> None:
            if block.number != self._last + 1:
                raise StateFileError(f"{self.path} ends with block {self._last}: block {block.number} leaves a gap")
            with self._transaction() as db:
                self._put(db, block, diff, undo)
                if discarded > self._discarded:
                    span = (self._discarded, discarded)
                    db.execute("UPDATE blocks SET undo = NULL WHERE number > ? AND number <= ?", span)
                    db.execute("UPDATE blocks SET extrinsics = NULL WHERE number >= ? AND number < ?", span)
            self._discarded, self._last = max(self._discarded, discarded), block.number

        await self._in_thread(work)

    async def revert(self, number: int, undone: Journal) -> None:
        """Drop the blocks above `number`; `undone` are the storage values this restores."""

        def work() -> None:
            with self._transaction() as db:
                db.execute("DELETE FROM blocks WHERE number > ?", (number,))
                self._apply(db, undone)
            self._last = number

        await self._in_thread(work)

    async def close(self) -> None:
        """Flush and release the file."""
        await self._in_thread(self._db.close)
        self._executor.shutdown()

    def _put(self, db: sqlite3.Connection, block: Block, diff: Journal, undo: Journal) -> None:
        body = join_vector(block.extrinsics or [])
        row = (block.number, block.header.encode(), block.timestamp, body, encode_journal(undo))
        db.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", row)
        self._apply(db, diff)

    @staticmethod
    def _apply(db: sqlite3.Connection, diff: Mapping[bytes, bytes | None]) -> None:
        db.executemany("DELETE FROM state WHERE key = ?", [(key,) for key, value in diff.items() if value is None])
        rows = [(key, value) for key, value in diff.items() if value is not None]
        db.executemany("INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", rows)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """`with` block around BEGIN and COMMIT, ROLLBACK when it is left by an exception."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:  # a full disk has rolled back already
            self._db.execute("ROLLBACK")
