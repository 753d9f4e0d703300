from pathlib import Path

import pytest

from template.settings import (
    MinerSettings,
    SettingsError,
    TrainMinerSettings,
    TrainValidatorSettings,
    ValidatorSettings,
    describe,
    load,
)


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "miner.toml"
    file.write_text("netuid = 3\nmax-batch = 2\nmax_queue = 5\nport = 1000\n")
    environ = {"TOUCHSTONE_MAX_QUEUE": "6", "TOUCHSTONE_PORT": "2000"}
    settings = load(MinerSettings, flags={"port": 3000}, file=file, environ=environ)
    assert (settings.netuid, settings.max_batch, settings.max_queue, settings.port) == (3, 2, 6, 3000)
    assert settings.network == "local"


@pytest.mark.parametrize(
    ("name", "text"),
    [("s.json", '{"netuid": 4}'), ("s.yaml", "netuid: 4\n"), ("s.yml", "netuid: 4\n"), ("s.toml", "netuid = 4\n")],
)
def test_every_file_form_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert load(MinerSettings, file=tmp_path / name, environ={}).netuid == 4


def test_an_unknown_name_in_a_file_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text('{"netuid": 1, "max_bach": 2}')
    with pytest.raises(SettingsError, match=r"max_bach.*did you mean max_batch"):
        load(MinerSettings, file=file, environ={})


def test_an_unknown_variable_is_refused_and_one_of_the_other_neuron_is_not() -> None:
    with pytest.raises(SettingsError, match=r"TOUCHSTONE_MAX_BACH.*TOUCHSTONE_MAX_BATCH"):
        load(MinerSettings, flags={"netuid": 1}, environ={"TOUCHSTONE_MAX_BACH": "2"})
    load(MinerSettings, flags={"netuid": 1}, environ={"TOUCHSTONE_ROUND_SECONDS": "5", "TOUCHSTONE_CACHE": "/x"})
    of_training = {"TOUCHSTONE_CHAIN_POLL": "2", "TOUCHSTONE_EVIDENCE_BYTES": "1"}
    load(MinerSettings, flags={"netuid": 1}, environ=of_training)
    assert load(TrainValidatorSettings, flags={"netuid": 1}, environ=of_training).evidence_bytes == 1


def test_a_missing_and_a_malformed_value_name_the_setting_and_its_source() -> None:
    with pytest.raises(SettingsError, match="netuid is not set: give --netuid or TOUCHSTONE_NETUID"):
        load(MinerSettings, environ={})
    with pytest.raises(SettingsError, match=r"deadline.*environment"):
        load(ValidatorSettings, flags={"netuid": 1}, environ={"TOUCHSTONE_DEADLINE": "-3"})


@pytest.mark.parametrize("text", ["netuid = = 3", "[netuid"])
def test_a_broken_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match="cannot be read"):
        load(MinerSettings, file=file, environ={})


@pytest.mark.parametrize("model", [MinerSettings, ValidatorSettings, TrainMinerSettings, TrainValidatorSettings])
def test_every_setting_is_documented(model: type) -> None:
    assert [name for name, text in describe(model).items() if not text] == []


def test_an_external_address_is_an_address_and_reads_as_the_chain_writes_it() -> None:
    assert load(MinerSettings, flags={"netuid": 1, "external_ip": "2001:0DB8:0::1"}, environ={}).external_ip == (
        "2001:db8::1"
    )
    with pytest.raises(SettingsError, match="external_ip"):
        load(MinerSettings, flags={"netuid": 1, "external_ip": "miner.example.org"}, environ={})
