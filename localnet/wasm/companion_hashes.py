"""The hashes that storage keys are made of, as Wasm for the companion: a runtime needs several of them at every access.

Written out in the text format by small Python functions. twox: XXH64 (xxHash's doc/xxhash_spec.md) with the seeds 0, 1,
..; blake2: BLAKE2b without a key (RFC 7693), its rounds unrolled, message block and chained value on the desk.
"""

from __future__ import annotations

TWOX, BLAKE2 = (64, 128, 256), (128, 256)  # bits
HASHES = tuple(
    f"ext_hashing_{name}_{bits}_version_1" for name, sizes in (("twox", TWOX), ("blake2", BLAKE2)) for bits in sizes
)

BLOCK, CHAINED = 1024, 1024 + 128  # bytes on the desk, behind the slots: a message block, the chained value

P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5

IV = (
    0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
)  # fmt: skip
SIGMA = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4), (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13), (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11), (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5), (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)  # fmt: skip
MIXES = (  # columns, then diagonals
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
ROUNDS = 12


def const(value: int) -> str:
    return f"(i64.const 0x{value % (1 << 64):x})"


def get(name: str) -> str:
    return f"(local.get ${name})"


def put(name: str, value: str) -> str:
    return f"(local.set ${name} {value})"


def op(name: str, *parts: str) -> str:
    """An i64 instruction; of more than two operands, from the left."""
    folded = parts[0]
    for part in parts[1:]:
        folded = f"(i64.{name} {folded} {part})"
    return folded


def rotl(value: str, bits: int) -> str:
    return op("rotl", value, const(bits))


def hash_functions() -> str:
    return "\n".join(
        (_twox(), _compress(), _absorb(), *map(_twox_answer, TWOX), *map(_blake2_answer, BLAKE2)),
    )


def _twox_answer(bits: int) -> str:
    words = [
        f"(i64.store offset={8 * seed} {get('out')} (call $xxh64 (i32.wrap_i64 {get('span')})"
        f" (i32.wrap_i64 {op('shr_u', get('span'), const(32))}) {const(seed)}))"
        for seed in range(bits // 64)
    ]
    return (
        f'(func (export "ext_hashing_twox_{bits}_version_1") (param $span i64) (result i32) (local $out i32)'
        f" {put('out', f'(call $malloc (i32.const {bits // 8}))')} {' '.join(words)} {get('out')})"
    )


def _twox() -> str:
    lanes = "abcd"
    start = dict(zip(lanes, (P1 + P2, P2, 0, -P1), strict=True))
    p, end, h = get("p"), get("end"), get("h")
    load = [f"(i64.load offset={8 * i} {p})" for i in range(4)]
    rounds = [put(lane, f"(call $xxround {get(lane)} {load[i]})") for i, lane in enumerate(lanes)]
    mixed = op("add", *(rotl(get(lane), bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)))
    merges = [
        put("h", op("add", op("mul", op("xor", h, f"(call $xxround {const(0)} {get(lane)})"), const(P1)), const(P4)))
        for lane in lanes
    ]
    eight = op("xor", h, f"(call $xxround {const(0)} {load[0]})")
    four = op("xor", h, op("mul", f"(i64.load32_u {p})", const(P1)))
    one = op("xor", h, op("mul", f"(i64.load8_u {p})", const(P5)))

    def step(n: int) -> str:
        return put("p", f"(i32.add {p} (i32.const {n}))")

    def fits(n: int) -> str:
        return f"(i32.le_u (i32.add {p} (i32.const {n})) {end})"

    return f"""(func $xxround (param $acc i64) (param $lane i64) (result i64)
 {op("mul", rotl(op("add", get("acc"), op("mul", get("lane"), const(P2))), 31), const(P1))})
(func $xxh64 (param $p i32) (param $n i32) (param $seed i64) (result i64)
 (local $end i32) (local $h i64) (local $a i64) (local $b i64) (local $c i64) (local $d i64)
 {put("end", f"(i32.add {p} {get('n')})")}
 (if (i32.lt_u {end} {p}) (then unreachable))
 (if (i32.ge_u {get("n")} (i32.const 32))
  (then {" ".join(put(lane, op("add", get("seed"), const(start[lane]))) for lane in lanes)}
   (loop $stripe {" ".join(rounds)} {step(32)} (br_if $stripe {fits(32)}))
   {put("h", mixed)} {" ".join(merges)})
  (else {put("h", op("add", get("seed"), const(P5)))}))
 {put("h", op("add", h, f"(i64.extend_i32_u {get('n')})"))}
 (block $done (loop $words (br_if $done (i32.eqz {fits(8)}))
  {put("h", op("add", op("mul", rotl(eight, 27), const(P1)), const(P4)))} {step(8)} (br $words)))
 (if {fits(4)} (then {put("h", op("add", op("mul", rotl(four, 23), const(P2)), const(P3)))} {step(4)}))
 (block $done (loop $bytes (br_if $done (i32.eqz {fits(1)}))
  {put("h", op("mul", rotl(one, 11), const(P1)))} {step(1)} (br $bytes)))
 {put("h", op("mul", op("xor", h, op("shr_u", h, const(33))), const(P2)))}
 {put("h", op("mul", op("xor", h, op("shr_u", h, const(29))), const(P3)))}
 {op("xor", h, op("shr_u", h, const(32)))})"""


def _desk(at: int, value: str | None = None) -> str:
    """Load from, or store to, a byte of the desk."""
    if value is None:
        return f"(i64.load $desk offset={at} (i32.const 0))"
    return f"(i64.store $desk offset={at} (i32.const 0) {value})"


def _mix(words: tuple[str, ...], x: str, y: str) -> str:
    """The function G, on locals."""
    (a, b, c, d), lines = words, []
    for word, first, second in ((x, 32, 24), (y, 16, 63)):
        lines += [
            put(a, op("add", get(a), get(b), get(word))),
            put(d, op("rotr", op("xor", get(d), get(a)), const(first))),
            put(c, op("add", get(c), get(d))),
            put(b, op("rotr", op("xor", get(b), get(c)), const(second))),
        ]
    return "\n".join(lines)


def _compress() -> str:
    """The function F: the block on the desk into the chained value. `end`: bytes so far; `last`: all ones in the last
    block, else 0."""
    v, m = [f"v{i}" for i in range(16)], [f"m{i}" for i in range(16)]
    start = [_desk(CHAINED + 8 * i) for i in range(8)] + [const(word) for word in IV]
    start[12] = op("xor", start[12], get("end"))
    start[14] = op("xor", start[14], get("last"))
    rounds = [
        _mix(tuple(v[i] for i in mix), m[SIGMA[turn % 10][2 * n]], m[SIGMA[turn % 10][2 * n + 1]])
        for turn in range(ROUNDS)
        for n, mix in enumerate(MIXES)
    ]
    chained = [_desk(CHAINED + 8 * i, op("xor", _desk(CHAINED + 8 * i), get(v[i]), get(v[i + 8]))) for i in range(8)]
    lines = (
        "(func $compress (param $end i64) (param $last i64)",
        *(f"(local ${name} i64)" for name in (*v, *m)),
        *(put(name, value) for name, value in zip(v, start, strict=True)),
        *(put(name, _desk(BLOCK + 8 * i)) for i, name in enumerate(m)),
        *rounds,
        *chained,
    )
    return "\n".join(lines) + ")"


def _absorb() -> str:
    """The whole message: block by block onto the desk, the last one with zeros behind it."""
    p, n, i = get("p"), get("n"), get("i")
    whole = [_desk(BLOCK + 8 * k, f"(i64.load offset={8 * k} {p})") for k in range(16)]
    empty = [_desk(BLOCK + 8 * k, const(0)) for k in range(16)]

    def copied(size: int, kind: str) -> str:
        more = f"(i32.le_u (i32.add {i} (i32.const {size})) {n})"
        load = f"(i64.{kind.replace('store', 'load')}{'_u' if size == 1 else ''} (i32.add {p} {i}))"
        return (
            f"(block $done (loop $next (br_if $done (i32.eqz {more}))"
            f" (i64.{kind} $desk offset={BLOCK} {i} {load})"
            f" {put('i', f'(i32.add {i} (i32.const {size}))')} (br $next)))"
        )

    first = [_desk(CHAINED + 8 * k, const(word)) for k, word in enumerate(IV)]
    first[0] = _desk(CHAINED, op("xor", const(IV[0] ^ 0x01010000), get("size")))
    return f"""(func $blake2b (param $span i64) (param $size i64)
 (local $p i32) (local $n i32) (local $i i32) (local $end i64)
 {put("p", f"(i32.wrap_i64 {get('span')})")}
 {put("n", f"(i32.wrap_i64 {op('shr_u', get('span'), const(32))})")}
 {" ".join(first)}
 (block $done (loop $next (br_if $done (i32.le_u {n} (i32.const 128)))
  {" ".join(whole)}
  {put("end", op("add", get("end"), const(128)))} (call $compress {get("end")} {const(0)})
  {put("p", f"(i32.add {p} (i32.const 128))")} {put("n", f"(i32.sub {n} (i32.const 128))")} (br $next)))
 {" ".join(empty)} {copied(8, "store")} {copied(1, "store8")}
 (call $compress {op("add", get("end"), f"(i64.extend_i32_u {n})")} {const(-1)}))"""


def _blake2_answer(bits: int) -> str:
    words = [f"(i64.store offset={at} {get('out')} {_desk(CHAINED + at)})" for at in range(0, bits // 8, 8)]
    return (
        f'(func (export "ext_hashing_blake2_{bits}_version_1") (param $span i64) (result i32) (local $out i32)'
        f" (call $blake2b {get('span')} {const(bits // 8)})"
        f" {put('out', f'(call $malloc (i32.const {bits // 8}))')} {' '.join(words)} {get('out')})"
    )
