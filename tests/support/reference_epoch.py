"""A second epoch, written for tests: plain Python integers and lists of (uid, value) pairs, entry by entry.

It shares nothing with `localnet.rules.epoch` but the input type. Slow and literal on purpose: rows stay lists in stored
order, every product is shifted down by 32 bits, every quotient truncated, the median is found by partitioning around
the middle element, liquid alpha looks entries up with cursors that only move forward.
"""

from __future__ import annotations

from localnet.rules.epoch import EpochHyper, EpochInput

ONE = 1 << 32
Sparse = list[list[tuple[int, int]]]


def mul(a: int, b: int) -> int:
    return (a * b) >> 32


def div(a: int, b: int) -> int:
    if b == 0:
        return 0
    quotient = (abs(a) << 32) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def norm(values: list[int]) -> list[int]:
    total = sum(values)
    return [div(x, total) for x in values] if total else list(values)


def norm_columns(matrix: Sparse, n: int) -> Sparse:
    sums = [0] * n
    for row in matrix:
        for j, x in row:
            sums[j] += x
    return [[(j, div(x, sums[j]) if sums[j] else x) for j, x in row] for row in matrix]


def exp(x: int) -> int:
    x = max(min(x, 20 * ONE), -20 * ONE)
    if x == 0:
        return ONE
    if x == ONE:
        return int(2.718281828459045 * 2**23) << 9
    result, term = abs(x) + ONE, abs(x)
    for i in range(2, 32):
        term = div(mul(term, abs(x)), i * ONE)
        result += term
    return div(ONE, result) if x < 0 else result


def quick_median(stake: list[int], score: list[int], minority: int) -> int:
    part, low, high = list(range(len(stake))), 0, sum(stake)
    while part:
        if len(part) == 1:
            return score[part[0]]
        pivot = score[part[len(part) // 2]]
        lower = [i for i in part if score[i] < pivot]
        upper = [i for i in part if score[i] > pivot]
        lower_stake, upper_stake = sum(stake[i] for i in lower), sum(stake[i] for i in upper)
        if minority < low + lower_stake and lower:
            part, high = lower, low + lower_stake
        elif high - upper_stake <= minority and upper:
            part, low = upper, high - upper_stake
        else:
            return pivot
    return 0


def medians(stake: list[int], weights: Sparse, n: int, kappa: int) -> list[int]:
    heard = [i for i, s in enumerate(stake) if s > 0]
    shares = norm([stake[i] for i in heard])
    rows = [dict(weights[i]) for i in heard]
    return [quick_median(shares, [row.get(j, 0) for row in rows], sum(shares) - kappa) for j in range(n)]


def cursor_row(row: list[tuple[int, int]], n: int) -> list[int]:
    found, at = [0] * n, 0
    for j in range(n):
        while at < len(row) and row[at][0] < j:
            at += 1
        if at < len(row) and row[at][0] == j:
            found[j] = row[at][1]
    return found


def alpha(c: int, w: int, b: int, hyper: EpochHyper) -> int:
    low, high = div(hyper.alpha_low * ONE, 65535 * ONE), div(hyper.alpha_high * ONE, 65535 * ONE)
    buy, sell = max(min(w - c, ONE), 0), max(min(b - w, ONE), 0)
    slope = div(hyper.steepness * ONE, -100 * ONE)
    sigmoid = div(ONE, ONE + exp(mul(slope, (buy if w >= b else sell) - ONE // 2)))
    return max(min(low + mul(sigmoid, high - low), high), low)


def ema(new: Sparse, old: Sparse, rate: int, n: int) -> Sparse:
    result: Sparse = []
    for new_row, old_row in zip(new, old, strict=True):
        cells = [0] * n
        for j, x in new_row:
            cells[j] += mul(rate, x)
        for j, x in old_row:
            cells[j] += mul(ONE - rate, x)
        result.append([(j, x) for j, x in enumerate(cells) if x > 0])
    return result


def liquid(weights: Sparse, old: Sparse, consensus: list[int], hyper: EpochHyper, n: int) -> Sparse:
    result: Sparse = []
    for w_row, b_row in zip(weights, old, strict=True):
        w_seen, b_seen, held = cursor_row(w_row, n), cursor_row(b_row, n), dict(b_row)
        out = []
        for j, w in w_row:
            a = alpha(consensus[j], w_seen[j], b_seen[j], hyper)
            value = min(mul(ONE - a, held.get(j, 0)) + max(mul(a, w), 0), ONE)
            if value > 0:
                out.append((j, value))
        result.append(out)
    return result


def interpolated(weights: Sparse, clipped: Sparse, ratio: int, n: int) -> Sparse:
    if ratio == 0:
        return weights
    if ratio == ONE:
        return clipped
    rows = []
    for a, b in zip(weights, clipped, strict=True):
        first, second = dict(a), dict(b)
        mixed = [first.get(j, 0) + mul(ratio, second.get(j, 0) - first.get(j, 0)) for j in range(n)]
        rows.append([(j, x) for j, x in enumerate(mixed) if x > 0])
    return rows


def q(x: int) -> int:
    return max(min(mul(x, 65535 * ONE) >> 32, 65535), 0)


def reference_epoch(given: EpochInput) -> dict[str, object]:
    """Every field of EpochResult by name."""
    n, hyper = given.n, given.hyper
    active = [given.last_update[i] + hyper.activity_cutoff >= given.block for i in range(n)]
    raw = [s if (s >> 64) >= hyper.stake_threshold or i == given.owner_uid else 0 for i, s in enumerate(given.stake)]
    total = sum(raw)
    stake = [((s << 64) // total if total else s) >> 32 for s in raw]
    permit = [p or i == given.owner_uid for i, p in enumerate(given.permits)]
    ascending = sorted(range(n), key=lambda i: stake[i])
    out = set(ascending[: max(n - hyper.max_validators, 0)])
    new_permit = [(stake[i] > 0 and i not in out) or i == given.owner_uid for i in range(n)]
    a_stake = norm([stake[i] if active[i] and permit[i] else 0 for i in range(n)])

    weights: Sparse = []
    for i in range(n):
        row = [(j, w) for j, w in given.weights.get(i, ()) if j < n] if permit[i] else []
        row = [(j, w) for j, w in row if i != j or j == given.owner_uid]
        row = [(j, w) for j, w in row if given.last_update[i] > given.registered_at[j]]
        if i in given.commit_blocks:
            row = [(j, w) for j, w in row if given.commit_blocks[i] >= given.registered_at[j]]
        sums = sum(w for _, w in row)
        weights.append([(j, div(w * ONE, sums * ONE) if sums else w * ONE) for j, w in row])

    consensus = medians(a_stake, weights, n, div(hyper.kappa * ONE, 65535 * ONE))
    clipped = [
        [(j, min(w, consensus[j])) for j, w in row if not (consensus[j] < w and consensus[j] == 0)] for row in weights
    ]
    ranks = [0] * n
    for i, row in enumerate(clipped):
        for j, w in row:
            ranks[j] += mul(a_stake[i], w)
    incentive = norm(ranks)

    for_bonds = interpolated(weights, clipped, div(hyper.bonds_penalty * ONE, 65535 * ONE), n)
    last_tempo = given.last_step + 1 if given.last_step else max(given.block - hyper.tempo, 0)
    old = [
        [(j, b * ONE) for j, b in given.bonds.get(i, ()) if j < n and last_tempo > given.registered_at[j]]
        for i in range(n)
    ]
    rate = ONE - (((hyper.bonds_moving_average << 128) // (1_000_000 << 64)) >> 32)
    if hyper.yuma3:
        old = [[(j, div(b, 65535 * ONE)) for j, b in row] for row in old]
        if hyper.liquid_alpha and any(consensus):
            auto = hyper.consensus_mode == "Auto" and hyper.bonds_penalty == 65535
            before = given.previous_consensus if auto or hyper.consensus_mode == "Previous" else []
            stored = [div(before[j] * ONE, 65535 * ONE) if j < len(before) else 0 for j in range(n)]
            bonds = liquid(for_bonds, old, stored if before else consensus, hyper, n)
        else:
            bonds = ema(for_bonds, old, rate, n)
        claims = [sum(mul(b, incentive[j]) for j, b in row) for row in norm_columns(bonds, n)]
        dividends = norm([mul(claim, s) for claim, s in zip(claims, a_stake, strict=True)])
    else:
        bought = [[(j, mul(w, a_stake[i])) for j, w in row] for i, row in enumerate(for_bonds)]
        bonds = norm_columns(ema(norm_columns(bought, n), norm_columns(old, n), rate, n), n)
        dividends = norm([sum(mul(b, incentive[j]) for j, b in row) for row in bonds])
        largest = [max([dict(row).get(j, 0) for row in bonds], default=0) for j in range(n)]
        bonds = [[(j, div(b, largest[j])) for j, b in row] for row in bonds]

    combined = [i + d for i, d in zip(incentive, dividends, strict=True)]
    total = sum(combined)
    server, validator, both = [div(x, total) for x in incentive], [div(x, total) for x in dividends], norm(combined)
    if total == 0:
        server, validator, both = incentive, *([a_stake] * 2 if any(a_stake) else [stake] * 2)

    def paid(shares: list[int]) -> tuple[int, ...]:
        return tuple(share * given.emission >> 32 for share in shares)

    return {
        "active": tuple(active),
        "permits": tuple(new_permit),
        "stake_weight": tuple(map(q, stake)),
        "consensus": tuple(map(q, consensus)),
        "incentive": tuple(map(q, incentive)),
        "dividends": tuple(map(q, dividends)),
        "validator_trust": tuple(q(sum(w for _, w in row)) for row in clipped),
        "server_emission": paid(server),
        "validator_emission": paid(validator),
        "emission": paid(both),
        "bonds": {
            i: tuple((j, q(b)) for j, b in bonds[i]) if new_permit[i] else ()
            for i in range(n)
            if new_permit[i] or permit[i]
        },
    }
