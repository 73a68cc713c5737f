"""Settings: defaults, refused values, and that the API key is never written."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

from mcts_utils.config import Settings, settings_from_env
from mcts_utils.envs import names
from mcts_utils.types import InputError


def test_defaults_are_the_papers_numbers():
    s = settings_from_env({})
    assert (s.task, s.max_depth, s.itera, s.n_gen, s.n_rollout, s.temp) == ("textcraft", 20, 8, 4, 8, 1.0)
    assert (s.uct_c, s.alpha, s.beta, s.prompt, s.max_token_length) == (0.25, 0.5, 0.2, "full", 256)
    assert (s.concurrency, s.workers, s.local) == (16, 16, False)
    assert s == Settings()
    assert s.workers * s.n_rollout >= 2 * s.concurrency  # one tree's pause must not empty the slots


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_DEPTH", "0"),
        ("ITERA", "eight"),
        ("N_GEN", "1.5"),
        ("N_ROLLOUT", "-1"),
        ("TEMP", "hot"),
        ("TEMP", "nan"),
        ("ALPHA", "1.2"),
        ("BETA", "-0.1"),
        ("UCT_C", "-1"),
        ("MAX_TOKEN_LENGTH", "0"),
        ("SEED", "-3"),
        ("CONCURRENCY", "0"),
        ("CONCURRENCY", "many"),
        ("ACTION_GROUNDING", "yes"),
        ("WORKERS", "0"),
        ("PROMPT", "long"),
        ("MODEL_DIR", "/no/such/folder"),
        ("OPENAI_BASE_URL", "localhost:8000/v1"),
        ("OPENAI_BASE_URL", "http://host:port/v1"),
        ("OPENAI_BASE_URL", "http://[::1/v1"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:99999/v1"),
        ("OPENAI_BASE_URL", "http:///v1"),
        ("OPENAI_BASE_URL", "http://my host/v1"),
        ("ACTION_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(name, value):
    with pytest.raises(InputError) as caught:
        settings_from_env({name: value})
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["mcts_collection", "path_collection", "eval"])
def test_an_unknown_task_is_named_whatever_else_is_missing_or_wrong(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in {"TASK": "chess", "MODEL_DIR": "/no/such/folder", "ITERA": "many"}.items():
        monkeypatch.setenv(name, value)
    for name in ("ENV_SERVER_BASE", "MODEL_NAME", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert import_module(command).main([]) == 2
    said = capsys.readouterr().err
    assert said == f"{command}.py: TASK must be one of {', '.join(names())}: 'chess'\n"


def test_an_empty_value_counts_as_not_set():
    assert settings_from_env({"ITERA": "", "MODEL_NAME": " "}) == settings_from_env({})


def test_the_env_file_is_read_and_the_real_environment_wins(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("ITERA=3\nN_GEN=2\nMODEL_NAME=from-file\n")
    monkeypatch.chdir(tmp_path)
    for name in ("N_GEN", "MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ITERA", "5")
    s = settings_from_env()
    assert (s.itera, s.n_gen, s.model_name) == (5, 2, "from-file")


def test_the_key_is_in_no_text_that_is_written():
    s = settings_from_env({"OPENAI_API_KEY": "sk-verysecret"})
    assert s.openai_api_key == "sk-verysecret"
    assert "verysecret" not in repr(s) + json.dumps(s.public())


def test_a_local_model_names_itself_and_its_prompt(tmp_path):
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "config.json").write_text('{"agent_r_prompt": "brief"}')
    s = settings_from_env({"MODEL_DIR": str(model)})
    assert (s.local, s.model_name, s.prompt, s.concurrency) == (True, "tiny", "brief", 64)
    assert settings_from_env({"MODEL_DIR": str(model), "PROMPT": "full"}).prompt == "full"
    assert not settings_from_env({"MODEL_DIR": str(model), "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}).local


def test_automatic_concurrency_is_for_endpoints(tmp_path):
    s = settings_from_env({"CONCURRENCY": "auto"})
    assert (s.concurrency, s.in_flight) == (0, 128)
    assert s.workers * s.n_rollout >= s.in_flight
    with pytest.raises(InputError, match="CONCURRENCY 'auto'"):
        settings_from_env({"CONCURRENCY": "auto", "MODEL_DIR": str(tmp_path)})
    assert settings_from_env({"CONCURRENCY": "5"}).in_flight == 5


def test_flags_override_and_missing_ones_do_not():
    s = settings_from_env({"MODEL_NAME": "a", "SEED": "4"})
    assert s.override(model_name=None, seed=0) == s.override(model_name="", seed=0)
    assert (s.override(model_name="b").model_name, s.override(seed=0).seed) == ("b", 0)
    with pytest.raises(InputError, match="ENV_SERVER_BASE"):
        s.require("model_name", "env_server_base")


@pytest.mark.parametrize("key", ["sk-schlüssel", "sk-a b", "sk-a\nb", "“sk-a”"])
def test_a_key_that_no_header_can_carry_is_named_and_not_shown(key):
    with pytest.raises(InputError, match="OPENAI_API_KEY must be printable ASCII") as caught:
        settings_from_env({"OPENAI_API_KEY": key})
    assert "sk-" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_byte_order_mark_before_the_env_file_is_read_over_and_another_encoding_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ITERA", raising=False)
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfITERA=3\n")
    assert settings_from_env().itera == 3
    (tmp_path / ".env").write_bytes("ITERA=3\n# Gr\xfc\xdfe\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"\.env: not UTF-8 text \(byte 12 is 0xfc\)"):
        settings_from_env()
