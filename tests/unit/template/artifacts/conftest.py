"""`backend`: an empty store of each kind, the S3 one in a real server. Every test with it runs over both."""

import itertools

import pytest

from template.artifacts.directory import DirectoryBackend
from template.artifacts.s3 import S3Backend
from tests.support.s3 import s3_server

numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(server):
    name = f"bucket-{next(numbers)}"
    server.make_bucket(name)
    return name


@pytest.fixture(params=["directory", "s3"])
async def backend(request, tmp_path):
    if request.param == "directory":
        yield DirectoryBackend(tmp_path / "store")
        return
    server, bucket = request.getfixturevalue("server"), request.getfixturevalue("bucket")
    backend = S3Backend(server.location(bucket), allow_local=True)
    yield backend
    await backend.close()
