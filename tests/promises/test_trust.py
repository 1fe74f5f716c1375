"""What comes from elsewhere runs nothing, fetches nothing and leads nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from clipmsa.cache import StreamSpec
from clipmsa.cache.errors import FingerprintError, ProfileError, WeightsError
from clipmsa.cli.main import main
from clipmsa.extract.encoders import openclip
from clipmsa.extract.encoders.encoder import Setup
from clipmsa.extract.encoders.transformers_models import (
    load_features,
    load_pretrained,
    load_tokenizer,
    random_model,
)
from clipmsa.extract.engine.plan import StreamPlan
from clipmsa.extract.engine.rebuild import ClipEncoders
from clipmsa.extract.profiles import recorded
from clipmsa.extract.profiles.profile import load_profile
from clipmsa.extract.profiles.recorded import find_recorded
from clipmsa.extract.weights import find as weights_module
from clipmsa.extract.weights.find import find_checkpoint
from clipmsa.extract.weights.offline import offline


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# ---- Folders of transformers that bring code.


@pytest.fixture
def with_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose every part names code of its own, which would leave a file; a yes to all."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = tmp_path / "model"
    ran = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass C: pass\n"
    write(folder / "mine.py", code.encode())
    map_ = {"AutoConfig": "mine.C", "AutoModel": "mine.C", "AutoFeatureExtractor": "mine.C"}
    for name, said in {
        "config.json": {"model_type": "mine", "auto_map": map_},
        "tokenizer_config.json": {
            "tokenizer_class": "C",
            "auto_map": {"AutoTokenizer": ["mine.C", None]},
        },
        "preprocessor_config.json": {"feature_extractor_type": "C", "auto_map": map_},
    }.items():
        write(folder / name, json.dumps(said).encode())
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("load", [load_pretrained, load_tokenizer, load_features])
def test_code_in_a_checkpoint_is_not_run_and_not_asked_about(with_code: Path, load: Any) -> None:
    with pytest.raises(WeightsError, match="it needs code of its own") as caught:
        load(with_code)
    assert "\n" not in str(caught.value)
    assert "trust_remote_code" not in str(caught.value)
    assert not (with_code.parent / "ran").exists()


def test_a_tokenizer_for_an_export_brings_no_code_either(
    with_code: Path, plant: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    store = with_code.parent / "store.h5"
    plant(store)
    line = ["export", str(store), str(with_code.parent / "out.pkl"), "--to", "mmsa"]
    assert main([*line, "--tokenizer", str(with_code)]) == 1
    assert "it needs code of its own" in " ".join(capsys.readouterr().err.split())
    assert not (with_code.parent / "ran").exists()


def test_what_transformers_knows_itself_needs_no_code_of_the_folder(with_code: Path) -> None:
    small: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(**small, intermediate_size=8, vocab_size=10)).save_pretrained(with_code)
    config = with_code / "config.json"
    said = json.loads(config.read_text()) | {"auto_map": {"AutoModel": "mine.C"}}
    config.write_text(json.dumps(said))
    assert isinstance(load_pretrained(with_code), BertModel)
    assert not (with_code.parent / "ran").exists()


def test_code_on_the_hub_that_a_config_names_is_not_fetched(with_code: Path) -> None:
    said = {"model_type": "bert", "text_config": {"attn_implementation": "attacker/kernel"}}
    write(with_code / "config.json", json.dumps(said).encode())
    with pytest.raises(WeightsError, match=r"code of 'attacker/kernel'"):
        load_pretrained(with_code)


def test_a_repository_s_code_is_not_downloaded_nor_part_of_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot_download(repository: str, **options: Any) -> str:
        folder = Path(options["local_dir"])
        for name in ("config.json", "tokenization_evil.py", "model.safetensors"):
            refused = options.get("ignore_patterns", ())
            if not any(Path(name).match(pattern) for pattern in refused):
                write(folder / name, b"1")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = find_checkpoint("s", {"hub": "org/model"}, tmp_path, fetch=True)
    assert not list(tmp_path.rglob("*.py"))
    write(tmp_path / "model" / "tokenization_evil.py", b"1")
    assert find_checkpoint("s", {"hub": "org/model"}, tmp_path).sha256 == found.sha256


@pytest.mark.parametrize(
    "table",
    [
        {"vision_cfg": {"timm_model_name": "hf-hub:attacker/model"}},
        {"text_cfg": {"hf_model_name": "gpt2"}},
        {"text_cfg": {"norm_kwargs": {"x": "local-dir:/tmp"}}},
        {"model_type": "bert", "_attn_implementation": "attacker/kernel"},
        {"model_type": "detr", "use_pretrained_backbone": True},
        {"model_type": "bert", "hidden_act": ["a/b"]},
    ],
)
def test_a_table_of_sizes_names_nothing_that_would_be_fetched(table: Mapping[str, Any]) -> None:
    setup = Setup("s", None, torch.device("cpu"), "fp32")
    build = {True: random_model, False: lambda s, table: openclip._clip(setup, table)}
    with pytest.raises(ProfileError, match="nothing is fetched that it names"):
        build["model_type" in table]("s", table)


def test_offline_is_out_of_reach_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with offline():
        assert constants.is_offline_mode()
    assert not constants.is_offline_mode()


# ---- Weights that a model's file names.


def spec_of(weights: str, digest: str) -> StreamSpec:
    """A stream as a model's file describes it, of an encoder that has no options."""
    config = {
        "encoder": "esresnext",
        "options": {},
        "weights": {"sha256": digest},
        "precision": "fp32",
        "preprocessing": 1,
    }
    spec = StreamSpec("s", "audio", "clip", "utterance", 8, weights=weights, config=config)
    return replace(spec, weights_sha256=digest)


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the hubs, and whoever downloads fails the test."""

    def reached(*_: Any, **options: Any) -> Any:
        if options.get("local_files_only"):
            return real(*_, **options)
        raise AssertionError("a download")

    from huggingface_hub import snapshot_download as real

    monkeypatch.setattr("huggingface_hub.snapshot_download", reached)
    monkeypatch.setattr(weights_module, "download", reached)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def snapshot(cache: Path, repository: str, name: str, content: bytes) -> Path:
    """A file of a repository in the Hugging Face cache, as a download leaves it."""
    folder = cache / "hf" / f"models--{repository.replace('/', '--')}"
    write(folder / "refs" / "main", b"0" * 40)
    blob = write(folder / "blobs" / sha256(content), content)
    link = folder / "snapshots" / ("0" * 40) / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def test_a_path_that_a_model_names_is_not_opened(caches: Path) -> None:
    secret = write(caches / "secret" / "notes.txt", b"secret")
    for digest in (sha256(b"secret"), "ab12"):
        with pytest.raises(WeightsError, match=r"notes\.txt' with `weights`") as caught:
            ClipEncoders([spec_of(f"path:{secret}", digest)])
        assert sha256(b"secret")[:8] not in str(caught.value).replace(digest[:16], "")


def test_a_path_s_file_is_found_in_the_folder_that_the_user_names(caches: Path) -> None:
    file = write(caches / "mine" / "model.pt", b"good")
    spec = spec_of("path:/elsewhere/model.pt", sha256(b"good"))
    assert find_recorded(spec, caches / "mine").path == file
    with pytest.raises(FingerprintError, match=r"weights\.sha256: ab12 -> "):
        find_recorded(spec_of("path:/elsewhere/model.pt", "ab12"), caches / "mine")


@pytest.mark.parametrize("weights", ["url:http://127.0.0.1:9/evil.pth", "hub:attacker/repo"])
def test_an_address_that_a_model_names_is_not_visited(caches: Path, weights: str) -> None:
    with pytest.raises(WeightsError, match="nothing is opened only because a model's file names"):
        ClipEncoders([spec_of(weights, sha256(b"evil"))])
    assert not (caches / "torch").exists()


@pytest.mark.parametrize(
    "weights",
    [
        "path:/etc/..",
        "path:",
        "hub:../../etc",
        "hub:org/model#../../../secret.txt",
        "hub:org/model#/etc/passwd",
        "url:https://host/a/..",
        "url:http://[",
        "passwd",
    ],
)
def test_a_name_that_leads_away_is_no_file_s(caches: Path, weights: str) -> None:
    write(caches / "secret.txt", b"secret")
    with pytest.raises(FingerprintError, match="which is no file's"):
        ClipEncoders([spec_of(weights, sha256(b"secret"))], caches)


def test_files_in_the_hubs_caches_are_opened_by_the_recorded_digest_alone(caches: Path) -> None:
    link = snapshot(caches, "org/model", "m.safetensors", b"hub")
    file = write(caches / "torch" / "hub" / "checkpoints" / "m.pt", b"torch")
    places = {"hub:org/model#m.safetensors": link, "url:https://host/m.pt": file}
    for weights, path in places.items():
        spec = spec_of(weights, sha256(path.read_bytes()))
        assert find_recorded(spec, "pretrained").path == path
        # A folder that the user names comes first, and does not hide what is the right one.
        write(caches / "mine" / "model" / "m.safetensors", b"another")
        write(caches / "mine" / "m.pt", b"another")
        assert find_recorded(spec, caches / "mine").path == path
        with pytest.raises(FingerprintError, match=r"weights\.sha256: "):
            find_recorded(spec_of(weights, sha256(b"recorded")), "pretrained")


def test_only_what_a_shipped_profile_names_is_downloaded_and_only_the_recorded_file(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    source = dict(load_profile("paper").streams[-1].source)
    sent = b"what the server sends"

    def download(url: str, path: Path, digest: str, *_: Any) -> None:
        asked.append((url, digest))
        if sha256(sent) != digest:
            raise WeightsError("SHA-256 is another")
        write(path, sent)

    monkeypatch.setattr(weights_module, "download", download)
    recorded_digest = source["sha256"] + "0" * 56
    with pytest.raises(WeightsError, match="SHA-256 is another"):
        find_recorded(spec_of(f"url:{source['url']}", recorded_digest), "pretrained")
    assert asked == [(source["url"], recorded_digest)]
    for weights, digest in (
        (f"url:{source['url']}", "0" * 64),  # not the profile's file
        (f"url:{source['url']}?x", recorded_digest),  # nor its address
    ):
        with pytest.raises(WeightsError, match="name a folder that has"):
            find_recorded(spec_of(weights, digest), "pretrained")
    assert len(asked) == 1
    monkeypatch.setattr(recorded, "TRANSCRIBER", {"url": "https://host/m.pt"})
    found = find_recorded(spec_of("url:https://host/m.pt", sha256(sent)), "pretrained")
    assert found.path == caches / "torch" / "hub" / "checkpoints" / "m.pt"


def test_encoders_are_built_from_a_record_out_of_reach_of_the_hubs(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(caches / "m.pt", b"weights")
    seen: list[bool] = []

    def build(*_: Any) -> Any:
        seen.append(constants.is_offline_mode())
        raise WeightsError("enough")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(StreamPlan, "build", build)
    with pytest.raises(WeightsError, match="enough"):
        ClipEncoders([spec_of("path:/x/m.pt", sha256(b"weights"))], caches)
    assert seen == [True]


# ---- CLIP's two activations, which no state dict tells apart.


@pytest.mark.parametrize(
    ("place", "trained"),
    [
        ("models--timm--resnet50_clip.openai/snapshots/0/open_clip_model.safetensors", True),
        ("resnet50_clip.openai/open_clip_model.safetensors", True),
        ("vit_large_patch14_clip_quickgelu_224.dfn2b/open_clip_model.safetensors", True),
        ("rn50-quickgelu-yfcc15m-455df137.pt", True),
        ("CLIP-ViT-B-32-laion2B-s34B-b79K/open_clip_model.safetensors", False),
        ("mine.safetensors", None),
    ],
)
def test_open_clip_s_list_says_with_which_activation_weights_were_trained(
    tmp_path: Path, place: str, trained: bool | None
) -> None:
    assert openclip._trained_with_quick_gelu(tmp_path / place, {}) is trained


def test_a_checkpoint_s_own_config_and_contents_say_it_too(tmp_path: Path) -> None:
    said = {"model_cfg": {"quick_gelu": True}}
    write(tmp_path / "open_clip_config.json", json.dumps(said).encode())
    assert openclip._trained_with_quick_gelu(tmp_path / "m.safetensors", {}) is True
    audioclip = {"audio.conv1.weight": torch.zeros(1)}
    assert openclip._trained_with_quick_gelu(tmp_path / "other" / "m.pt", audioclip) is True


def test_weights_with_the_other_activation_than_the_architecture_s_are_refused(
    tmp_path: Path,
) -> None:
    file = tmp_path / "resnet50_clip.openai" / "open_clip_model.safetensors"
    openclip._check_activation(file, {}, "RN50-quickgelu")
    openclip._check_activation(file, {}, {"quick_gelu": True})
    with pytest.raises(WeightsError, match=r"with QuickGELU.*'RN50' has GELU.*take 'RN50-quick"):
        openclip._check_activation(file, {}, "RN50")
    with pytest.raises(WeightsError, match=re.escape("set quick_gelu = true")):
        openclip._check_activation(file, {}, {"embed_dim": 8})
    plain = tmp_path / "CLIP-ViT-B-32-laion2B-s34B-b79K" / "open_clip_model.safetensors"
    with pytest.raises(WeightsError, match="take 'ViT-B-32'"):
        openclip._check_activation(plain, {}, "ViT-B-32-quickgelu")
