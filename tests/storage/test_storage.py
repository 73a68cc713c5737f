"""Files: names, atomic writes, and errors that name the file and the row."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_utils.storage import files, layout
from mcts_utils.storage import manifest as storage_manifest
from mcts_utils.types import InputError

texts = st.text(st.characters(blacklist_categories=()))  # lone surrogates and line separators too
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def test_names_are_the_documented_ones():
    assert str(layout.tree_path("out", "textcraft", "m", 7)) == "out/textcraft/m/search_results_7.json"
    folder = layout.run_folder("t", "textcraft", "m", "sft")
    assert str(layout.episode_path(folder, 7)) == "t/textcraft/m_sft/episode_7.json"
    assert str(layout.episode_path(folder, 7, 2)) == "t/textcraft/m_sft/episode_7_s2.json"
    assert str(layout.verdicts_path("out", 7)) == "out/verdicts/verdicts_7.json"
    assert str(layout.verdicts_path("out", 7, 1, "org/m")) == "out/verdicts/org_m/verdicts_7_s1.json"


@pytest.mark.parametrize("name", ["verdicts_7.json", "episode_7.json", "episode_7_s2.json"])
def test_files_under_their_earlier_names_are_found(tmp_path, name):
    path = tmp_path / name
    earlier = tmp_path / ("search_results_" + name.split("_", 1)[1])
    assert layout.existing(path) == path
    earlier.touch()
    assert layout.existing(path) == earlier
    path.touch()
    assert layout.existing(path) == path


def test_of_two_verdict_files_of_a_tree_the_later_name_counts(tmp_path):
    for name in ("search_results_3.json", "search_results_5.json", "verdicts_5.json", "verdicts_10.json"):
        (tmp_path / name).touch()
    found = layout.verdict_files(tmp_path, "--verdicts")
    assert [(index, path.name) for index, path in found.items()] == [
        (3, "search_results_3.json"),
        (5, "verdicts_5.json"),
        (10, "verdicts_10.json"),
    ]
    assert list(layout.tree_files(tmp_path, "--trees")) == [3, 5]


@pytest.mark.parametrize("name", ["org/model:7b", "../../etc", "a b"])
def test_a_model_name_is_one_folder_below_the_task(name):
    path = layout.tree_path("out", "textcraft", name, 0)
    assert path.parts[:2] == ("out", "textcraft")
    assert len(path.parts) == 4
    assert ".." not in path.parts


@pytest.mark.parametrize("name", ["", ".", "..", "//"])
def test_a_model_name_that_names_nothing_is_refused(name):
    with pytest.raises(InputError, match="MODEL_NAME"):
        layout.tree_path("out", "textcraft", name, 0)


@given(plain)
def test_json_comes_back_as_it_was_written(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "x.json"
    files.write_json(path, value)
    assert files.read_json(path) == value


@given(st.lists(st.dictionaries(texts, plain, max_size=3), max_size=4))
def test_jsonl_comes_back_row_by_row(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "x.jsonl"
    assert files.write_jsonl(path, rows) == len(rows)
    assert files.read_jsonl(path) == rows


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_jsonl(path, rows())
    assert files.read_jsonl(path) == [{"a": 1}]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("content", ['{"a": [1, 2', "", "not json", "[" * 100_000])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "tree.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: No such file"):
        files.read_json(tmp_path / "gone.json")
    (tmp_path / "weights").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="weights: not UTF-8"):
        files.read_json(tmp_path / "weights")


@pytest.mark.parametrize("row", ["{", "[1]", "3"])
def test_a_bad_row_is_named_by_file_and_number(tmp_path, row):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": 1}}\n\n{row}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl row 3: not"):
        files.read_jsonl(path)


def test_the_manifest_lists_hashes_and_no_secret(tmp_path):
    made = tmp_path / "out" / "a.json"
    files.write_json(made, {"x": 1})
    manifest = tmp_path / "out" / "manifest.json"
    settings = {"model_name": "m", "openai_api_key": "sk-secret"}
    storage_manifest.write_manifest(
        manifest, "search", settings, [], [made], {"trees": 1}, {"calls": 2}, 1.23456
    )
    text = manifest.read_text()
    data = json.loads(text)
    assert "sk-secret" not in text
    assert data["outputs"] == [{"path": "a.json", "sha256": files.sha256_file(made)}]
    assert (data["stage"], data["counts"], data["tokens"]) == ("search", {"trees": 1}, {"calls": 2})
    assert data["settings"] == {"model_name": "m"}
    assert data["code_revision"]


def test_no_manifest_for_an_output_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"lost\.json"):
        storage_manifest.write_manifest(
            tmp_path / "m.json", "search", {}, [], [tmp_path / "lost.json"], {}, {}, 0
        )
    assert not (tmp_path / "m.json").exists()


def test_a_byte_order_mark_at_the_head_of_a_file_is_read_over(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}\n')
    assert files.read_json(path) == {"a": 1} and files.read_jsonl(path) == [{"a": 1}]
