"""What the functions of `clipmsa` give back of runs and pages: views on files that are there."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from clipmsa.cache.checked import one_line
from clipmsa.cache.csvtext import unguarded
from clipmsa.cache.errors import RunError
from clipmsa.cache.frames import Framed

if TYPE_CHECKING:
    import pandas as pd


class Run(Framed):
    """A finished run, by its folder: `Run("runs/mosi")`.

    Attributes:
        path: the folder.
        results: its metrics.json as it is.
        fresh: whether any seed was trained by the call that gave it, rather than found.

    Raises:
        RunError: the folder holds no finished run, or a file of it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool = False) -> None:
        from clipmsa.fusion.training.folder import RunFolder

        self.path = Path(path)
        self.fresh = fresh
        self._files = RunFolder(self.path)
        try:
            self.results: Mapping[str, Any] = json.loads(_text(self._files.metrics))
            self.variant = str(self.results["variant"])
            self.seeds = [int(seed) for seed in self.results["seeds"]]
            self.untrained = [str(name) for name in self.results["features"].get("untrained", [])]
            mae = self.results["test"].get("mae", {}).get("mean")
            self.mae = math.nan if mae is None else float(mae)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise self._no_metrics(error) from None

    def _no_metrics(self, error: Exception) -> RunError:
        file = self._files.metrics
        return RunError(f"{file}: not the metrics of a run ({one_line(error)})")

    def __repr__(self) -> str:
        seeds = "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        untrained = ", untrained encoders" if self.untrained else ""
        return (
            f"Run({str(self.path)!r}: {self.variant!r}, {seeds}, "
            f"test MAE {self.mae:.3f}{untrained})"
        )

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """On the test split, a row a metric: mean and deviation over seeds, 95 % interval, each
        seed's, and what the best constant and ridge on the same features get.
        """
        from clipmsa.fusion.experiments.reference import REFERENCES
        from clipmsa.fusion.metrics.bootstrap import summary_frame

        try:
            frame = summary_frame(self.results["test"], self.seeds)
            for name in REFERENCES:
                if name in self.results:
                    frame[name] = [self.results[name].get(metric) for metric in frame.index]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._no_metrics(error) from None
        return frame

    def to_frame(self) -> pd.DataFrame:
        """`metrics`."""
        return self.metrics.copy()

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row an epoch of each seed, as training went."""
        return _table(self._files.history)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """A row an utterance of the splits valid and test: label, mean score, each seed's."""
        return _table(self._files.predictions, ids=True)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its config.toml: the tables model and training."""
        file = self._files.config
        try:
            return tomllib.loads(_text(file))
        except (ValueError, RecursionError) as error:
            raise RunError(f"{file}: not a TOML file ({one_line(error)})") from None

    @property
    def verdicts(self) -> list[str]:
        """What it is not better than, beyond what chance would give, a sentence each."""
        from clipmsa.fusion.experiments.reference import verdicts

        return verdicts(self.mae, self.results, self.results.get("against", {}))


class Runs(list[Run], Framed):
    """Runs beside one another, as `clipmsa.ablate` gives them; `path` is the folder they are in."""

    def __init__(self, runs: Iterable[Run], path: Path) -> None:
        super().__init__(runs)
        self.path = path

    def __repr__(self) -> str:
        return f"Runs({str(self.path)!r}: {', '.join(run.variant for run in self)})"

    def to_frame(self) -> pd.DataFrame:
        """A row a run: the mean of each metric on the test split."""
        import pandas as pd

        means = [run.metrics["mean"].rename(run.variant) for run in self]
        return pd.DataFrame(means).rename_axis("variant")


@dataclass(frozen=True)
class Page:
    """A report that was written; `gaps` says in words what was not at hand for it."""

    path: Path
    gaps: Sequence[str] = ()
    untrained: Sequence[str] = ()  # streams whose encoders had random weights

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        gaps = f", {len(self.gaps)} gaps" if self.gaps else ""
        return f"Page({str(self.path)!r}{gaps})"

    def _repr_html_(self) -> str:
        link = f'<a href="{quote(self.path.as_posix())}">{escape(str(self.path))}</a>'
        gaps = "".join(f"<li>{escape(gap)}</li>" for gap in self.gaps)
        return f"<p>{link}</p><ul>{gaps}</ul>" if gaps else f"<p>{link}</p>"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(
            f"{path}: no such file; a finished run has it, and `clipmsa train` makes runs"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from None


def _table(path: Path, ids: bool = False) -> pd.DataFrame:
    """A CSV table of a run; ids are texts, whatever they look like."""
    import pandas as pd

    if not path.is_file():
        _text(path)  # says so
    try:
        return pd.read_csv(path, encoding="utf-8", converters={"id": unguarded} if ids else None)
    except (ValueError, OSError) as error:
        raise RunError(f"{path}: not a table of a run ({one_line(error)})") from None
