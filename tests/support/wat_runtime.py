"""A runtime written by hand: small enough to read, large enough to make blocks, and as badly behaved as it is told.

    code()                 the module, with the custom sections that a Substrate runtime has
    bare(op, rest)         an extrinsic that makes `BlockBuilder_apply_extrinsic` do one thing, see OPS
    STORED, LOG            keys under which it leaves what a test looks at

Block functions are real: the header is kept in storage, `finalize` writes the state root into it. The metadata has a
Sudo pallet and signed extrinsics, whose sr25519 signature over MESSAGE is checked.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2b

import wasmtime

from localnet.codec import metadata
from localnet.codec.document import twox128
from localnet.codec.scale import compact, opaque
from localnet.node.extrinsic import frame

STATIC = 1 << 20  # where data begins: the stack is below
HEAP = STATIC + 0x4000
HEADER, LOG, STORED, GENESIS = b"header", b"log", b"stored", b"genesis"
MESSAGE = b"hello"
PANIC = b"panicked at 'the weights do not add up', pallets/test/src/lib.rs:42:9"
NONCE = 5
SUDO_KEY = twox128(b"Sudo") + twox128(b"Key")
MISSING = "ext_nobody_has_this_version_1"

IMPORTS = {
    "ext_storage_set_version_1": "(param i64 i64)",
    "ext_storage_get_version_1": "(param i64) (result i64)",
    "ext_storage_read_version_1": "(param i64 i64 i32) (result i64)",
    "ext_storage_exists_version_1": "(param i64) (result i32)",
    "ext_storage_append_version_1": "(param i64 i64)",
    "ext_storage_root_version_2": "(param i32) (result i64)",
    "ext_storage_start_transaction_version_1": "",
    "ext_storage_commit_transaction_version_1": "",
    "ext_storage_rollback_transaction_version_1": "",
    "ext_hashing_twox_64_version_1": "(param i64) (result i32)",
    "ext_hashing_twox_128_version_1": "(param i64) (result i32)",
    "ext_hashing_twox_256_version_1": "(param i64) (result i32)",
    "ext_hashing_blake2_128_version_1": "(param i64) (result i32)",
    "ext_hashing_blake2_256_version_1": "(param i64) (result i32)",
    "ext_logging_log_version_1": "(param i32 i64 i64)",
    "ext_crypto_sr25519_verify_version_2": "(param i32 i64 i32) (result i32)",
    "ext_allocator_malloc_version_1": "(param i32) (result i32)",
    "ext_allocator_free_version_1": "(param i32)",
    MISSING: "(param i64) (result i32)",
}
SHORT = {
    name: "$" + name.removeprefix("ext_").removesuffix("_version_1").removesuffix("_version_2") for name in IMPORTS
}

APPEND = "(call $storage_append {LOG} (call $span (i32.add (local.get $p) (i32.const 2)) (i32.const 1)))"
STORE = "(call $storage_set {STORED} (call $span (i32.const {SCRATCH}) (i32.const {size})))"
FOREVER = "(loop $forever {body} (br $forever))"

OPS = {  # first byte of the call -> what is done
    "append": "(call $storage_start_transaction) {APPEND} (call $storage_commit_transaction)",
    "append and roll back": "(call $storage_start_transaction) {APPEND} (call $storage_rollback_transaction)",
    "trap": "{APPEND} unreachable",
    "panic": "(call $logging_log (i32.const 0) {TARGET} {PANIC}) unreachable",
    "loop": "(loop $forever (br $forever))",
    "loop over the host": "(loop $forever (drop (call $storage_exists {LOG})) (br $forever))",
    "recurse": "(call $deeper (i32.const 1))",
    "read out of range": "(drop (call $storage_get (i64.const 0x00001000ffffff00)))",
    "write out of range": "(drop (call $storage_read {LOG} (i64.const 0x00000010ffffff00) (i32.const 0)))",
    "answer out of range": "(return (i64.const 0x00000010fffffff8))",
    "answer too much": "(return (i64.const 0x7fffffff00000010))",
    "access out of range": "(i32.store (i32.const 0xfffffff0) (i32.const 1))",
    "grow": "(block $full (loop $more (br_if $full (i32.eq (memory.grow (i32.const 16)) (i32.const -1))) (br $more)))"
    " (i32.store (i32.const {SCRATCH}) (memory.size)) {STORE4}",
    "allocate": "(loop $forever (drop (call $allocator_malloc (i32.const 33554432))) (br $forever))",
    "allocate too much": "(drop (call $allocator_malloc (i32.const 33554433)))",
    "free twice": "(local.set $q (call $allocator_malloc (i32.const 100))) (call $allocator_free (local.get $q))"
    " (call $allocator_free (local.get $q))",
    "free what is not": "(call $allocator_free (i32.const {SCRATCH}))",
    "overwrite a header": "(local.set $q (call $allocator_malloc (i32.const 100)))"
    " (call $allocator_free (local.get $q))"
    " (i32.store (i32.sub (local.get $q) (i32.const 8)) (i32.const 16))"
    " (drop (call $allocator_malloc (i32.const 100)))",
    "call what is missing": "(drop (call $nobody_has_this (i64.const 0)))",
    "leave a transaction open": "(call $storage_start_transaction) {APPEND}",
    "trap in a transaction": "(call $storage_start_transaction) {APPEND} (call $storage_start_transaction) unreachable",
    "commit what is not open": "(call $storage_commit_transaction)",
    "write without end": "(loop $forever (call $storage_set {STORED} (call $span (i32.const 0) (i32.const 65536)))"
    " (br $forever))",
    "append without end": "(loop $forever (call $storage_append {LOG} (call $span (i32.const 0) (i32.const 65536)))"
    " (br $forever))",
    "open without end": "(loop $forever (call $storage_start_transaction) (br $forever))",
    "count": "(global.set $counter (i32.add (global.get $counter) (i32.const 1)))"
    " (i32.store (i32.const {STATE}) (i32.add (i32.load (i32.const {STATE})) (i32.const 1)))"
    " (i32.store (i32.const {SCRATCH}) (global.get $counter))"
    " (i32.store (i32.const {SCRATCH4}) (i32.load (i32.const {STATE}))) {STORE8}",
    "hash": "{HASHES} (call $storage_set {STORED} (call $span (i32.const {SCRATCH}) (i32.const 104)))",
    "allocate and free": "(local.set $n (i32.const 0)) (loop $again"
    " (local.set $q (call $allocator_malloc (local.get $n))) (i32.store8 (local.get $q) (i32.const 255))"
    " (call $allocator_free (local.get $q))"
    " (local.set $n (i32.add (local.get $n) (i32.const 7)))"
    " (br_if $again (i32.lt_u (local.get $n) (i32.const 70000))))",
}
NUMBER = {name: index + 1 for index, name in enumerate(OPS)}
STALE = 0xFF
POOR = b"\xff" * 32  # the account that cannot pay


def bare(op: str | int, rest: bytes = b"") -> bytes:
    """An extrinsic nobody signed."""
    number = NUMBER[op] if isinstance(op, str) else op
    return frame(bytes((0x04, number)) + rest)


class _Data:
    """Constants of the module; `span` is an expression for where one lies."""

    def __init__(self) -> None:
        self.segments: list[tuple[int, bytes]] = []
        self._next = STATIC + 0x400

    def put(self, data: bytes) -> int:
        at, self._next = self._next, (self._next + len(data) + 15) & ~15
        self.segments.append((at, data))
        return at

    def span(self, data: bytes) -> str:
        return f"(i64.const {self.put(data) | len(data) << 32})"

    def text(self) -> str:
        escaped = ((at, "".join(f"\\{byte:02x}" for byte in data)) for at, data in self.segments)
        return "\n".join(f'(data (i32.const {at}) "{data}")' for at, data in escaped)


def runtime_version(spec: int, system: int = 1) -> bytes:
    apis = compact(1) + CORE_API
    return opaque(b"wat") + opaque(b"wat") + struct.pack("<III", 1, spec, 1) + apis + struct.pack("<IB", 1, system)


CORE_API = blake2b(b"Core", digest_size=8).digest() + struct.pack("<I", 4)


def _section(name: str, data: bytes) -> bytes:
    def leb(value: int) -> bytes:
        return bytes((value & 0x7F | 0x80, value >> 7)) if value > 0x7F else bytes((value,))

    body = leb(len(name)) + name.encode() + data
    return b"\0" + leb(len(body)) + body


def code(spec: int = 1, *, own_memory: bool = False, extra: str = "", slot_ms: int = 1000) -> bytes:
    """The module. `own_memory`: it exports its memory, as old runtimes do; `extra`: more text for it."""
    return _code(spec, own_memory, extra, slot_ms)


@lru_cache(maxsize=8)
def _code(spec: int, own_memory: bool, extra: str, slot_ms: int) -> bytes:
    sections = _section("runtime_version", runtime_version(spec)) + _section("runtime_apis", CORE_API)
    return bytes(wasmtime.wat2wasm(source(spec, own_memory, extra, slot_ms))) + sections


def source(spec: int = 1, own_memory: bool = False, extra: str = "", slot_ms: int = 1000) -> str:
    data = _Data()
    words = {name: data.span(value) for name, value in (("HEADER", HEADER), ("LOG", LOG), ("STORED", STORED))}
    words |= {"TARGET": data.span(b"test"), "PANIC": data.span(PANIC), "MESSAGE": data.span(MESSAGE)}
    words |= {"SCRATCH": str(STATIC), "SCRATCH4": str(STATIC + 4), "STATE": str(STATIC + 0x300)}
    words["APPEND"] = APPEND.format(**words)
    words |= {f"STORE{size}": STORE.format(size=size, **words) for size in (4, 8)}
    words["HASHES"] = _hashes()
    memory = '(memory (export "memory") 17)' if own_memory else '(import "env" "memory" (memory 17))'
    imports = [f'(import "env" "{name}" (func {_short(name)} {kind}))' for name, kind in IMPORTS.items()]
    return "\n".join(
        (
            "(module",
            *([] if own_memory else [memory]),
            *imports,
            *([memory] if own_memory else []),
            f"(global $stack (mut i32) (i32.const {STATIC})) (global $counter (mut i32) (i32.const 0))",
            f'(global (export "__heap_base") i32 (i32.const {HEAP}))',
            _functions(data, words, spec, slot_ms),
            extra,
            data.text(),
            ")",
        )
    )


def _short(name: str) -> str:
    return "$nobody_has_this" if name == MISSING else SHORT[name]


def _hashes() -> str:
    """Of everything behind the first byte of the call, one after the other into the scratch."""
    out, at = [], STATIC
    for name, size in (("twox_64", 8), ("twox_128", 16), ("twox_256", 32), ("blake2_128", 16), ("blake2_256", 32)):
        out.append(
            f"(local.set $q (call $hashing_{name} (call $span (i32.add (local.get $p) (local.get $skip))"
            " (i32.sub (local.get $n) (local.get $skip)))))"
        )
        out += [f"(i64.store (i32.const {at + i}) (i64.load offset={i} (local.get $q)))" for i in range(0, size, 8)]
        at += size
    return "(local.set $skip (i32.add (call $prefix (i32.load8_u (local.get $p))) (i32.const 2))) " + " ".join(out)


def _constant(name: str, span: str) -> str:
    return f'(func (export "{name}") (param i32 i32) (result i64) {span})'


def _functions(data: _Data, words: dict[str, str], spec: int, slot_ms: int) -> str:
    answers = (b"\0", b"\0\0", b"\1\0\3", b"\1\0\4", b"\1\0\1")
    ok, done, stale, bad, poor = (data.span(raw) for raw in answers)
    bodies = {number: f"(then {OPS[name].format(**words)} (return {done}))" for name, number in NUMBER.items()}
    ops = "\n".join(f"(if (i32.eq (local.get $op) (i32.const {number})) {body})" for number, body in bodies.items())
    moves = ((32 + at, f"(i64.load offset={at} (local.get $root))") for at in range(0, 32, 8))
    root = " ".join(f"(i64.store offset={at} (local.get $skip) {value})" for at, value in moves)
    valid = data.put(b"\0" + bytes(8) + b"\0" + b"\4\4\0" + b"\xff" * 8 + b"\1")
    return f"""
(func $span (param i32 i32) (result i64)
 (i64.or (i64.extend_i32_u (local.get 0)) (i64.shl (i64.extend_i32_u (local.get 1)) (i64.const 32))))
(func $prefix (param $byte i32) (result i32)
 (local.set $byte (i32.and (local.get $byte) (i32.const 3)))
 (i32.shl (i32.const 1) (local.get $byte)))
(func $deeper (param i32) (call $deeper (i32.add (local.get 0) (i32.const 1))) (drop (memory.size)))
{_constant("Core_version", data.span(runtime_version(spec)))}
{_constant("AuraApi_slot_duration", data.span(struct.pack("<Q", slot_ms)))}
{_constant("AccountNonceApi_account_nonce", data.span(struct.pack("<I", NONCE)))}
{_constant("Metadata_metadata", data.span(opaque(metadata_v14())))}
{_constant("Metadata_metadata_at_version", ok)}
{_constant("BlockBuilder_inherent_extrinsics", ok)}
{_constant("GenesisBuilder_get_preset", data.span(bytes((1,)) + opaque(b"{}")))}
(func (export "GenesisBuilder_build_state") (param $p i32) (param $n i32) (result i64)
 (call $storage_set {data.span(GENESIS)} (call $span (local.get $p) (local.get $n))) {ok})
(func (export "Core_initialize_block") (param $p i32) (param $n i32) (result i64)
 (call $storage_set {words["HEADER"]} (call $span (local.get $p) (local.get $n))) {ok})
(func (export "TaggedTransactionQueue_validate_transaction") (param $p i32) (param $n i32) (result i64) (local $op i32)
 (local.set $op (i32.load8_u (i32.add (local.get $p)
   (i32.add (i32.const 2) (call $prefix (i32.load8_u offset=1 (local.get $p)))))))
 (if (i32.eq (local.get $op) (i32.const {STALE})) (then (return {stale})))
 (i32.store8 (i32.const {valid + 12}) (local.get $op))
 (call $span (i32.const {valid}) (i32.const 22)))
(func (export "BlockBuilder_apply_extrinsic") (param $p i32) (param $n i32) (result i64)
 (local $op i32) (local $q i32) (local $skip i32)
 (local.set $q (i32.add (local.get $p) (call $prefix (i32.load8_u (local.get $p)))))
 (if (i32.eq (i32.load8_u (local.get $q)) (i32.const 0x84)) (then
   (call $storage_set {words["STORED"]} (call $span (local.get $p) (local.get $n)))
   (if (i32.eqz (call $crypto_sr25519_verify (i32.add (local.get $q) (i32.const 35)) {words["MESSAGE"]}
     (i32.add (local.get $q) (i32.const 2)))) (then (return {bad})))
   (if (i64.eq (i64.load (i32.add (local.get $q) (i32.const 2))) (i64.const -1)) (then (return {poor})))
   (return {done})))
 (local.set $op (i32.load8_u offset=1 (local.get $q)))
 {ops}
 {stale})
(func (export "BlockBuilder_finalize_block") (param i32 i32) (result i64) (local $h i64) (local $p i32) (local $n i32)
 (local $root i32) (local $skip i32)
 (local.set $h (call $storage_get {words["HEADER"]}))
 (local.set $p (i32.wrap_i64 (local.get $h))) (local.set $n (i32.wrap_i64 (i64.shr_u (local.get $h) (i64.const 32))))
 (local.set $skip (i32.add (i32.const 1) (call $prefix (i32.load8_u offset=1 (local.get $p)))))
 (local.set $p (i32.add (local.get $p) (local.get $skip))) (local.set $n (i32.sub (local.get $n) (local.get $skip)))
 (local.set $root (i32.wrap_i64 (call $storage_root (i32.const 1))))
 (local.set $skip (i32.add (local.get $p) (call $prefix (i32.load8_u offset=32 (local.get $p)))))
 {root}
 (call $span (local.get $p) (local.get $n)))"""


@lru_cache(maxsize=1)
def metadata_v14() -> bytes:
    """The smallest that a node and its clients can work with."""

    def field(name: str | None, type_id: int) -> dict[str, object]:
        return {"name": name, "type": type_id, "type_name": None, "docs": []}

    def variant(name: str, index: int, *fields: dict[str, object]) -> dict[str, object]:
        return {"name": name, "fields": list(fields), "index": index, "docs": []}

    def entry(index: int, path: list[str], definition: dict[str, object], params: list[object] | None = None):
        return {"id": index, "path": path, "params": params or [], "def": definition, "docs": []}

    u8, key, address, signature, call, sudo, extrinsic, u32, nothing, era, nonce = range(11)
    types = [
        entry(u8, [], {"primitive": "u8"}),
        entry(key, [], {"array": {"len": 32, "type": u8}}),
        entry(
            address, ["sp_runtime", "multiaddress", "MultiAddress"], {"variant": [variant("Id", 0, field(None, key))]}
        ),
        entry(signature, ["sp_runtime", "MultiSignature"], {"variant": []}),
        entry(call, ["wat", "RuntimeCall"], {"variant": [variant("Sudo", 3, field(None, sudo))]}),
        entry(sudo, ["pallet_sudo", "pallet", "Call"], {"variant": [variant("sudo", 0, field("call", call))]}),
        entry(
            extrinsic,
            ["sp_runtime", "generic", "UncheckedExtrinsic"],
            {"composite": [field(None, u8)]},
            [["Address", address], ["Call", call], ["Signature", signature], ["Extra", nothing]],
        ),
        entry(u32, [], {"primitive": "u32"}),
        entry(nothing, [], {"tuple": []}),
        entry(era, ["sp_runtime", "generic", "era", "Era"], {"variant": [variant("Immortal", 0)]}),
        entry(nonce, [], {"compact": u32}),
    ]
    storage = {
        "name": "Key",
        "modifier": "Optional",
        "hashers": [],
        "key": None,
        "value": key,
        "default": b"\0",
        "docs": [],
    }
    pallet = {
        "name": "Sudo", "storage": {"prefix": "Sudo", "entries": [storage]}, "calls": sudo, "event": None,
        "constants": [], "error": None, "index": 3, "docs": [],
    }  # fmt: skip
    extensions = [("CheckMortality", era, key), ("CheckNonce", nonce, nothing), ("CheckGenesis", nothing, key)]
    tree = {
        "version": 14,
        "types": types,
        "pallets": [pallet],
        "extrinsic": {
            "type": extrinsic,
            "version": 4,
            "extensions": [{"id": name, "type": kind, "additional": more} for name, kind, more in extensions],
        },
        "runtime_type": nothing,
    }
    return metadata.encode(tree)
