"""Classes by name: found where they are said to be, and followed only where the user wrote them."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from clipmsa.cache import plugins
from clipmsa.cache.errors import PluginError

THINGS = plugins.Registry("encoder", {"path": "pathlib:Path", "lost": "no_such_module_of_ours:X"})


@pytest.fixture(autouse=True)
def _nothing_is_trusted(monkeypatch, tmp_path):
    monkeypatch.setattr(plugins, "_trusted", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine_of_test.py").write_text("class Thing: ...\n")
    return "mine_of_test:Thing"


@pytest.fixture
def installed(monkeypatch):
    """An entry point, as a package in the environment would have it."""
    points = [
        EntryPoint("joined", "os.path:join", "clipmsa.encoders"),
        EntryPoint("path", "os.path:join", "clipmsa.encoders"),
    ]
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: EntryPoints(points).select(group=group)
    )


def test_what_ships_is_found_by_name_and_before_what_is_installed(installed):
    from pathlib import Path

    assert THINGS.find("path") is Path


def test_an_entry_point_is_found_by_name_even_where_a_file_says_it(installed):
    import os.path

    assert THINGS.find("joined") is os.path.join
    assert THINGS.names() == ["path", "lost", "joined"]


def test_an_import_path_that_the_user_wrote_is_looked_for_in_the_current_folder(mine):
    assert THINGS.find(mine, written=True).__name__ == "Thing"


def test_an_import_path_in_a_file_is_not_followed_unless_its_module_is_trusted(mine):
    with pytest.raises(PluginError, match=r"mine_of_test:Thing.*`trust='mine_of_test'`"):
        THINGS.find(mine)
    assert "mine_of_test" not in sys.modules
    plugins.trust(["mine_of_test"])
    assert THINGS.find(mine).__name__ == "Thing"


def test_what_the_user_named_once_may_come_back_from_a_checkpoint(mine):
    THINGS.find(mine, written=True)
    assert THINGS.find(mine).__name__ == "Thing"
    assert plugins.trusted() == ("mine_of_test",)


def test_trust_in_a_module_is_none_in_others_of_a_like_name(mine, tmp_path):
    plugins.trust(["mine"])
    with pytest.raises(PluginError, match="`trust="):
        THINGS.find(mine)


def test_trust_in_a_package_is_trust_in_what_is_within(tmp_path):
    (tmp_path / "pack_of_test").mkdir()
    (tmp_path / "pack_of_test" / "part.py").write_text("class Thing: ...\n")
    plugins.trust(["pack_of_test"])
    assert THINGS.find("pack_of_test.part:Thing").__name__ == "Thing"


@pytest.mark.parametrize("name", ["nothing", "a/b:C", "a:b:C", "../x:C", ":C", "a:", "a b:C"])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(PluginError, match=r"no encoder .*path, lost.*package.module:Class"):
        THINGS.find(name, written=True)


def test_a_module_that_cannot_be_imported_is_named_with_the_reason(tmp_path):
    (tmp_path / "broken_of_test.py").write_text("import no_such_library\n")
    with pytest.raises(PluginError, match=r"importing broken_of_test failed.*no_such_library"):
        THINGS.find("broken_of_test:Thing", written=True)
    with pytest.raises(PluginError, match=r"importing nowhere_of_test failed with ModuleNotFound"):
        THINGS.find("nowhere_of_test:Thing", written=True)


def test_a_class_that_a_module_lacks_is_named_with_the_file(mine, tmp_path):
    with pytest.raises(PluginError, match=r"mine_of_test\.py has no 'Other'"):
        THINGS.find("mine_of_test:Other", written=True)
