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

Row: TypeAlias = Sequence[tuple[int, int]]
"""Sparse row as stored: (uid, u16) pairs."""


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


def build(rows: Mapping[int, Row], uids: Sequence[int], n: int, what: str) -> Matrix:
    """The given uids' rows; columns of uids >= n are ignored. Raises RuleError for a uid named twice in a row."""
    values = np.zeros((len(uids), n), dtype=np.int64)
    present = np.zeros((len(uids), n), dtype=np.bool_)
    order: dict[int, list[int]] = {}
    for at, uid in enumerate(uids):
        row = rows.get(uid, ())
        flat = np.fromiter(chain.from_iterable(row), dtype=np.int64, count=2 * len(row)).reshape(-1, 2)
        flat = flat[flat[:, 0] < n]
        columns = flat[:, 0]
        steps = np.diff(columns)
        if (steps <= 0).any():
            if len(np.unique(columns)) != len(columns):
                raise RuleError(f"{what} of uid {uid} name a uid twice")
            order[at] = columns.tolist()
        values[at, columns] = flat[:, 1]
        present[at, columns] = True
    return Matrix(values, present, order)


def stored_rows(bonds: Matrix) -> list[tuple[tuple[int, int], ...]]:
    """Rows as stored: (uid, u16), ascending or in the weight row's own order."""
    values = v.to_u16(bonds.values)
    rows = []
    for at in range(len(values)):
        columns = bonds.order.get(at)
        if columns is None:
            columns = np.flatnonzero(bonds.present[at]).tolist()
        rows.append(tuple(zip(columns, values[at, columns].tolist(), strict=True)))
    return rows
