"""The chain's sparse matrices, held densely.

On chain a weight or bond row is a list of (uid, value) pairs. A missing entry and a zero entry are different things (a
zero weight keeps a bond alive, a missing one drops it), and the stored order can matter. `Matrix` keeps all three: the
values, which entries are present, and the order of rows that are not ascending. `build` reads rows, `stored_rows`
writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

import numpy as np

from localnet.rules import vectorised as v
from localnet.rules.errors import RuleError
from localnet.rules.vectorised import Bools, Ints

Row: TypeAlias = Sequence[tuple[int, int]] | bytes
"""Sparse row: (uid, u16) pairs, or their bytes as stored, both numbers u16 in little-endian order."""

_PAIR = 4  # bytes of a stored (uid, value)


def pairs(row: Row) -> tuple[tuple[int, int], ...]:
    """A row as (uid, value) pairs."""
    if not isinstance(row, bytes):
        return tuple(row)
    return tuple(zip(*(np.frombuffer(row, "<u2").reshape(-1, 2).T.tolist()), strict=True)) if row else ()


@dataclass(frozen=True)
class Matrix:
    """`values` (rows x n) is 0 where `present` is False; `order` lists a row's columns where they are not ascending."""

    values: Ints
    present: Bools
    order: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def keep(self, condition: Bools) -> Matrix:
        """Entries where the condition holds; the rest is gone."""
        present = self.present & condition
        order = {row: [j for j in columns if present[row, j]] for row, columns in self.order.items()}
        return Matrix(np.where(present, self.values, 0), present, order)

    def seen_by_cursor(self) -> Ints:
        """Values as found by walking columns 0..n-1 with a cursor that only moves forward: in a row that is not
        ascending, an entry behind a larger uid reads as 0."""
        if not self.order:
            return self.values
        seen: Ints = self.values.copy()
        for row, columns in self.order.items():
            highest = -1
            for column in columns:
                if column < highest:
                    seen[row, column] = 0
                highest = max(highest, column)
        return seen


def _flat(row: Row) -> Ints:
    if isinstance(row, bytes):
        return np.frombuffer(row, "<u2").astype(np.int64)
    return np.fromiter(chain.from_iterable(row), dtype=np.int64, count=2 * len(row))


def build(rows: Mapping[int, Row], uids: Sequence[int], n: int, what: str) -> Matrix:
    """The given uids' rows; columns of uids >= n are ignored. Raises RuleError for a uid named twice in a row."""
    values = np.zeros((len(uids), n), dtype=np.int64)
    present = np.zeros((len(uids), n), dtype=np.bool_)
    flat = [_flat(rows.get(uid, ())) for uid in uids]
    if not flat:
        return Matrix(values, present)
    entries = np.concatenate(flat).reshape(-1, 2)
    at = np.repeat(np.arange(len(uids)), [len(row) // 2 for row in flat])
    inside = entries[:, 0] < n
    at, (columns, stored) = at[inside], entries[inside].T
    values[at, columns] = stored
    present[at, columns] = True
    descends = (np.diff(at) == 0) & (np.diff(columns) <= 0)
    order: dict[int, Sequence[int]] = {}
    for row in np.unique(at[1:][descends]).tolist():
        order[row] = columns[at == row].tolist()
        if len(set(order[row])) != len(order[row]):
            raise RuleError(f"{what} of uid {uids[row]} name a uid twice")
    return Matrix(values, present, order)


def stored_rows(bonds: Matrix) -> list[bytes]:
    """Rows as stored: (uid, u16) as bytes, ascending or in the weight row's own order."""
    values = v.to_u16(bonds.values)
    at, columns = np.nonzero(bonds.present)
    packed = np.stack((columns, values[at, columns]), axis=1).astype("<u2").tobytes()
    ends = (np.cumsum(bonds.present.sum(axis=1)) * _PAIR).tolist()
    rows = [packed[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    for row, listed in bonds.order.items():
        rows[row] = np.stack((listed, values[row, listed]), axis=1).astype("<u2").tobytes()
    return rows
