"""An artifact is had from whichever place has it, the own store first; no place can spoil it or stop the search."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.artifacts import Manifest
from template.artifacts import s3
from template.artifacts.directory import DirectoryBackend
from template.artifacts.errors import ArtifactTooLarge, ArtifactUnavailable
from template.artifacts.store import ArtifactLimits, ArtifactStore
from template.training import peers as module
from template.training.peers import Peers
from tests.support.s3 import answer, s3_server, scripted

DATA = b"a contribution"
CID = Manifest.of(DATA).cid
MOST = 1000


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[ArtifactStore]:
    async with ArtifactStore(DirectoryBackend(tmp_path / "own")) as store:
        yield store


async def test_the_own_store_comes_first_and_nobody_is_asked(own: ArtifactStore) -> None:
    await own.put_bytes(DATA)
    async with scripted(answer("404 Not Found")) as other, Peers(own, allow_local=True) as peers:
        assert await peers.fetch(CID, [other.location().encode()], MOST) == DATA
        assert other.requests == []


async def test_real_buckets_are_asked_in_turn_until_one_has_it(
    tmp_path: Path, own: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 1)
    folder = tmp_path / "buckets"
    folder.mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / CID).write_bytes(b"damaged")
    with s3_server(folder) as server:
        places = []
        for name in ("empty", "liar", "good"):
            server.make_bucket(name)
            places.append(server.location(name).encode())
        (folder / "liar" / CID).write_bytes(Manifest.of(b"something else").encode())
        good = DirectoryBackend(folder / "good")  # the server serves this folder
        await ArtifactStore(good).put_bytes(DATA)
        nonsense = ["", "nowhere", places[0].replace("/1 ", "/9 "), places[0] + " more"]
        async with Peers(own, allow_local=True) as peers:
            for _ in range(2):  # closed in between: no more than one store stays open
                assert await peers.fetch(CID, [*nonsense, *places], MOST) == DATA
                assert list(peers._stores) == [places[-1]]
            with pytest.raises(ArtifactUnavailable, match=CID):
                await peers.fetch(CID, [*nonsense, *places[:2]], MOST)
            with pytest.raises(ArtifactTooLarge):
                await peers.fetch(CID, places, len(DATA) - 1)
    assert await ArtifactStore(good).read(CID, ArtifactLimits(MOST, 10.0)) == DATA


async def test_when_no_place_gives_it_the_error_says_what_each_said(own: ArtifactStore) -> None:
    async with scripted(answer("404 Not Found")) as empty, scripted(answer("200 OK", b"else")) as liar:
        places = [empty.location().encode(), liar.location().encode()]
        async with Peers(own, allow_local=True) as peers:
            with pytest.raises(ArtifactUnavailable, match=r"has no object .*; what .* is something else"):
                await peers.fetch(CID, [*places, *places], MOST)
            assert [len(server.requests) for server in (empty, liar)] == [1, 1], "the same place was asked twice"
            with pytest.raises(ArtifactUnavailable, match="nobody says where it is"):
                await peers.fetch(CID, [], MOST)


async def test_a_location_may_not_lead_into_the_own_network(own: ArtifactStore) -> None:
    async with scripted(answer("200 OK", Manifest.of(DATA).encode())) as inside, Peers(own) as peers:
        with pytest.raises(ArtifactUnavailable, match="may not be called"):
            await peers.fetch(CID, [inside.location().encode()], MOST)
        assert inside.requests == []
