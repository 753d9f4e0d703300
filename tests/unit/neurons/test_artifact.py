"""`touchstone artifact`: put, get and verify over a folder and over a real S3 server."""

import json
import os

import pytest
from typer.testing import CliRunner

from neurons.cli import app
from protocol.artifacts import CHUNK_BYTES, Manifest
from template.artifacts.partial import partial_path
from tests.support.s3 import s3_server

DATA = os.urandom(CHUNK_BYTES + 7)
MANIFEST = Manifest.of(DATA)
runner = CliRunner()


def run(*args, env=None):
    return runner.invoke(app, ["artifact", *map(str, args)], env=env)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "given").write_bytes(DATA)
    folder = tmp_path / "store"
    assert run("put", tmp_path / "given", "--store", folder).stdout.strip() == MANIFEST.cid
    return folder


def test_a_file_goes_through_a_folder(store, tmp_path):
    got = run("get", MANIFEST.cid, tmp_path / "got", "--store", store, "--json")
    assert got.exit_code == 0
    assert json.loads(got.stdout) == {
        "cid": MANIFEST.cid,
        "bytes": len(DATA),
        "chunks": 2,
        "file": str(tmp_path / "got"),
    }
    assert (tmp_path / "got").read_bytes() == DATA
    verified = run("verify", MANIFEST.cid, "--store", store, "--json")
    assert verified.exit_code == 0 and json.loads(verified.stdout)["whole"] is True


def test_damage_is_found_and_mended(store, tmp_path):
    chunk = store / MANIFEST.chunks[0]
    chunk.write_bytes(bytes(CHUNK_BYTES))
    found = run("verify", MANIFEST.cid, "--store", store, "--json")
    assert found.exit_code == 1
    said = json.loads(found.stdout)
    assert said["whole"] is False and "chunk 0" in said["problem"] and "--resend" in said["remedy"]
    got = run("get", MANIFEST.cid, tmp_path / "got", "--store", store)
    assert got.exit_code == 1 and "chunk 0" in got.stderr and not (tmp_path / "got").exists()
    assert run("put", tmp_path / "given", "--store", store, "--resend").exit_code == 0
    assert run("verify", MANIFEST.cid, "--store", store).exit_code == 0


def test_what_could_not_be_checked_is_neither_whole_nor_damaged(store):
    (store / MANIFEST.chunks[1]).unlink()
    for flags in ((), ("--max-bytes", 9)):
        found = run("verify", MANIFEST.cid, "--store", store, "--json", *flags)
        assert found.exit_code == 2 and json.loads(found.stdout)["whole"] is None


def test_get_goes_on_where_it_was(store, tmp_path):
    target = tmp_path / "got"
    chunk = (store / MANIFEST.chunks[1]).read_bytes()
    (store / MANIFEST.chunks[1]).unlink()
    assert run("get", MANIFEST.cid, target, "--store", store).exit_code == 1
    assert partial_path(target, MANIFEST.cid).stat().st_size == CHUNK_BYTES
    (store / MANIFEST.chunks[0]).unlink()  # is not needed any more
    (store / MANIFEST.chunks[1]).write_bytes(chunk)
    assert run("get", MANIFEST.cid, target, "--store", store).exit_code == 0
    assert target.read_bytes() == DATA


def test_a_file_goes_through_a_bucket_named_in_the_environment(tmp_path):
    (tmp_path / "given").write_bytes(DATA)
    (tmp_path / "s3").mkdir()
    with s3_server(tmp_path / "s3") as server:
        server.make_bucket("bucket")
        env = {"TOUCHSTONE_ARTIFACT_STORE": server.location("bucket").encode()}
        assert run("put", tmp_path / "given", env=env).stdout.strip() == MANIFEST.cid
        refused = run("get", MANIFEST.cid, tmp_path / "got", env=env)
        assert refused.exit_code == 1 and "loopback" in refused.stderr
        assert run("get", MANIFEST.cid, tmp_path / "got", "--allow-local", env=env).exit_code == 0
    assert (tmp_path / "got").read_bytes() == DATA


@pytest.mark.parametrize(
    "args",
    [
        ("get", "../etc/passwd", "out", "--store", "."),
        ("verify", MANIFEST.cid[:-1], "--store", "."),
        ("put", "/does/not/exist", "--store", "."),
        ("put", __file__, "--store", "s3://bucket"),
    ],
    ids=lambda args: args[0],
)
def test_mistakes_are_one_line(args):
    result = run(*args)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
