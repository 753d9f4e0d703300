"""The companion: a small Wasm module between a runtime and Python, made for the runtime's imports.

A call from Wasm into Python costs what its arguments cost to hand over, so the companion hands over none: it writes
them into a page of memory of its own (the *desk*, which the runtime cannot reach), calls a function without parameters,
and takes the result from the desk. What needs no Python it does itself: the allocator and the hashes of storage keys.

    desk, 64-bit slots   0-15 arguments, 0 also the result; SPARE a block ready to be filled; BUMP, BASE, FAULT;
                         from HEADS on the first free block of each size
    allocator            sizes of 8 << order bytes, each block behind a header of 8 bytes: order and 1 while it is in
                         use, next free block and 0 while it is not: the rules of sp_allocator's freeing_bump

The spare block is taken before every call, so that nearly every answer finds its place without a second crossing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from localnet.wasm.binary import NAMES, Signature
from localnet.wasm.companion_hashes import HASHES, hash_functions
from localnet.wasm.limits import MAX_ALLOCATION

SPARE, BUMP, BASE, FAULT = 16, 17, 18, 19  # slots
SLOTS = 16  # arguments at most
HEADS = 32  # slot of the first list head; one slot for each of ORDERS
ORDERS = 23  # 8 bytes to 32 MiB
SPARE_SIZE = 256  # bytes
RESET = slice(SPARE, HEADS + ORDERS)  # what is written before every call
FAULTS = {
    1: "the runtime asked for more than 32 MiB in one allocation",
    2: "the runtime's memory is used up",
    3: "the runtime freed what was not allocated, or freed it twice",
    4: "the runtime overwrote the header of a free block",
}
MALLOC = "!malloc"  # what the host calls; no import can have this name
ALLOCATOR = ("ext_allocator_malloc_version_1", "ext_allocator_free_version_1")
OWN = frozenset((*ALLOCATOR, *HASHES))


def reset_values(heap_base: int) -> tuple[int, ...]:
    """The slots of RESET for an empty heap."""
    base = (heap_base + 7) & ~7
    values = {SPARE: 0, BUMP: base, BASE: base, FAULT: 0}
    return tuple(values.get(slot, 0) for slot in range(RESET.start, RESET.stop))


def source(imports: Mapping[str, Signature], from_python: Iterable[str]) -> str:
    """The module as text. `from_python`: imports that the host answers; it imports each as a function of its own.

    What is neither in there nor the companion's own is left out: the engine reports it.
    """
    asked = [name for name in from_python if name in imports]
    received = [f'(import "host" "{name}" (func $host:{name}))' for name in asked]
    handed = [_crossing(name, imports[name]) for name in asked]
    return "\n".join(
        (
            '(module (import "env" "memory" (memory 0))',
            '(import "host" "desk" (memory $desk 1))',
            *received,
            _MALLOC,
            _FREE,
            hash_functions(),
            *handed,
            ")",
        )
    )


def _at(slot: int) -> str:
    return f"offset={8 * slot}"


def _crossing(name: str, signature: Signature) -> str:
    parameters, results = signature
    types = "".join(f" (param {NAMES[kind]})" for kind in parameters)
    types += "".join(f" (result {NAMES[kind]})" for kind in results)
    lines = [f'(func (export "{name}"){types}']
    if results:
        spare = f"(i64.extend_i32_u (call $malloc (i32.const {SPARE_SIZE})))"
        lines.append(
            f"(if (i64.eqz (i64.load $desk {_at(SPARE)} (i32.const 0)))"
            f" (then (i64.store $desk {_at(SPARE)} (i32.const 0) {spare})))"
        )
    for index, kind in enumerate(parameters):
        wide = f"(local.get {index})" if NAMES[kind] == "i64" else f"(i64.extend_i32_u (local.get {index}))"
        lines.append(f"(i64.store $desk {_at(index)} (i32.const 0) {wide})")
    lines.append(f"(call $host:{name})")
    if results:
        result = "(i64.load $desk (i32.const 0))"
        lines.append(result if NAMES[results[0]] == "i64" else f"(i32.wrap_i64 {result})")
    return "\n ".join(lines) + ")"


def can_cross(signature: Signature) -> bool:
    """Whether a function of this type can be handed over: integers only, at most one result."""
    parameters, results = signature
    integers = all(NAMES.get(kind) in ("i32", "i64") for kind in (*parameters, *results))
    return integers and len(parameters) <= SLOTS and len(results) <= 1


_FAULT = f"""(func $fault (param i64)
 (i64.store $desk {_at(FAULT)} (i32.const 0) (local.get 0)) unreachable)"""

_MALLOC = f"""{_FAULT}
(func $grow (param $end i64) (local $missing i32)
 (if (i64.gt_u (local.get $end) (i64.const 4294967296)) (then (call $fault (i64.const 2))))
 (local.set $missing (i32.wrap_i64 (i64.shr_u (i64.add (i64.const 65535)
   (i64.sub (local.get $end) (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16)))) (i64.const 16))))
 (if (i32.eq (memory.grow (i32.add (local.get $missing) (i32.const 64))) (i32.const -1))
  (then (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then (call $fault (i64.const 2)))))))
(func $malloc (export "{MALLOC}") (export "ext_allocator_malloc_version_1") (param $size i32) (result i32)
 (local $order i32) (local $block i32) (local $end i64) (local $head i32)
 (if (i32.gt_u (local.get $size) (i32.const {MAX_ALLOCATION})) (then (call $fault (i64.const 1))))
 (if (i32.gt_u (local.get $size) (i32.const 8))
  (then (local.set $order (i32.sub (i32.const 29) (i32.clz (i32.sub (local.get $size) (i32.const 1)))))))
 (local.set $head (i32.add (i32.const {8 * HEADS}) (i32.shl (local.get $order) (i32.const 3))))
 (local.set $block (i32.wrap_i64 (i64.load $desk (local.get $head))))
 (if (local.get $block)
  (then
   (if (i32.load offset=4 (local.get $block)) (then (call $fault (i64.const 4))))
   (i64.store $desk (local.get $head) (i64.extend_i32_u (call $checked (i32.load (local.get $block))))))
  (else
   (local.set $end (i64.load $desk {_at(BUMP)} (i32.const 0)))
   (local.set $block (i32.wrap_i64 (local.get $end)))
   (local.set $end (i64.add (i64.add (local.get $end) (i64.const 8))
     (i64.shl (i64.const 8) (i64.extend_i32_u (local.get $order)))))
   (if (i64.gt_u (local.get $end) (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16)))
     (then (call $grow (local.get $end))))
   (i64.store $desk {_at(BUMP)} (i32.const 0) (local.get $end))))
 (i32.store (local.get $block) (local.get $order))
 (i32.store offset=4 (local.get $block) (i32.const 1))
 (i32.add (local.get $block) (i32.const 8)))
(func $checked (param $block i32) (result i32)
 (if (i32.eqz (local.get $block)) (then (return (i32.const 0))))
 (if (i32.or (i64.lt_u (i64.extend_i32_u (local.get $block)) (i64.load $desk {_at(BASE)} (i32.const 0)))
   (i64.gt_u (i64.add (i64.extend_i32_u (local.get $block)) (i64.const 16)) (i64.load $desk {_at(BUMP)} (i32.const 0))))
  (then (call $fault (i64.const 4))))
 (local.get $block))"""

_FREE = f"""(func (export "ext_allocator_free_version_1") (param $pointer i32) (local $block i32) (local $head i32)
 (if (i32.or
   (i64.lt_u (i64.extend_i32_u (local.get $pointer)) (i64.add (i64.load $desk {_at(BASE)} (i32.const 0)) (i64.const 8)))
   (i64.ge_u (i64.extend_i32_u (local.get $pointer)) (i64.load $desk {_at(BUMP)} (i32.const 0))))
  (then (call $fault (i64.const 3))))
 (local.set $block (i32.sub (local.get $pointer) (i32.const 8)))
 (if (i32.or (i32.ne (i32.load offset=4 (local.get $block)) (i32.const 1))
   (i32.ge_u (i32.load (local.get $block)) (i32.const {ORDERS})))
  (then (call $fault (i64.const 3))))
 (local.set $head (i32.add (i32.const {8 * HEADS}) (i32.shl (i32.load (local.get $block)) (i32.const 3))))
 (i32.store offset=4 (local.get $block) (i32.const 0))
 (i32.store (local.get $block) (i32.wrap_i64 (i64.load $desk (local.get $head))))
 (i64.store $desk (local.get $head) (i64.extend_i32_u (local.get $block))))"""
