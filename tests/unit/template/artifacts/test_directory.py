"""What only a folder can do: appear whole, leave others' files alone, and be unusable."""

import pytest

from protocol.artifacts import chunk_cid
from template.artifacts.directory import DirectoryBackend
from template.artifacts.errors import ArtifactUnavailable
from template.artifacts.opening import NoStore, open_store
from template.artifacts.s3 import S3Backend

NAME = chunk_cid(b"content")


async def test_a_folder_holds_objects_under_their_addresses_and_nothing_else(tmp_path):
    backend = DirectoryBackend(tmp_path / "a" / "b")
    await backend.put(NAME, b"content")
    assert [path.name for path in backend.folder.iterdir()] == [NAME]
    assert (backend.folder / NAME).read_bytes() == b"content"


async def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    backend = DirectoryBackend(tmp_path)
    await backend.put(NAME, b"content")
    assert await backend.list(10) == (NAME,)


async def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    backend = DirectoryBackend(tmp_path / "file")
    for work in (backend.get(NAME, 9), backend.put(NAME, b"x"), backend.size(NAME), backend.delete(NAME)):
        with pytest.raises(ArtifactUnavailable, match="folder"):
            await work
    with pytest.raises(ArtifactUnavailable):
        await backend.list(1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_text_names_a_folder_or_a_bucket_or_a_file_with_either(tmp_path):
    text = "touchstone-artifacts/1 https://s3.example.org bucket us-east-1 key secret"
    (tmp_path / "where").write_text(text + "\n")
    for where in (text, f"@{tmp_path / 'where'}"):
        backend = open_store(where).backend
        assert isinstance(backend, S3Backend) and backend.location.encode() == text
    assert open_store(str(tmp_path)).backend.folder == tmp_path


@pytest.mark.parametrize(
    "where",
    ["", "s3://bucket", "@/does/not/exist", "touchstone-artifacts/2 x", "touchstone-artifacts/1 http://a b c d e f"],
)
def test_other_texts_name_no_store(where):
    with pytest.raises(NoStore):
        open_store(where)
