"""The extraction run: resuming, extending, one stream at a time, failures, and what is refused.

Encoders are stand-ins that are quick and count what they do; the real ones are in
test_encoders.py, and the whole way with real ones in test_cli.py.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import nn

from clipmsa.cache import FeatureStore, Utterance
from clipmsa.cache.errors import ClipmsaError, FingerprintError, StoreError
from clipmsa.cache.plugins import Registry
from clipmsa.cache.spec import is_drawn
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.datasets.read import Clip, Manifest
from clipmsa.extract.encoders import registry
from clipmsa.extract.encoders.encoder import Encoder
from clipmsa.extract.engine import worker
from clipmsa.extract.engine.decode import decode as decode_clip
from clipmsa.extract.engine.merge import merge_stores
from clipmsa.extract.engine.pipeline import extract
from clipmsa.extract.engine.plan import Settings
from clipmsa.extract.profiles.profile import Media, Profile, StreamRecipe

pytestmark = pytest.mark.slow  # They run the whole of `extract`.

RATE = 8000


class Stub(Encoder):
    """Counts what it encodes; `scale` is an option, so another value is another fingerprint."""

    encoded: ClassVar[Counter[str]] = Counter()
    built: ClassVar[Counter[str]] = Counter()

    def __init__(self, setup, *, scale=1.0):
        torch.manual_seed(0)
        super().__init__(setup, nn.Linear(1, 1))
        self.stream, self.scale = setup.stream, scale
        Stub.built[setup.stream] += 1

    def features(self, item: Any) -> Any:
        raise NotImplementedError

    def _encode(self, items):
        Stub.encoded[self.stream] += len(items)
        return [torch.from_numpy(self.features(item)) * self.scale for item in items]


class StubText(Stub):
    modality, consumes, level, dim = "text", "text", "utterance", 3

    def features(self, text: str):
        if text == "boom":
            raise RuntimeError("no such word")
        values = {"overflow": 1e39, "nan": math.nan}.get(text, float(len(text)))
        return np.full((1, 3), values)


class StubSound(Stub):
    modality, consumes, level, dim, sample_rate = "audio", "waveform", "utterance", 2, RATE

    def features(self, waveform):
        return np.array([[len(waveform) / RATE, np.abs(waveform).mean()]], np.float32)


class StubFrames(Stub):
    modality, consumes, level, dim = "vision", "frames", "sequence", 3

    def prepare(self, frame):
        return frame.mean((0, 1))

    def features(self, frames):
        return np.array(frames, np.float32).reshape(-1, 3)


STUBS = {
    "words": f"{__name__}:StubText",
    "sound": f"{__name__}:StubSound",
    "frames": f"{__name__}:StubFrames",
}


@pytest.fixture(autouse=True)
def stubs(monkeypatch):
    monkeypatch.setattr(registry, "ENCODERS", Registry("encoder", STUBS))
    Stub.encoded.clear()
    Stub.built.clear()


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> Path:
    """Twelve clips of 0.4 s, each with a shade and a loudness of its own."""
    root = tmp_path_factory.mktemp("media")
    for i in range(12):
        picture = np.full((32, 48, 3), 10 + 20 * i, np.uint8)
        sound = (i + 1) / 20 * np.sin(np.arange(int(0.4 * RATE)) / 5).astype(np.float32)
        write_clip(root / f"{i}.mp4", [picture] * 4, 10, sound, RATE)
    write_clip(root / "silent.mp4", [np.zeros((32, 48, 3), np.uint8)] * 4, 10, None, RATE)
    (root / "broken.mp4").write_bytes(b"not a clip")
    return root


def clip(media: Path, name: str, text: str | None = None) -> Clip:
    text = f"words of {name}" if text is None else text
    return Clip(Utterance("v", name, "train", 1.0, text), media / f"{name}.mp4")


def manifest(media: Path, *names: str) -> Manifest:
    return Manifest("d", [clip(media, name) for name in names or map(str, range(12))])


def settings(*streams: str, fps: float = 5.0, scale: float = 1.0, **more: Any) -> Settings:
    recipes = [
        StreamRecipe(name, name, "own", {}, {"scale": scale} if name == "words" else {})
        for name in streams or STUBS
    ]
    return Settings(Profile("p", "random", Media(fps, 8), tuple(recipes)), "random", **more)


def contents(path: Path) -> dict[str, Any]:
    """All that a store says, without the time it was written."""
    store = FeatureStore(path)
    return {
        "table": store.utterances.to_dict("list"),
        "failed": store.failed,
        "splits_from": store.splits_from,
        **{
            name: (s.spec, s.values.tolist(), s.offsets.tolist())
            for name, s in store.streams.items()
        },
    }


def test_every_clip_gets_its_own_features(media, tmp_path):
    out = tmp_path / "s.h5"
    report = extract(manifest(media), out, settings())
    assert (report.utterances, report.encoded, report.failures) == (12, 12, [])
    store = FeatureStore(out)
    assert store.ids == [f"v$_${i}" for i in range(12)]
    assert store.durations == pytest.approx([0.4] * 12, abs=0.05)
    for i in range(12):
        assert store.streams["words"][i].tolist() == [[len(f"words of {i}")] * 3]
        assert store.streams["frames"][i] == pytest.approx(np.full((2, 3), 10 + 20 * i), abs=4)
    loudness = store.streams["sound"].values[:, 1]
    assert (np.diff(loudness) > 0).all()
    assert store.streams["frames"].values.dtype == np.float16
    assert store.streams["sound"].values.dtype == np.float32


def test_running_again_does_nothing(media, tmp_path):
    out = tmp_path / "s.h5"
    extract(manifest(media), out, settings())
    before, built = out.read_bytes(), Stub.built.copy()
    report = extract(manifest(media), out, settings())
    assert (report.encoded, report.utterances) == (0, 12)
    assert out.read_bytes() == before
    assert Stub.built == built  # not even an encoder was loaded
    assert list(tmp_path.iterdir()) == [out]  # and nothing is left lying about


@pytest.mark.parametrize(("batch", "workers", "lanes"), [(1, 1, 2), (5, 3, 1), (64, 2, 3)])
def test_features_do_not_depend_on_batches_or_workers(media, tmp_path, batch, workers, lanes):
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    extract(manifest(media), one, settings())
    extract(manifest(media), two, settings(batch_clips=batch, workers=workers, lanes=lanes))
    assert contents(one) == contents(two)


def test_features_do_not_depend_on_the_order_of_the_table(media, tmp_path):
    names = [str(i) for i in range(12)]
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    extract(manifest(media, *names), one, settings())
    extract(manifest(media, *names[::-1]), two, settings())
    forward, backward = FeatureStore(one), FeatureStore(two)
    assert backward.ids == forward.ids[::-1]
    for i, id_ in enumerate(forward.ids):
        for name in STUBS:
            theirs = backward.streams[name][backward.index[id_]]
            assert (forward.streams[name][i] == theirs).all()


@pytest.mark.parametrize("after", [1, 4, 11])
def test_a_run_that_is_stopped_goes_on_where_it_was(media, tmp_path, after):
    whole, out = tmp_path / "whole.h5", tmp_path / "s.h5"
    extract(manifest(media), whole, settings())
    Stub.encoded.clear()

    def stop(done: int, total: int, failed: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(manifest(media), out, settings(batch_clips=1), on_progress=stop)
    assert not out.exists()
    report = extract(manifest(media), out, settings())
    assert report.encoded == 12 - after
    assert Stub.encoded["words"] == 12  # a part is published on the way out: nothing is done twice
    assert contents(out) == contents(whole)


def test_more_clips_are_added_to_those_there_are(media, tmp_path):
    out = tmp_path / "s.h5"
    extract(manifest(media).first(5), out, settings())
    report = extract(manifest(media), out, settings())
    assert report.encoded == 7
    assert Stub.encoded == {"words": 12, "sound": 12, "frames": 12}
    extract(manifest(media), tmp_path / "whole.h5", settings())
    assert contents(out) == contents(tmp_path / "whole.h5")


def test_a_stream_is_added_without_touching_the_others(media, tmp_path):
    out = tmp_path / "s.h5"
    extract(manifest(media), out, settings("frames"))
    extract(manifest(media), out, settings("sound"))
    extract(manifest(media), out, settings("words"))
    assert Stub.encoded == {"words": 12, "sound": 12, "frames": 12}
    extract(manifest(media), tmp_path / "whole.h5", settings())
    assert contents(out) == contents(tmp_path / "whole.h5")


def test_text_streams_need_no_media(tmp_path):
    report = extract(manifest(tmp_path / "nowhere"), tmp_path / "s.h5", settings("words"))
    assert (report.utterances, report.failures) == (12, [])
    assert np.isnan(FeatureStore(tmp_path / "s.h5").durations).all()


def test_features_made_in_another_way_are_not_mixed(media, tmp_path):
    out = tmp_path / "s.h5"
    extract(manifest(media), out, settings())
    before = out.read_bytes()
    with pytest.raises(
        FingerprintError, match=r"'frames' .*media.fps: 5.0 -> 2.5.*`overwrite=True`"
    ):
        extract(manifest(media), out, settings(fps=2.5))
    with pytest.raises(FingerprintError, match=r"'words' .*options.scale: 1.0 -> 2.0"):
        extract(manifest(media), out, settings(scale=2.0))
    assert out.read_bytes() == before


def test_overwriting_one_stream_encodes_that_stream_alone(media, tmp_path):
    out = tmp_path / "s.h5"
    extract(manifest(media), out, settings())
    before = contents(out)
    Stub.encoded.clear()
    extract(manifest(media), out, settings("words", scale=2.0), overwrite=True)
    after = contents(out)
    assert Stub.encoded == {"words": 12}
    assert after["words"][1] == (2 * np.array(before["words"][1])).tolist()
    for key in ("table", "sound", "frames"):
        assert after[key] == before[key]


def test_another_text_is_encoded_again_and_nothing_else(media, tmp_path):
    out = tmp_path / "s.h5"
    table = manifest(media)
    extract(table, out, settings())
    Stub.encoded.clear()
    table.clips[3] = clip(media, "3", "a much longer text than it was")
    assert extract(table, out, settings()).encoded == 1
    assert Stub.encoded == {"words": 1}
    assert FeatureStore(out).streams["words"][3][0, 0] == 30


def test_another_label_or_split_is_taken_over_without_encoding(media, tmp_path):
    out = tmp_path / "s.h5"
    table = manifest(media)
    extract(table, out, settings())
    Stub.encoded.clear()
    changed = replace(table.clips[0].utterance, label=-2.0, split="test")
    table.clips[0] = replace(table.clips[0], utterance=changed)
    assert extract(table, out, settings()).encoded == 0
    assert not Stub.encoded
    store = FeatureStore(out)
    assert (store.labels[0], store.splits[0]) == (-2.0, "test")


def test_clips_are_not_dropped_by_accident(media, tmp_path):
    out = tmp_path / "s.h5"
    extract(manifest(media), out, settings())
    with pytest.raises(StoreError, match="holds 10 clips that this run does not list"):
        extract(manifest(media).first(2), out, settings())
    extract(manifest(media).first(2), out, settings(), overwrite=True)
    assert len(FeatureStore(out)) == 2


def test_a_stream_without_the_new_clips_is_not_taken_for_missing_modalities(media, tmp_path):
    out = tmp_path / "s.h5"
    extract(manifest(media).first(5), out, settings())
    with pytest.raises(StoreError, match=r"'(frames|sound)' lacks 7 of the clips"):
        extract(manifest(media), out, settings("words"))
    assert len(FeatureStore(out)) == 5
    assert Stub.encoded["words"] == 5  # refused before anything was encoded


def test_a_missing_modality_is_no_rows(media, tmp_path):
    out = tmp_path / "s.h5"
    table = Manifest("d", [clip(media, "silent"), clip(media, "1", "  "), clip(media, "2")])
    assert extract(table, out, settings()).failures == []
    lengths = {name: s.lengths.tolist() for name, s in FeatureStore(out).streams.items()}
    assert lengths == {"words": [1, 0, 1], "sound": [0, 1, 1], "frames": [2, 2, 2]}


def test_a_clip_of_which_nothing_can_be_encoded_is_left_out(media, tmp_path):
    out = tmp_path / "s.h5"
    table = Manifest("d", [clip(media, "silent", "  "), clip(media, "0")])
    report = extract(table, out, settings("words", "sound"))
    assert [(f.id, f.stage) for f in report.failures] == [("v$_$silent", "extract")]
    assert FeatureStore(out).ids == ["v$_$0"]
    assert FeatureStore(out).failed == report.failures
    assert extract(table, out, settings("words", "sound")).encoded == 0


def test_a_bad_clip_is_listed_and_the_others_are_encoded(media, tmp_path):
    out = tmp_path / "s.h5"
    report = extract(manifest(media, "0", "broken", "nowhere", "1"), out, settings())
    store = FeatureStore(out)
    assert store.ids == ["v$_$0", "v$_$1"]
    assert [(f.id, f.stage) for f in store.failed] == [
        ("v$_$broken", "media"),
        ("v$_$nowhere", "media"),
    ]
    assert report.failures == store.failed
    assert all(str(media) in failure.error for failure in store.failed)


def test_a_failed_clip_is_tried_again_when_asked(media, tmp_path):
    out, own = tmp_path / "s.h5", tmp_path / "media"
    own.mkdir()
    for name in ("0", "1"):
        (own / f"{name}.mp4").write_bytes((media / f"{name}.mp4").read_bytes())
    (own / "late.mp4").write_bytes(b"")
    table = manifest(own, "0", "late", "1")
    extract(table, out, settings())
    (own / "late.mp4").write_bytes((media / "2.mp4").read_bytes())
    assert extract(table, out, settings()).encoded == 0
    report = extract(table, out, settings(), retry_failed=True)
    assert (report.encoded, report.failures) == (1, [])
    assert FeatureStore(out).ids == ["v$_$0", "v$_$late", "v$_$1"]
    assert FeatureStore(out).failed == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [("boom", "RuntimeError: no such word"), ("overflow", "not finite"), ("nan", "not finite")],
)
def test_an_encoder_that_fails_on_a_clip_fails_that_clip_alone(media, tmp_path, text, reason):
    out = tmp_path / "s.h5"
    table = Manifest("d", [clip(media, "0"), clip(media, "1", text), clip(media, "2")])
    (failure,) = extract(table, out, settings()).failures
    assert (failure.id, failure.stage) == ("v$_$1", "words")
    assert reason in failure.error
    assert FeatureStore(out).ids == ["v$_$0", "v$_$2"]


def test_when_the_first_clips_all_fail_the_run_ends(media, tmp_path):
    out = tmp_path / "s.h5"
    names = [f"absent{i}" for i in range(20)]
    with pytest.raises(ClipmsaError, match=r"first 8 clips all failed; 'v\$_\$absent0' at media"):
        extract(manifest(media, *names, "0"), out, settings())
    with pytest.raises(ClipmsaError, match="first 3 clips all failed"):
        extract(manifest(media, *names[:3]), out, settings())
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_on_the_same_output_is_refused(media, tmp_path):
    out = tmp_path / "s.h5"
    work = tmp_path / ".s.h5.parts"
    work.mkdir()
    with (
        FileLock(work / ".lock"),
        pytest.raises(ClipmsaError, match="another run is writing"),
    ):
        extract(manifest(media), out, settings())
    extract(manifest(media), out, settings())
    assert len(FeatureStore(out)) == 12


def test_random_weights_are_recorded_as_such(media, tmp_path):
    out = tmp_path / "s.h5"
    extract(manifest(media).first(1), out, settings("words"))
    spec = FeatureStore(out).streams["words"].spec
    assert spec.weights == "random (seed 0)"
    assert spec.untrained
    assert len(spec.weights_sha256) == 64


@pytest.mark.parametrize("lanes", [1, 3])
def test_few_decoded_clips_wait_at_a_time(media, tmp_path, monkeypatch, lanes):
    """Memory stays flat: decoding runs ahead of encoding by a bounded number of clips."""
    waiting, most = 0, 0
    original_decode, original_encode = decode_clip, StubText._encode

    def decode(*arguments):
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return original_decode(*arguments)

    def encode(self, items):
        nonlocal waiting
        waiting -= len(items)
        return original_encode(self, items)

    monkeypatch.setattr(worker, "decode", decode)
    monkeypatch.setattr(StubText, "_encode", encode)
    clips = [
        replace(clip(media, str(i % 12)), utterance=Utterance("w", str(i), "train", 0.0, "text"))
        for i in range(60)
    ]
    extract(Manifest("d", clips), tmp_path / "s.h5", settings(batch_clips=3, lanes=lanes))
    batches = 2 if lanes == 1 else lanes + 3  # in work, being put together, one that waits
    assert most <= batches * 3 + 1


def test_lanes_share_torch_s_threads_and_give_them_back(media, tmp_path, monkeypatch):
    seen = set()
    encode = StubText._encode

    def watched(self, items):
        seen.add(torch.get_num_threads())
        return encode(self, items)

    monkeypatch.setattr(StubText, "_encode", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        extract(manifest(media), tmp_path / "s.h5", settings(lanes=2))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert seen == {2}


def test_shards_merge_into_the_store_of_one_run(media, tmp_path):
    names = [*map(str, range(7)), "broken", "8"]
    table = replace(manifest(media, *names), splits="drawn by video")
    extract(table, tmp_path / "whole.h5", settings())
    shards = [tmp_path / f"{i}.h5" for i in range(4)]
    for i, shard in enumerate(shards):
        extract(table.shard(i, 4), shard, settings())
    assert is_drawn(FeatureStore(tmp_path / "whole.h5").splits_from)
    assert merge_stores(shards, tmp_path / "merged.h5") == 8
    assert contents(tmp_path / "merged.h5") == contents(tmp_path / "whole.h5")


def test_shards_that_do_not_belong_together_are_not_merged(media, tmp_path):
    table, out = manifest(media), tmp_path / "merged.h5"
    one, other = tmp_path / "one.h5", tmp_path / "other.h5"
    extract(table.shard(0, 2), one, settings())
    for bad, kind, message in (
        (settings(scale=2.0), FingerprintError, "options.scale: 1.0 -> 2.0"),
        (settings("words", "sound"), StoreError, "only one of them has stream 'frames'"),
    ):
        extract(table.shard(1, 2), other, bad)
        with pytest.raises(kind, match=message):
            merge_stores([one, other], out)
        other.unlink()
    extract(replace(table.shard(1, 2), splits="drawn by video"), other, settings())
    with pytest.raises(StoreError, match=r"splits_from is 'drawn by video', that of .* is ''"):
        merge_stores([one, other], out)
    with pytest.raises(StoreError, match=r"'v.*0' is in .* too"):
        merge_stores([one, one], out)
    assert not out.exists()
