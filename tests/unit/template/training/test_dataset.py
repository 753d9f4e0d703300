"""Datasets: built the same twice, read as they were built, refused when anything in them is not what it should be."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocol.artifacts import Manifest
from protocol.dataset import (
    MAX_MANIFEST_BYTES,
    MAX_NOTES,
    MAX_SHARD_TOKENS,
    MAX_SHARDS,
    DatasetManifest,
    Shard,
    dataset_id,
    decode_shard,
    encode_manifest,
)
from template.artifacts.directory import DirectoryBackend
from template.artifacts.errors import ArtifactCorrupt, ArtifactTooLarge, ArtifactUnavailable
from template.artifacts.store import ArtifactLimits, ArtifactStore
from template.training import building
from template.training.building import Aim, BuildFailed, Built, build, refuse_used
from template.training.dataset import Dataset, DatasetUnusable, fetch_manifest, own_store, read_manifest, verify
from template.training.texts import is_validation, mixed
from template.training.tokens import train

TEXTS = [
    f"Document {number} says {number * number} to the cat, and <|endoftext|> too.\n\nÉté." for number in range(200)
]
TOKENIZER = train(TEXTS, 300)
AIM = Aim("some-texts", TOKENIZER, shard_tokens=500, validation=0.1, sources=("here",), licences=("CC0",))


async def built(folder: Path, aim: Aim = AIM, texts: Sequence[str] = TEXTS) -> Built:
    return await build(aim, mixed(texts), folder, lambda text: None)


async def whole(folder: Path, cache: Path, split: str) -> np.ndarray:
    """Every token of a split, read as training does."""
    dataset = Dataset(read_manifest(folder), own_store(folder), cache)
    counts = dataset.tokens_of(split)
    await dataset.fetch(range(len(counts)), split)
    return np.concatenate([dataset.sequence(shard, 0, count, split) for shard, count in enumerate(counts)])


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


async def test_the_same_texts_make_the_same_dataset(tmp_path: Path) -> None:
    first, second = await built(tmp_path / "a"), await built(tmp_path / "b", texts=TEXTS[::-1])
    assert dataset_id(first.manifest) == dataset_id(second.manifest) and first.address == second.address
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"], "scratch folders are left"
    other = await built(tmp_path / "c", texts=TEXTS[:-1])
    assert dataset_id(other.manifest) != dataset_id(first.manifest)


async def test_every_document_is_in_its_split_once_and_ends_there(tmp_path: Path) -> None:
    made = await built(tmp_path / "a")
    assert (made.documents, made.text_bytes) == (200, sum(len(text.encode()) for text in TEXTS))
    expected = {"training": [], "validation": []}
    for batch in mixed(TEXTS):
        for document in batch:
            expected["validation" if is_validation(document.digest, 0.1) else "training"].append(document.text)
    tokens = 0
    for split, documents in expected.items():
        ids = await whole(tmp_path / "a", tmp_path / "cache", split)
        assert ids.dtype == np.int64 and ids[-1] == TOKENIZER.eos
        ends = np.flatnonzero(ids == TOKENIZER.eos)
        found = [TOKENIZER.decode(part[:-1]) for part in np.split(ids, ends + 1)[:-1]]
        assert found == documents and len(documents) > 5
        tokens += len(ids)
    assert made.tokens == tokens


async def test_shards_have_the_asked_for_size_and_only_the_last_is_shorter(tmp_path: Path) -> None:
    made = await built(tmp_path / "a")
    counts = [shard.tokens for shard in made.manifest.training]
    assert len(counts) > 3 and set(counts[:-1]) == {500} and 0 < counts[-1] <= 500
    large = await built(tmp_path / "b", replace(AIM, shard_tokens=2**20))
    assert [shard.tokens for shard in large.manifest.training] == [sum(counts)]
    ids = [await whole(tmp_path / name, tmp_path / "cache", "training") for name in ("a", "b")]
    assert ids[0].tolist() == ids[1].tolist()


async def test_a_shard_is_raw_tokens_of_the_width_that_the_vocabulary_needs(tmp_path: Path) -> None:
    wide = replace(AIM, tokenizer=replace(TOKENIZER, vocabulary=2**16 + 1))
    for name, aim, width in (("a", AIM, 2), ("b", wide, 4)):
        manifest = (await built(tmp_path / name, aim)).manifest
        shard = manifest.training[0]
        async with own_store(tmp_path / name) as store:
            data = await store.read(shard.cid, ArtifactLimits(2**20, 5.0))
        assert manifest.token_bytes == width and len(data) == shard.tokens * width
        assert decode_shard(data, manifest, shard).dtype == np.dtype(f"<u{width}")
        ids = await whole(tmp_path / name, tmp_path / "cache", "training")
        assert ids.tolist() == (await whole(tmp_path / "a", tmp_path / "cache", "training")).tolist()


async def test_sequences_are_windows_of_a_shard(tmp_path: Path) -> None:
    await built(tmp_path / "a")
    dataset = Dataset(read_manifest(tmp_path / "a"), own_store(tmp_path / "a"), tmp_path / "cache")
    await dataset.fetch([1, 1])
    shard = dataset.sequence(1, 0, 500)
    assert dataset.sequence(1, 37, 20).tolist() == shard[37:57].tolist()
    assert dataset.batch([(1, 480), (1, 0)], 19).tolist() == [shard[480:500].tolist(), shard[:20].tolist()]
    for start, length in ((-1, 5), (481, 20), (0, 0), (0, 501), (500, 1)):
        with pytest.raises(DatasetUnusable, match="500 tokens"):
            dataset.sequence(1, start, length)
    with pytest.raises(DatasetUnusable, match="not fetched"):
        dataset.sequence(0, 0, 5)
    with pytest.raises(DatasetUnusable, match="no training shard 99"):
        dataset.sequence(99, 0, 5)
    with pytest.raises(DatasetUnusable, match="no validation shard -1"):
        await dataset.fetch([-1], "validation")


async def test_the_manifests_address_is_all_that_another_machine_needs(tmp_path: Path) -> None:
    made = await built(tmp_path / "a")
    async with own_store(tmp_path / "a") as store:
        assert await fetch_manifest(store, made.address) == made.manifest
        with pytest.raises(DatasetUnusable, match="address of the dataset"):
            await fetch_manifest(store, made.manifest.training[0].cid)


async def test_a_fetched_shard_stays_and_a_damaged_copy_is_fetched_again(tmp_path: Path) -> None:
    made = await built(tmp_path / "a")
    shard, cache = made.manifest.training[0], tmp_path / "cache"
    dataset = Dataset(made.manifest, own_store(tmp_path / "a"), cache)
    await dataset.fetch([0])
    assert [file.name for file in cache.iterdir()] == [shard.cid]
    without_store = ArtifactStore(DirectoryBackend(tmp_path / "nothing"))
    await Dataset(made.manifest, without_store, cache).fetch([0])
    good = (cache / shard.cid).read_bytes()
    for damaged in (b"", good[:-2], bytes([good[0] ^ 1]) + good[1:], good + b"\x00\x00"):
        (cache / shard.cid).write_bytes(damaged)
        with pytest.raises(ArtifactUnavailable):
            await Dataset(made.manifest, without_store, cache).fetch([0])
        await Dataset(made.manifest, own_store(tmp_path / "a"), cache).fetch([0])
        assert (cache / shard.cid).read_bytes() == good


async def test_a_damaged_dataset_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    made = await built(folder)
    assert await verify(folder) == made.manifest
    for name in ("tokenizer.json", "manifest.json"):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(good + b" ")
        with pytest.raises(DatasetUnusable, match=name):
            await verify(folder)
        (folder / name).write_bytes(good)
    async with own_store(folder) as store:
        (chunk,) = (await store.manifest(made.manifest.validation[0].cid, ArtifactLimits(2**20, 5.0))).chunks
    (folder / "artifacts" / chunk).write_bytes(b"\x00" * (folder / "artifacts" / chunk).stat().st_size)
    with pytest.raises(ArtifactCorrupt):
        await verify(folder)
    with pytest.raises(DatasetUnusable, match="cannot read"):
        await verify(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (np.array([300, 1], "<u2").tobytes(), DatasetUnusable),  # outside the vocabulary
        (b"\x00\x00", DatasetUnusable),  # shorter than the manifest says
        (b"\x00" * 6, ArtifactTooLarge),  # longer
    ],
)
async def test_a_manifest_that_lies_about_its_shards_is_found(
    tmp_path: Path, data: bytes, error: type[Exception]
) -> None:
    async with own_store(tmp_path) as store:
        shard = Shard(cid=await store.put_bytes(data), tokens=2)
        manifest = AIM.manifest((shard,), ())
        dataset = Dataset(manifest.model_copy(update={"vocabulary": 300}), store, tmp_path / "cache")
        for _ in range(2):  # the copy that lies in the cache by then is not believed either
            with pytest.raises(error):
                await dataset.fetch([0])
            with pytest.raises(DatasetUnusable):
                dataset.sequence(0, 0, 1)


@pytest.mark.parametrize(
    "bad", [{"name": "A b"}, {"shard_tokens": 0}, {"validation": 0.6}, {"licences": ("",)}, {"sources": ("x",) * 65}]
)
def test_what_no_dataset_can_be_is_refused_before_the_work(bad: dict) -> None:
    with pytest.raises(BuildFailed):
        replace(AIM, **bad)


async def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    await built(tmp_path / "a")
    before = files_of(tmp_path / "a")
    with pytest.raises(BuildFailed, match="there already"):
        await built(tmp_path / "a", texts=["another"])
    assert files_of(tmp_path / "a") == before
    (tmp_path / "empty").mkdir()
    refuse_used(tmp_path / "empty")
    await built(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(BuildFailed, match="there already"):
        refuse_used(tmp_path / "file")
    with pytest.raises(BuildFailed, match="cannot write"):
        await built(tmp_path / "file" / "inside")


async def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking():
        yield from mixed(TEXTS[:100])
        raise BuildFailed("the texts end here")

    with pytest.raises(BuildFailed, match="end here"):
        await build(AIM, breaking(), tmp_path / "a", lambda text: None)
    with pytest.raises(BuildFailed, match="everybody else's is 00"):
        await built(tmp_path / "a", replace(AIM, expected_id="00"))
    with pytest.raises(BuildFailed, match="no document fell to validation"):
        await built(tmp_path / "a", replace(AIM, validation=1e-9))
    with pytest.raises(BuildFailed, match="nothing to train on"):
        await built(tmp_path / "a", texts=[])
    with pytest.raises(BuildFailed, match="listed twice"):
        await built(tmp_path / "a", replace(AIM, shard_tokens=1, validation=0.0), texts=["\x00\x00"])
    monkeypatch.setattr(building, "MAX_SHARDS", 3)
    with pytest.raises(BuildFailed, match="--shard-tokens"):
        await built(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


async def test_without_validation_all_documents_are_trained_on(tmp_path: Path) -> None:
    made = await built(tmp_path / "a", replace(AIM, validation=0.0))
    assert made.manifest.validation == ()
    assert (await whole(tmp_path / "a", tmp_path / "c", "training") == TOKENIZER.eos).sum() == 200


def test_the_largest_manifest_is_within_its_limit() -> None:
    def size(shards: int) -> int:
        cids = [Manifest.of(bytes([number])).cid for number in range(shards)]
        plain = json.loads(encode_manifest(AIM.manifest((Shard(cid=cids[0], tokens=1),), ())))
        plain |= {"training": [{"cid": cid, "tokens": MAX_SHARD_TOKENS} for cid in cids]}
        plain |= {"sources": ["\U0001f600" * 200] * MAX_NOTES, "licences": ["\U0001f600" * 200] * MAX_NOTES}
        return len(encode_manifest(DatasetManifest.model_validate_json(json.dumps(plain))))

    assert size(1) + (size(2) - size(1)) * 2 * MAX_SHARDS < MAX_MANIFEST_BYTES
