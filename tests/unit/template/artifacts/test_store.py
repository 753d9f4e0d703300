"""One suite over every backend: what comes out is what went in, or an error that says whose fault it is."""

import asyncio
import os

import pytest

from protocol.artifacts import CHUNK_BYTES, Manifest, chunk_cid, manifest_cid
from protocol.errors import MalformedMessage
from template.artifacts.errors import (
    ArtifactCorrupt,
    ArtifactNotWritten,
    ArtifactTooLarge,
    ArtifactTooSlow,
    ArtifactUnavailable,
)
from template.artifacts.partial import PartialFile, partial_path
from template.artifacts.store import ArtifactLimits, ArtifactStore

LIMITS = ArtifactLimits(max_bytes=32 * CHUNK_BYTES, seconds=60.0)
ONE_BY_ONE = ArtifactLimits(max_bytes=32 * CHUNK_BYTES, seconds=60.0, at_once=1)
DATA = os.urandom(CHUNK_BYTES + 5)  # two chunks; a real server is not free
MANIFEST = Manifest.of(DATA)
HOSTILE = ["", "..", "../" + MANIFEST.cid, "/etc/passwd", MANIFEST.cid.upper(), MANIFEST.cid + "\x00", "b" + "a" * 58]


class Watched:
    """A backend that remembers what it was asked, and may be made to wait before it gives an object."""

    def __init__(self, backend):
        self.backend = backend
        self.got, self.sent = [], []
        self.held_back = {}

    def __getattr__(self, name):
        return getattr(self.backend, name)

    async def get(self, name, max_bytes):
        self.got.append(name)
        if name in self.held_back:
            await self.held_back[name].wait()
        return await self.backend.get(name, max_bytes)

    async def put(self, name, data):
        self.sent.append(name)
        await self.backend.put(name, data)


@pytest.fixture
def watched(backend):
    return Watched(backend)


@pytest.fixture
def store(watched):
    return ArtifactStore(watched)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out" / "file"


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, len(DATA)])
async def test_what_was_put_comes_back(store, target, tmp_path, size):
    given = tmp_path / "given"
    given.write_bytes(DATA[:size])
    cid = await store.put_file(given)
    assert cid == await store.put_bytes(DATA[:size]) == Manifest.of(DATA[:size]).cid
    assert await store.read(cid, LIMITS) == DATA[:size]
    assert await store.fetch(cid, target, LIMITS) == Manifest.of(DATA[:size])
    assert target.read_bytes() == DATA[:size]
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    assert (await store.verify(cid, LIMITS)).size == (await store.manifest(cid, LIMITS)).size == size


async def test_what_is_there_is_not_sent_again(store, watched):
    await store.put_bytes(DATA[:CHUNK_BYTES])
    watched.sent.clear()
    cid = await store.put_bytes(DATA)
    assert sorted(watched.sent) == sorted([*MANIFEST.chunks[1:], cid])
    watched.sent.clear()
    await store.put_bytes(DATA)
    assert watched.sent == []


async def test_the_manifest_is_sent_last(store, watched):
    cid = await store.put_bytes(DATA)
    assert watched.sent[-1] == cid and set(watched.sent[:-1]) == set(MANIFEST.chunks)


async def test_progress_ends_at_the_size(store, target, tmp_path):
    given, told = tmp_path / "given", []
    given.write_bytes(DATA)
    for work in (
        store.put_file(given, progress=lambda *pair: told.append(pair)),
        store.fetch(MANIFEST.cid, target, LIMITS, lambda *pair: told.append(pair)),
    ):
        told.clear()
        await work
        assert told == [(min(done * CHUNK_BYTES, len(DATA)), len(DATA)) for done in (1, 2)]


async def test_a_fetch_goes_on_where_it_was_cut(store, watched, target):
    cid = await store.put_bytes(DATA)
    await watched.delete(MANIFEST.chunks[1])
    with pytest.raises(ArtifactUnavailable):
        await store.fetch(cid, target, ONE_BY_ONE)
    assert not target.exists()
    assert partial_path(target, cid).read_bytes() == DATA[:CHUNK_BYTES]
    await store.put_bytes(DATA)
    watched.got.clear()
    await store.fetch(cid, target, ONE_BY_ONE)
    assert watched.got == [cid, *MANIFEST.chunks[1:]]
    assert target.read_bytes() == DATA and not partial_path(target, cid).exists()


async def test_only_verified_chunks_of_an_earlier_try_are_kept(store, watched, target):
    cid = await store.put_bytes(DATA)
    target.parent.mkdir()
    one = DATA[:CHUNK_BYTES]
    for left, good in ((DATA + b"more", 2), (one + b"x" * 5, 1), (one + DATA[-5:-1], 1), (b"x", 0)):
        watched.got.clear()
        partial_path(target, cid).write_bytes(left)
        await store.fetch(cid, target, LIMITS)
        assert target.read_bytes() == DATA
        assert sorted(watched.got[1:]) == sorted(MANIFEST.chunks[good:])


async def test_a_damaged_chunk_is_found_and_can_be_mended(store, watched, target):
    cid = await store.put_bytes(DATA)
    for instead in (b"", DATA[-5:-1], DATA[-5:] + b"x", bytes(5)):
        await watched.put(MANIFEST.chunks[1], instead)
        for work in (store.read(cid, LIMITS), store.verify(cid, LIMITS), store.fetch(cid, target, ONE_BY_ONE)):
            with pytest.raises(ArtifactCorrupt, match=r"chunk 1 .*damaged.*--resend"):
                await work
        assert not target.exists()
    await store.put_bytes(DATA, resend=True)
    assert await store.read(cid, LIMITS) == DATA


async def test_a_truncated_object_is_sent_again_without_being_told(store, watched):
    await store.put_bytes(DATA)
    await watched.put(MANIFEST.chunks[1], b"cut")
    await store.put_bytes(DATA)
    assert await store.read(MANIFEST.cid, LIMITS) == DATA


async def test_a_manifest_of_something_else_is_refused(store, watched):
    cid, other = await store.put_bytes(DATA), await store.put_bytes(b"other")
    await watched.put(cid, await watched.get(other, 1000))
    with pytest.raises(ArtifactCorrupt, match="something else"):
        await store.read(cid, LIMITS)


async def test_a_manifest_that_lies_about_the_size_is_refused(store, watched, target):
    await store.put_bytes(DATA)
    for size in (len(DATA) - 1, len(DATA) + 1):
        lie = Manifest(size, MANIFEST.chunks)
        await watched.put(lie.cid, lie.encode())
        for work in (store.read(lie.cid, LIMITS), store.fetch(lie.cid, target, LIMITS)):
            with pytest.raises(ArtifactCorrupt, match="chunk 1"):
                await work
    short_first = Manifest(len(DATA), (MANIFEST.chunks[1], MANIFEST.chunks[1]))
    await watched.put(short_first.cid, short_first.encode())
    with pytest.raises(ArtifactCorrupt, match="chunk 0"):
        await store.read(short_first.cid, LIMITS)


async def test_an_object_in_another_form_is_no_artifact(store, watched):
    for form in (b"", b"\xa0", MANIFEST.encode() + b"\x00", MANIFEST.encode()[:-1]):
        cid = manifest_cid(form)
        await watched.put(cid, form)
        with pytest.raises(ArtifactCorrupt, match="no artifact"):
            await store.read(cid, LIMITS)


async def test_an_artifact_above_the_limit_costs_one_small_request(store, watched, target):
    cid = await store.put_bytes(DATA)
    for max_bytes in (len(DATA) - 1, CHUNK_BYTES, 1, 0):  # by its size, and by that of its manifest
        limits = ArtifactLimits(max_bytes, 60.0)
        for work in (store.read(cid, limits), store.fetch(cid, target, limits), store.verify(cid, limits)):
            watched.got.clear()
            with pytest.raises(ArtifactTooLarge):
                await work
            assert watched.got == [cid]
    assert not target.parent.exists()
    assert await store.read(cid, ArtifactLimits(len(DATA), 60.0)) == DATA


async def test_an_artifact_that_comes_too_slowly_is_given_up(store, watched, target):
    cid = await store.put_bytes(DATA)
    watched.held_back[MANIFEST.chunks[1]] = asyncio.Event()
    short = ArtifactLimits(LIMITS.max_bytes, 0.5, at_once=1)
    with pytest.raises(ArtifactTooSlow):
        await store.read(cid, short)
    with pytest.raises(ArtifactTooSlow, match="goes on"):
        await store.fetch(cid, target, short)
    watched.held_back.clear()
    assert not target.exists()
    await store.fetch(cid, target, LIMITS)
    assert target.read_bytes() == DATA


async def test_a_cancelled_fetch_lets_go_of_its_file(store, watched, target):
    cid = await store.put_bytes(DATA)
    watched.held_back[MANIFEST.chunks[0]] = asyncio.Event()
    fetch = asyncio.create_task(store.fetch(cid, target, LIMITS))
    while MANIFEST.chunks[1] not in watched.got:
        await asyncio.sleep(0.01)
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    assert asyncio.all_tasks() == {asyncio.current_task()}
    watched.held_back.clear()
    await store.fetch(cid, target, LIMITS)
    assert target.read_bytes() == DATA


async def test_chunks_that_follow_are_on_their_way_meanwhile(store, watched):
    long = DATA[:CHUNK_BYTES] + bytes(CHUNK_BYTES) + b"x"
    cid, chunks = await store.put_bytes(long), Manifest.of(long).chunks
    first = watched.held_back[chunks[0]] = asyncio.Event()
    reading = asyncio.create_task(store.read(cid, ArtifactLimits(LIMITS.max_bytes, 60.0, at_once=2)))
    while len(watched.got) < 3:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert watched.got == [cid, *chunks[:2]]  # and no more than were allowed
    first.set()
    assert await reading == long


async def test_the_same_content_put_by_several_at_once(backend, store):
    cids = await asyncio.gather(*(ArtifactStore(backend).put_bytes(DATA) for _ in range(4)))
    assert set(cids) == {MANIFEST.cid}
    assert await store.read(MANIFEST.cid, LIMITS) == DATA
    assert set(await backend.list(100)) == {MANIFEST.cid, *MANIFEST.chunks}


async def test_what_is_no_address_is_never_asked_for(store, watched, target):
    for cid in (*HOSTILE, MANIFEST.chunks[0]):
        for work in (store.read(cid, LIMITS), store.fetch(cid, target, LIMITS), store.verify(cid, LIMITS)):
            with pytest.raises(MalformedMessage):
                await work
    assert watched.got == [] and not target.parent.exists()


async def test_a_backend_takes_no_name_but_an_address(backend):
    for name in HOSTILE:
        for work in (backend.get(name, 10), backend.put(name, b"x"), backend.size(name), backend.delete(name)):
            with pytest.raises(MalformedMessage):
                await work


async def test_objects(backend):
    name = chunk_cid(b"content")
    assert await backend.size(name) is None and await backend.list(10) == ()
    await backend.delete(name)
    with pytest.raises(ArtifactUnavailable, match="no object"):
        await backend.get(name, 10)
    await backend.put(name, b"content")
    await backend.put(name, b"content")
    assert await backend.size(name) == 7 and await backend.get(name, 7) == b"content"
    with pytest.raises(ArtifactTooLarge):
        await backend.get(name, 6)
    await backend.delete(name)
    assert await backend.size(name) is None


async def test_names_are_listed_in_order_and_in_pages(backend):
    names = sorted(chunk_cid(bytes([number])) for number in range(7))
    for name in reversed(names):
        await backend.put(name, b"x")
    assert await backend.list(100) == tuple(names)
    assert await backend.list(3) == tuple(names[:3])
    assert await backend.list(3, names[2]) == tuple(names[3:6])
    assert await backend.list(3, names[6]) == ()


async def test_pruning_leaves_what_is_needed(store, watched):
    keep, drop = await store.put_bytes(DATA), await store.put_bytes(DATA[:CHUNK_BYTES] + b"other")
    assert await store.prune([keep]) == 2  # the manifest and the second chunk; the first one is shared
    assert await store.read(keep, LIMITS) == DATA
    with pytest.raises(ArtifactUnavailable):
        await store.read(drop, LIMITS)
    before = await watched.list(100)
    with pytest.raises(ArtifactUnavailable):
        await store.prune([keep, drop])
    assert await watched.list(100) == before


async def test_an_own_disk_that_fails_is_not_the_peers_fault(store, tmp_path):
    cid = await store.put_bytes(b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArtifactNotWritten):
        await store.fetch(cid, tmp_path / "file" / "below", LIMITS)
    with pytest.raises(ArtifactNotWritten):
        await store.put_file(tmp_path / "missing")


async def test_one_fetch_at_a_time_writes_a_file(store, target):
    cid = await store.put_bytes(DATA)
    with PartialFile(target, MANIFEST), pytest.raises(ArtifactNotWritten, match="already"):
        await store.fetch(cid, target, LIMITS)
    results = await asyncio.gather(*(store.fetch(cid, target, LIMITS) for _ in range(3)), return_exceptions=True)
    assert any(isinstance(result, Manifest) for result in results)
    assert all(isinstance(result, (Manifest, ArtifactNotWritten)) for result in results)
    assert target.read_bytes() == DATA


def test_limits_are_positive():
    for wrong in ((-1, 1.0, 1), (1, 0.0, 1), (1, 1.0, 0)):
        with pytest.raises(ValueError):
            ArtifactLimits(*wrong)
