"""Remedies: a message of the library names arguments, the command line's the verb's own options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from clipmsa.cache.errors import ClipmsaError
from clipmsa.cli.flags import as_flags
from clipmsa.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("verb", "message", "told"),
    [
        ("train", "another `out`, or `overwrite=True`", "another --out, or --overwrite"),
        ("train", "`settings='d'`: write key=value", "--set d: write key=value"),
        ("extract", "or `weights='random'`", "or --weights random"),
        ("extract", "less `ray_cpus`", "less --ray-cpus"),
        ("cut", "another `weights` and `features`", "another --weights and `features`"),
        ("", "another `out`", "another `out`"),
        ("train", "`out` of `a\n`", "--out of `a\n`"),
        ("merge", "`clipmsa inspect x` lists `1=2` and `out=(`", "`clipmsa inspect x` lists `1=2` "
         "and --out ("),
    ],
)  # fmt: skip
def test_arguments_are_told_as_the_options_of_the_verb(verb, message, told):
    assert as_flags(message, verb) == told


def test_one_error_speaks_python_in_python_and_flags_on_the_command_line(plant, tmp_path, capsys):
    from clipmsa import train

    plant(tmp_path / "s.h5", counts=(8, 4, 4))
    with pytest.raises(ClipmsaError, match=r"^`without='smell'`: must be one of text"):
        train(tmp_path / "s.h5", tmp_path / "run", without="smell")
    arguments = ["--features", str(tmp_path / "s.h5"), "--out", str(tmp_path / "run")]
    assert main(["train", *arguments, "--without", "smell"]) == 1
    assert capsys.readouterr().err.startswith("error: --without smell: must be one of text")


def test_help_names_what_ships():
    from clipmsa.cli.verbs import command
    from clipmsa.extract.datasets.registry import known_layouts
    from clipmsa.extract.profiles.profile import shipped_profiles
    from clipmsa.fusion.networks.registry import NETWORKS

    verbs = typer.main.get_command(command).commands  # type: ignore[attr-defined]
    helps = {(v, p.name): getattr(p, "help", "") for v in verbs for p in verbs[v].params}
    for verb in ("extract", "weights"):
        assert all(name in helps[verb, "profile"] for name in shipped_profiles())
    for verb in ("extract", "inspect", "verify"):
        assert all(each.name in helps[verb, "layout"] for each in known_layouts())
    assert all(name in helps["train", "model"] for name in set(NETWORKS.shipped) - {"clip-msa"})


def test_no_message_of_the_library_names_a_flag():
    """But as part of a whole command, which anybody can type, such as `clipmsa weights fetch`."""
    text = re.compile(r'f?"(?:[^"\\\n]|\\.)*"')
    for folder in ("api", "cache", "extract", "fusion"):
        for source in (ROOT / folder).rglob("*.py"):
            code = re.sub(r'"""(?:.|\n)*?"""', "", source.read_text())
            for string in text.findall(code):
                told = re.search(r"(?<![\w-])--[a-z]", re.sub(r"`clipmsa [^`]*`?", "", string))
                known = ("--out {self.path}` writes one", "--profile", "--transcriber", "--dir")
                assert not told or any(part in string for part in known), (source, string)
