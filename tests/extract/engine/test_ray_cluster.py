"""`--engine ray` on a local cluster: the features of the local engine, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ClipmsaError, ProfileError
from clipmsa.cli.main import main
from clipmsa.extract.datasets.demo import write_demo_dataset
from clipmsa.extract.datasets.read import Manifest, read_dataset
from clipmsa.extract.engine import ray_cluster
from clipmsa.extract.engine.pipeline import extract
from clipmsa.extract.engine.plan import Settings
from clipmsa.extract.engine.ray_cluster import Cluster
from clipmsa.extract.profiles.profile import load_profile

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]

KILLER = "demo01$_$2"  # decoding this clip ends the process


@pytest.fixture(scope="module")
def ray() -> Any:
    """Ray on this machine, whose workers die of one clip."""
    ray = pytest.importorskip("ray", reason="pip install 'clipmsa[ray]'")

    def deadly() -> None:  # in a function, so that Ray sends it and does not look for a module
        from clipmsa.extract.engine import worker

        decode = getattr(worker, "decode")  # noqa: B009  # which it imports, for mypy

        def decode_or_die(clip: Any, *arguments: Any) -> Any:
            if clip.utterance.id == "demo01$_$2":
                os._exit(11)
            return decode(clip, *arguments)

        setattr(worker, "decode", decode_or_die)  # noqa: B010

    os.environ["RAY_AUTH_MODE"] = "disabled"  # or it writes a token into the home folder
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": deadly},
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("data")
    write_demo_dataset(folder / "d", clips=20)
    return read_dataset(str(folder / "d"))


def settings(stream: str = "esresnext", **options: Any) -> Settings:
    profile = load_profile("tiny").only((stream,))
    recipe = replace(profile.streams[0], options={**profile.streams[0].options, **options})
    return Settings(replace(profile, streams=(recipe,)), "random", batch_clips=2)


def without(manifest: Manifest, id_: str) -> Manifest:
    return replace(manifest, clips=[c for c in manifest.clips if c.utterance.id != id_])


def actors() -> list[int]:
    """The processes of this process's Ray actors."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            raylet = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            driver = Path("/proc", raylet, "stat").read_text().rsplit(")", 1)[1].split()[1]
        except OSError:  # ended meanwhile
            continue
        if title.startswith(b"ray::_Actor") and int(driver) == os.getpid():
            found.append(int(folder.name))
    return found


def test_with_a_worker_killed_in_the_middle_features_are_those_of_a_local_run(
    ray: Any, clips: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmless = without(clips, KILLER)
    started: list[Any] = []
    killed: list[int] = []
    start = ray_cluster._RayWorkers._start

    def counted(self: Any) -> None:
        started.append(self)
        start(self)

    def kill_one(done: int, total: int, failed: int) -> None:
        if done and not killed:
            killed.append(actors()[0])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(ray_cluster._RayWorkers, "_start", counted)
    engine = Cluster(workers=2, cpus=1)
    report = extract(harmless, tmp_path / "ray.h5", settings(), engine=engine, on_progress=kill_one)
    assert len(started) == 3  # two, and one for the one that was killed
    assert (report.utterances, report.failures) == (19, [])
    extract(harmless, tmp_path / "local.h5", settings())
    one, two = FeatureStore(tmp_path / "local.h5"), FeatureStore(tmp_path / "ray.h5")
    assert two.utterances.equals(one.utterances)
    ours, theirs = (store.streams["esresnext"] for store in (one, two))
    assert theirs.spec == ours.spec
    assert np.array_equal(theirs.offsets, ours.offsets)
    np.testing.assert_allclose(theirs.values, ours.values, rtol=1e-5, atol=1e-6)


def test_a_clip_that_kills_its_workers_is_listed_and_the_others_are_encoded(
    ray: Any, clips: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_LIVES", 2)
    few = replace(clips, clips=clips.clips[4:8])
    assert KILLER in [clip.utterance.id for clip in few.clips]
    report = extract(few, tmp_path / "s.h5", settings(), engine=Cluster(workers=1, cpus=1))
    ((id_, stage, reason),) = report.failures
    assert (id_, stage) == (KILLER, "worker")
    assert "2 workers died" in reason
    assert FeatureStore(tmp_path / "s.h5").ids == [
        clip.utterance.id for clip in without(few, KILLER).clips
    ]


def test_what_an_actor_cannot_load_is_told_as_it_is_told_here(
    ray: Any, clips: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(ProfileError, match="'esresnext' does not take these options"):
        extract(clips, tmp_path / "s.h5", settings(colour="red"), engine=Cluster(workers=1, cpus=1))
    end = time.monotonic() + 10
    while actors():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not (tmp_path / "s.h5").exists()


def test_a_cluster_without_room_says_what_it_has(ray: Any, clips: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ClipmsaError, match=r"has 4 CPUs and 0 GPUs, .* asks for 1 and 0\.5"):
        extract(clips, tmp_path / "s.h5", settings(), engine=Cluster(cpus=1, gpus=0.5))


def test_without_ray_one_line_says_how_to_get_it(
    clips: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    root = clips.clips[0].path.parents[2]
    line = f"extract --dataset {root} --out {tmp_path / 's.h5'} --profile tiny --engine ray"
    assert main(line.split()) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        error == "error: --engine ray needs Ray, which is not installed: pip install 'clipmsa[ray]'"
    )
