"""Encoders: the numbers of the libraries they wrap, from checkpoints in the formats of the hubs.

The checkpoints are written here, at toy sizes where the format allows, under the keys that the
published files have.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import sentencepiece
import torch
import torchvision
from facenet_pytorch import MTCNN
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms.functional import normalize, to_tensor
from transformers import (
    AlbertConfig,
    AlbertForPreTraining,
    AlbertTokenizer,
    BertConfig,
    BertModel,
    Wav2Vec2Config,
    Wav2Vec2ForPreTraining,
)

from clipmsa.cache.errors import WeightsError
from clipmsa.extract.encoders.audioclip import AudioClipSound
from clipmsa.extract.encoders.encoder import Encoder, Setup
from clipmsa.extract.encoders.esresnext import ESResNeXt
from clipmsa.extract.encoders.faces import MtcnnVgg, vgg11
from clipmsa.extract.encoders.openclip import OpenClipImage, OpenClipText, _clip
from clipmsa.extract.encoders.registry import encoder_class
from clipmsa.extract.encoders.transformers_models import random_model
from clipmsa.extract.encoders.transformers_speech import TransformersSpeech
from clipmsa.extract.encoders.transformers_text import TransformersText
from clipmsa.extract.engine.plan import Settings, plan_streams
from clipmsa.extract.profiles.profile import load_profile

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
STREAMS = ["albert", "clip_text", "wav2vec2", "esresnext", "clip_image", "face_vgg"]
TINY = {recipe.name: recipe for recipe in load_profile("tiny").streams}
PAPER = {recipe.name: recipe for recipe in load_profile("paper").streams}
CLIP_SIZES = TINY["clip_text"].options["architecture"]
SOUND_SIZES = TINY["esresnext"].options["architecture"]
FACE_SIZES = TINY["face_vgg"].options["architecture"]
SENTENCES = [
    "The film was wonderful and the acting brilliant.",
    "What a dull, clumsy story!",
    "I laughed, I cried, I wanted more of it",
    "never again",
]


@cache
def tiny(stream: str, precision: str = "fp32") -> Encoder:
    return build("tiny", stream, precision)


def build(profile: str, stream: str, precision: Any = "fp32") -> Encoder:
    chosen = load_profile(profile).only((stream,))
    settings = Settings(chosen, weights="random", precision=precision)
    return plan_streams(settings)[stream].build()


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def waveform(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * random(seed).standard_normal(samples)).astype(np.float32)


@cache
def hopper() -> Image.Image:
    """Grace Hopper's photograph, 512 x 600 pixels, with her face in the upper half."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        return image.convert("RGB")


def picture(height: int, width: int, *faces: tuple[int, int, int], seed: int = 0) -> Any:
    """A dim noisy picture (height, width, 3) with photographs of (size, left, top) pixels."""
    canvas = random(seed).integers(0, 12, (height, width, 3), dtype=np.uint8)
    for size, left, top in faces:
        photograph = np.asarray(hopper().resize((size * 512 // 600, size)))
        h, w = min(size, height - top), min(photograph.shape[1], width - left)
        canvas[top : top + h, left : left + w] = photograph[:h, :w]
    return canvas


def close(got: NDArray[Any], wanted: Tensor | NDArray[Any], tolerance: float = 1e-5) -> bool:
    """Whether two sets of rows agree relative to the largest number in each row."""
    wanted = np.asarray(wanted.detach() if isinstance(wanted, Tensor) else wanted)
    assert got.shape == wanted.shape
    scale = np.abs(wanted).max(-1, keepdims=True, initial=1e-30)
    return bool((np.abs(got - wanted) <= tolerance * scale).all())


def apart(rows: NDArray[Any]) -> bool:
    """Whether no two rows are alike, so that a test would notice if they were mixed up."""
    gaps = np.abs(rows[:, None] - rows[None]).max(-1) + np.eye(len(rows))
    return bool((gaps > 1e-4 * np.abs(rows).max()).all())


def randomised(module: nn.Module, seed: int = 0) -> Any:
    """The module in eval mode with numbers in its batch norms that make a difference."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module.eval()


# ---- Text: transformers folders, as albert/albert-base-v2 is one.


@pytest.fixture(scope="module")
def pieces() -> sentencepiece.SentencePieceProcessor:
    """A sentencepiece model with ALBERT's special pieces at ALBERT's numbers."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.lower() for text in SENTENCES * 20),
        model_writer=written,
        vocab_size=70,
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        control_symbols=["[CLS]", "[SEP]"],
        user_defined_symbols=["[MASK]"],
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.fixture(scope="module")
def albert() -> Any:
    """The published checkpoint is of this class: the encoder under `albert.`, and two heads."""
    torch.manual_seed(1)
    config = AlbertConfig(
        vocab_size=70,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    return AlbertForPreTraining(config).eval()


@pytest.fixture
def albert_folder(
    tmp_path: Path, albert: Any, pieces: sentencepiece.SentencePieceProcessor
) -> Path:
    folder = tmp_path / "albert-base-v2"
    albert.save_pretrained(folder)
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    AlbertTokenizer(vocab=vocabulary).save_pretrained(folder)
    (folder / "spiece.model").write_bytes(pieces.serialized_model_proto())
    assert {"tokenizer.json", "spiece.model"} <= {file.name for file in folder.iterdir()}
    return folder


def old_format(folder: Path, rename: Mapping[str, str] | None = None) -> None:
    """Turn model.safetensors into pytorch_model.bin, with parts of the keys as they used to be."""
    state = load_file(folder / "model.safetensors")
    for new, old in (rename or {}).items():
        state = {key.replace(new, old): value for key, value in state.items()}
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def change(folder: Path, what: Callable[[dict[str, Tensor]], object]) -> None:
    """Edit the tensors of model.safetensors."""
    state = load_file(folder / "model.safetensors")
    what(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("old", [False, True])
def test_albert_s_feature_is_the_cls_vector_of_its_last_layer(
    albert_folder: Path,
    albert: Any,
    pieces: sentencepiece.SentencePieceProcessor,
    old: bool,
) -> None:
    if old:
        old_format(albert_folder)
    encoder = TransformersText(Setup("albert", albert_folder, CPU, "fp32"))
    got = encoder.encode(SENTENCES)
    assert encoder.dim == 32
    for row, text in zip(got, SENTENCES, strict=True):
        ids = torch.tensor([[2, *pieces.encode(text.lower()), 3]])  # [CLS] ... [SEP]
        with torch.no_grad():
            assert close(row, albert.albert(ids).last_hidden_state[:, 0])
    assert apart(np.concatenate(got))


def test_mean_pooling_is_over_a_text_s_own_tokens(
    albert_folder: Path,
    albert: Any,
    pieces: sentencepiece.SentencePieceProcessor,
) -> None:
    encoder = TransformersText(Setup("albert", albert_folder, CPU, "fp32"), pooling="mean")
    for row, text in zip(encoder.encode(SENTENCES), SENTENCES, strict=True):
        ids = torch.tensor([[2, *pieces.encode(text.lower()), 3]])
        with torch.no_grad():
            assert close(row, albert.albert(ids).last_hidden_state.mean(1))


@pytest.mark.parametrize("pooling", ["cls", "mean", "none"])
def test_a_tokenizer_that_pads_before_a_text_changes_nothing(
    albert_folder: Path, pooling: Any
) -> None:
    usual = TransformersText(Setup("albert", albert_folder, CPU, "fp32"), pooling=pooling)
    settings = json.loads((albert_folder / "tokenizer_config.json").read_text())
    settings["padding_side"] = "left"
    (albert_folder / "tokenizer_config.json").write_text(json.dumps(settings))
    other = TransformersText(Setup("albert", albert_folder, CPU, "fp32"), pooling=pooling)
    for a, b in zip(usual.encode(SENTENCES), other.encode(SENTENCES), strict=True):
        assert np.array_equal(a, b)


def test_without_pooling_a_text_s_rows_are_its_own_tokens(
    albert_folder: Path,
    albert: Any,
    pieces: sentencepiece.SentencePieceProcessor,
) -> None:
    encoder = TransformersText(Setup("albert", albert_folder, CPU, "fp32"), pooling="none")
    assert encoder.level == "sequence"
    for rows, text in zip(encoder.encode(SENTENCES), SENTENCES, strict=True):
        ids = torch.tensor([[2, *pieces.encode(text.lower()), 3]])
        with torch.no_grad():
            assert close(rows, albert.albert(ids).last_hidden_state[0])


def test_a_long_text_is_cut_at_max_tokens_and_keeps_its_end_token(
    albert_folder: Path,
    albert: Any,
    pieces: sentencepiece.SentencePieceProcessor,
) -> None:
    encoder = TransformersText(Setup("albert", albert_folder, CPU, "fp32"), max_tokens=12)
    text = " ".join(SENTENCES)
    ids = torch.tensor([[2, *pieces.encode(text.lower())[:10], 3]])
    with torch.no_grad():
        assert close(encoder.encode([text])[0], albert.albert(ids).last_hidden_state[:, 0])


def test_a_bert_with_a_vocabulary_file_of_old_is_loaded(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["the", "film", "was", "dull", "and"]]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).eval()
    model.save_pretrained(tmp_path)
    encoder = TransformersText(Setup("bert", tmp_path, CPU, "fp32"))
    with torch.no_grad():
        wanted = model(torch.tensor([[2, 5, 6, 7, 1, 3]])).last_hidden_state[:, 0]
    assert close(encoder.encode(["The film was odd"])[0], wanted)


def test_loading_prints_nothing(albert_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    TransformersText(Setup("albert", albert_folder, CPU, "fp32"))  # its heads are not used
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_without_some_of_the_encoder_s_weights_is_refused(albert_folder: Path) -> None:
    name = "albert.encoder.embedding_hidden_mapping_in.weight"
    change(albert_folder, lambda state: state.pop(name))
    with pytest.raises(WeightsError, match=r"albert-base-v2: .* lacks 1 weights .*mapping_in"):
        TransformersText(Setup("albert", albert_folder, CPU, "fp32"))


def test_a_checkpoint_without_the_pooler_will_do(albert_folder: Path) -> None:
    whole = TransformersText(Setup("albert", albert_folder, CPU, "fp32")).encode(SENTENCES)
    change(
        albert_folder, lambda state: [state.pop(f"albert.pooler.{k}") for k in ("weight", "bias")]
    )
    before = torch.get_rng_state()
    without = TransformersText(Setup("albert", albert_folder, CPU, "fp32")).encode(SENTENCES)
    assert np.array_equal(whole, without)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_another_shape_than_the_configuration_s_are_refused(albert_folder: Path) -> None:
    name = "albert.embeddings.word_embeddings.weight"
    change(albert_folder, lambda state: state.update({name: torch.zeros(70, 15)}))
    with pytest.raises(WeightsError, match=r"word_embeddings.* is \(70, 15\), must be \(70, 16\)"):
        TransformersText(Setup("albert", albert_folder, CPU, "fp32"))


@pytest.mark.parametrize("left", ["config.json", "config.json tokenizer_config.json"])
def test_a_folder_without_a_vocabulary_is_refused(albert_folder: Path, left: str) -> None:
    for file in albert_folder.iterdir():
        if file.name not in f"{left} model.safetensors".split():
            file.unlink()
    with pytest.raises(WeightsError, match=r"albert-base-v2: has no .*tokenizer.*tokenizer\.json"):
        TransformersText(Setup("albert", albert_folder, CPU, "fp32"))


def test_a_damaged_tokenizer_is_refused(albert_folder: Path) -> None:
    (albert_folder / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=r"albert-base-v2: has no usable tokenizer") as caught:
        TransformersText(Setup("albert", albert_folder, CPU, "fp32"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_with_a_damaged_file_is_refused(albert_folder: Path, name: str) -> None:
    (albert_folder / name).write_text("<html>")
    with pytest.raises(WeightsError, match="albert-base-v2: not a transformers model"):
        TransformersText(Setup("albert", albert_folder, CPU, "fp32"))


class Trap:
    """A pickle of it runs a command in whoever loads it."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.sign}",)


def test_a_transformers_checkpoint_that_would_run_code_is_refused_and_does_not(
    albert_folder: Path, tmp_path: Path
) -> None:
    sign = tmp_path / "sign"
    state = load_file(albert_folder / "model.safetensors")
    torch.save({**state, "trap": Trap(sign)}, albert_folder / "pytorch_model.bin")
    (albert_folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="albert-base-v2"):
        TransformersText(Setup("albert", albert_folder, CPU, "fp32"))
    assert not sign.exists()
    torch.load(albert_folder / "pytorch_model.bin", weights_only=False)
    assert sign.exists()  # the trap is a real one


# ---- Speech: transformers folders, as facebook/wav2vec2-base is one.

# The published file, word for word.
PREPROCESSOR = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": 16000,
}


@pytest.fixture(scope="module")
def wav2vec2() -> Any:
    """The published checkpoint is of this class: the encoder, a quantiser and two projections."""
    torch.manual_seed(2)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        codevector_dim=16,
        proj_codevector_dim=16,
        num_codevectors_per_group=4,
    )
    return Wav2Vec2ForPreTraining(config).eval()


@pytest.fixture
def wav2vec2_folder(tmp_path: Path, wav2vec2: Any) -> Path:
    folder = tmp_path / "wav2vec2-base"
    wav2vec2.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def preprocessor(folder: Path, **changes: Any) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSOR, **changes}))


@pytest.mark.parametrize("old", [False, True])
def test_wav2vec2_s_feature_is_the_mean_over_time_of_the_normalised_waveform(
    wav2vec2_folder: Path, wav2vec2: Any, old: bool
) -> None:
    if old:  # the published file is older than torch's parametrizations
        weight = "parametrizations.weight.original"
        old_format(wav2vec2_folder, {f"{weight}0": "weight_g", f"{weight}1": "weight_v"})
    encoder = TransformersSpeech(Setup("wav2vec2", wav2vec2_folder, CPU, "fp32"))
    assert (encoder.dim, encoder.sample_rate) == (32, 16000)
    clips = [waveform(9000, 1), 0.3 + 5 * waveform(16000, 2)]
    for row, clip in zip(encoder.encode(clips), clips, strict=True):
        scaled = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        with torch.no_grad():
            states = wav2vec2.wav2vec2(torch.from_numpy(scaled)[None]).last_hidden_state
        assert close(row, states.mean(1))


def test_without_pooling_speech_keeps_its_frames_at_the_rate_that_is_asked_for(
    wav2vec2_folder: Path,
) -> None:
    def encode(clip: Any, **options: Any) -> Any:
        return TransformersSpeech(Setup("w", wav2vec2_folder, CPU, "fp32"), **options).encode(
            [clip]
        )[0]

    clip = waveform(16000, 2)
    frames = encode(clip, pooling="none")
    assert frames.shape == (49, 32)  # 25 ms each, 20 ms apart
    assert close(frames.mean(0, keepdims=True), encode(clip))
    seen = encode(clip, pooling="none", rate=10)
    assert seen.shape == (10, 32)
    # The middles of frames lie at 12.5, 32.5, ... ms: five in each tenth of a second.
    assert close(seen[3], frames[15:20].mean(0))
    assert close(seen[9], frames[45:].mean(0))
    assert np.array_equal(encode(clip, pooling="none", rate=999), frames)
    assert encode(waveform(100), pooling="none", rate=10).shape == (1, 32)


def test_long_speech_has_every_frame_of_every_window_once(
    wav2vec2_folder: Path, wav2vec2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipmsa.extract.encoders.transformers_speech.WINDOW_SECONDS", 1.0)
    encoder = TransformersSpeech(Setup("w", wav2vec2_folder, CPU, "fp32"), pooling="none")
    clip = waveform(40000, 2)  # 2.5 s: three windows
    scaled = torch.from_numpy((clip - clip.mean()) / np.sqrt(clip.var() + 1e-7))[None]
    frames = encoder.encode([clip])[0]
    assert len(frames) == (40000 - 400) // 320 + 1
    with torch.no_grad():
        first = wav2vec2.wav2vec2(scaled[:, : 40 * 320 + 400]).last_hidden_state[0]
        last = wav2vec2.wav2vec2(scaled[:, 82 * 320 :]).last_hidden_state[0]
    assert close(frames[:41], first)
    assert close(frames[82:], last)
    short = clip[:16000]
    whole = encoder.encode([short])[0]
    monkeypatch.setattr("clipmsa.extract.encoders.transformers_speech.WINDOW_SECONDS", 1000.0)
    assert np.array_equal(encoder.encode([short])[0], whole)


def test_the_preprocessor_of_the_checkpoint_decides_scale_and_rate(
    wav2vec2_folder: Path, wav2vec2: Any
) -> None:
    preprocessor(wav2vec2_folder, do_normalize=False, sampling_rate=8000)
    encoder = TransformersSpeech(Setup("wav2vec2", wav2vec2_folder, CPU, "fp32"))
    assert encoder.sample_rate == 8000
    clip = 0.3 + 5 * waveform(9000)
    with torch.no_grad():
        states = wav2vec2.wav2vec2(torch.from_numpy(clip)[None]).last_hidden_state
    assert close(encoder.encode([clip])[0], states.mean(1))


@pytest.mark.parametrize("content", [None, "{"])
def test_speech_without_a_preprocessor_is_refused(
    wav2vec2_folder: Path, content: str | None
) -> None:
    file = wav2vec2_folder / "preprocessor_config.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(WeightsError, match=r"wav2vec2-base: .*preprocessor_config\.json"):
        TransformersSpeech(Setup("wav2vec2", wav2vec2_folder, CPU, "fp32"))


def test_a_sound_shorter_than_a_frame_is_completed_with_silence(
    wav2vec2_folder: Path,
) -> None:
    preprocessor(wav2vec2_folder, do_normalize=False)
    encoder = TransformersSpeech(Setup("wav2vec2", wav2vec2_folder, CPU, "fp32"))
    assert encoder.shortest == 400
    one = np.array([0.5], np.float32)
    short, completed = encoder.encode([one, np.pad(one, (0, 399))])
    assert np.isfinite(short).all()
    assert np.array_equal(short, completed)


def test_speech_weights_that_are_missing_are_refused(wav2vec2_folder: Path) -> None:
    weight = "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0"
    change(wav2vec2_folder, lambda state: state.pop(weight))
    with pytest.raises(WeightsError, match=r"wav2vec2-base: .* lacks 1 weights"):
        TransformersSpeech(Setup("wav2vec2", wav2vec2_folder, CPU, "fp32"))


# ---- CLIP: open_clip's state dict in safetensors.


@pytest.fixture(scope="module")
def clip() -> Any:
    torch.manual_seed(3)
    return randomised(open_clip.CLIP(**{k: copied(v) for k, v in CLIP_SIZES.items()}))


def copied(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


@pytest.fixture
def clip_file(tmp_path: Path, clip: Any) -> Path:
    save_file(clip.state_dict(), tmp_path / "open_clip_model.safetensors")
    return tmp_path / "open_clip_model.safetensors"


def test_clip_s_text_feature_is_open_clip_s(clip_file: Path, clip: Any) -> None:
    encoder = OpenClipText(Setup("clip_text", clip_file, CPU, "fp32"), architecture=CLIP_SIZES)
    got = np.concatenate(encoder.encode([*SENTENCES, "word " * 200]))
    tokens = open_clip.get_tokenizer("RN50")([*SENTENCES, "word " * 200])
    with torch.no_grad():
        assert close(got, clip.encode_text(tokens))
    assert apart(got)


@pytest.mark.parametrize("size", [(90, 120), (64, 64), (200, 70), (20, 31)])
def test_clip_s_image_feature_is_open_clip_s_with_its_own_transform(
    clip_file: Path, clip: Any, size: tuple[int, int]
) -> None:
    encoder = OpenClipImage(Setup("clip_image", clip_file, CPU, "fp32"), architecture=CLIP_SIZES)
    frames = [picture(*size, (min(size), 0, 0), seed=seed) for seed in range(3)]
    (got,) = encoder.encode([[encoder.prepare(frame) for frame in frames]])
    transform = image_transform_v2(PreprocessCfg(size=64), is_train=False)
    with torch.no_grad():
        pixels = torch.stack([transform(Image.fromarray(frame)) for frame in frames])
        assert close(got, clip.encode_image(pixels))


def test_a_clip_checkpoint_with_a_key_too_few_or_too_many_is_refused(
    clip_file: Path, clip: Any
) -> None:
    state = clip.state_dict()
    for changed in (
        {k: v for k, v in state.items() if k != "ln_final.bias"},
        {**state, "logit_bias": torch.zeros([])},
        {**state, "text_projection": torch.zeros(64, 63)},
    ):
        save_file(changed, clip_file)
        for encoder in (OpenClipText, OpenClipImage):
            with pytest.raises(WeightsError, match=r"open_clip_model\.safetensors: does not fit"):
                encoder(Setup("clip", clip_file, CPU, "fp32"), architecture=CLIP_SIZES)


def test_open_clip_does_not_warn_of_random_weights(
    clip_file: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(WeightsError, match="does not fit"):  # it is of another size
        OpenClipText(Setup("clip_text", clip_file, CPU, "fp32"), architecture="RN50-quickgelu")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


# ---- AudioCLIP: `audio.*` among the keys of the other two towers.


@pytest.fixture(scope="module")
def sound() -> ESResNeXt:
    torch.manual_seed(4)
    network: ESResNeXt = randomised(ESResNeXt(**SOUND_SIZES))
    return network


@pytest.fixture
def audioclip_file(tmp_path: Path, sound: ESResNeXt, clip: Any) -> Path:
    audio = {f"audio.{key}": value for key, value in sound.state_dict().items()}
    scales = {key: torch.tensor(4.6) for key in ("logit_scale_ai", "logit_scale_at")}
    torch.save({**clip.state_dict(), **scales, **audio}, tmp_path / "AudioCLIP-Full-Training.pt")
    return tmp_path / "AudioCLIP-Full-Training.pt"


def test_the_sound_feature_is_the_audio_part_of_an_audioclip_checkpoint(
    audioclip_file: Path, sound: ESResNeXt
) -> None:
    encoder = AudioClipSound(
        Setup("esresnext", audioclip_file, CPU, "fp32"), architecture=SOUND_SIZES
    )
    clips = [waveform(8000, 1), waveform(12000, 2)]
    for row, clip_ in zip(encoder.encode(clips), clips, strict=True):
        with torch.no_grad():
            assert close(row, sound(torch.from_numpy(clip_)[None]))
    assert (encoder.sample_rate, encoder.dim) == (44100, 64)


def test_long_sound_is_the_mean_of_its_windows(
    audioclip_file: Path, sound: ESResNeXt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipmsa.extract.encoders.audioclip.WINDOW_SECONDS", 0.2)
    encoder = AudioClipSound(
        Setup("esresnext", audioclip_file, CPU, "fp32"), architecture=SOUND_SIZES
    )
    clip_ = waveform(16000, 1)  # 0.36 s at 44,100 Hz
    with torch.no_grad():
        halves = sound(torch.from_numpy(np.stack([clip_[:8000], clip_[8000:]])))
    assert close(encoder.encode([clip_])[0], halves.mean(0, keepdim=True))


def test_an_audioclip_checkpoint_that_does_not_fit_is_refused_by_name(
    audioclip_file: Path,
) -> None:
    state = torch.load(audioclip_file, weights_only=True)
    classes = {**state, "audio.fc.weight": torch.zeros(527, 256)}  # as ESRNXFBSP.pt
    fewer = {key: value for key, value in state.items() if key != "audio.fbsp.m"}
    none = {key: value for key, value in state.items() if not key.startswith("audio.")}
    for changed, words in (
        (classes, r"size mismatch for fc\.weight"),
        (fewer, r"Missing key.*fbsp\.m"),
        (none, "no AudioCLIP audio encoder"),
    ):
        torch.save(changed, audioclip_file)
        with pytest.raises(WeightsError, match=rf"AudioCLIP-Full-Training\.pt: .*{words}"):
            AudioClipSound(
                Setup("esresnext", audioclip_file, CPU, "fp32"), architecture=SOUND_SIZES
            )


# ---- Faces.


@pytest.fixture(scope="module")
def detector() -> MTCNN:
    return MTCNN(min_face_size=40).eval()


def test_the_keys_and_shapes_of_vgg11_are_torchvision_s() -> None:
    with torch.device("meta"):
        ours = vgg11().state_dict()
        theirs = torchvision.models.vgg11(weights=None).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert ours["classifier.3.weight"].shape == (4096, 4096)  # fc7


def test_a_face_s_feature_is_fc7_after_its_relu_of_the_crop(
    tmp_path: Path, detector: MTCNN
) -> None:
    torch.manual_seed(5)
    vgg = vgg11(16).eval()
    torch.save(vgg.state_dict(), tmp_path / "vgg11-8a719046.pth")
    encoder = MtcnnVgg(
        Setup("face_vgg", tmp_path / "vgg11-8a719046.pth", CPU, "fp32"),
        detect_side=300,
        min_face=40,
        margin=0.2,
        architecture={"image_size": 64, "shrink": 16},
    )
    frame = picture(300, 400, (290, 60, 5))
    ((x1, y1, x2, y2),) = detector.detect(frame)[0]
    dx, dy = 0.2 * (x2 - x1), 0.2 * (y2 - y1)
    box: Any = tuple(round(float(edge)) for edge in (x1 - dx, y1 - dy, x2 + dx, y2 + dy))
    crop = Image.fromarray(frame).resize((64, 64), Image.Resampling.BILINEAR, box=box)
    pixels = normalize(to_tensor(crop), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))[None]
    with torch.no_grad():
        flat = vgg.avgpool(vgg.features(pixels)).flatten(1)
        wanted = vgg.classifier[:5](flat)
    (got,) = encoder.encode([[encoder.prepare(frame)]])
    assert close(got, wanted)
    assert (got >= 0).all()
    assert (got > 0).any()


@pytest.mark.parametrize(
    "changed",
    [
        lambda state: state.pop("classifier.6.bias"),
        lambda state: state.update({"features.1.running_mean": torch.zeros(4)}),  # vgg11_bn
        lambda state: state.update({"classifier.6.weight": torch.zeros(10, 256)}),
    ],
)
def test_a_vgg_checkpoint_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, changed: Callable[[Any], object]
) -> None:
    state = vgg11(16).state_dict()
    changed(state)
    torch.save(state, tmp_path / "vgg11.pth")
    with pytest.raises(WeightsError, match=r"vgg11\.pth: does not fit the encoder"):
        MtcnnVgg(Setup("face_vgg", tmp_path / "vgg11.pth", CPU, "fp32"), architecture=FACE_SIZES)


def faces() -> MtcnnVgg:
    encoder = tiny("face_vgg")
    assert isinstance(encoder, MtcnnVgg)
    return encoder


def boxes(*frames: Any) -> list[NDArray[np.float32] | None]:
    return faces()._largest_faces([faces().prepare(frame) for frame in frames])


def test_the_face_of_a_photograph_is_found_where_it_is() -> None:
    (box,) = boxes(np.asarray(hopper()))
    assert box is not None
    x1, y1, x2, y2 = box * 600 / 211  # prepared at 180 x 211
    assert 160 < x1 < 220
    assert 90 < y1 < 140
    assert 320 < x2 < 380
    assert 300 < y2 < 350


def test_the_largest_of_two_faces_is_taken(detector: MTCNN) -> None:
    small, large = (120, 5, 30), (178, 140, 0)
    both = picture(180, 320, small, large)
    assert len(detector.detect(both)[0]) == 2
    for first, second in ((small, large), ((120, 200, 30), (178, 5, 0))):
        (box,) = boxes(picture(180, 320, first, second))
        assert box is not None
        assert second[1] < (box[0] + box[2]) / 2 < second[1] + 152
    # So the small face makes no difference to the feature but for what is seen beside the large.
    one, two = faces().encode([[both], [picture(180, 320, large)]])
    assert close(one, two)


def test_a_frame_without_a_face_gives_no_row() -> None:
    nothing, face = picture(180, 240), picture(180, 240, (180, 0, 0))
    rows = faces().encode([[nothing], [nothing, face, nothing], []])
    assert [len(r) for r in rows] == [0, 1, 0]
    assert rows[0].shape == (0, faces().dim)


def test_a_frame_too_small_for_a_face_gives_no_row() -> None:
    sizes = [(1, 1), (39, 200), (200, 39), (40, 40), (41, 300)]
    rows = faces().encode([[picture(h, w)] for h, w in sizes])
    assert [len(r) for r in rows] == [0] * len(sizes)


@pytest.mark.parametrize("side", [40, 47, 94, 173])
def test_a_frame_of_just_the_smallest_face_is_searched_without_failing(side: int) -> None:
    # 47 * (12 / 47), as MTCNN computes it, is below its own smallest side of 12.
    encoder = MtcnnVgg(
        Setup("face_vgg", None, CPU, "fp32"),
        detect_side=side,
        min_face=side,
        architecture={"image_size": 32, "shrink": 64},
    )
    assert [len(rows) for rows in encoder.encode([[picture(side, side)]])] == [0]


def test_frames_of_mixed_sizes_go_through_one_batch() -> None:
    frames = [
        picture(180, 240, (180, 20, 0)),
        picture(200, 180, (200, 0, 0), seed=1),
        picture(30, 30),
        picture(180, 240, (170, 60, 10), seed=2),
        picture(180, 320, seed=3),
    ]
    together = faces().encode([frames[:2], frames[2:]])
    assert [len(rows) for rows in together] == [2, 1]
    alone = [rows for frame in frames for rows in faces().encode([[frame]])]
    assert close(np.concatenate(together), np.concatenate(alone))
    assert apart(np.concatenate(together))


def test_large_frames_are_scaled_to_a_short_side_and_small_ones_kept() -> None:
    encoder = faces()
    assert encoder.crop_side == 180
    assert encoder.prepare(picture(720, 1280)).shape == (180, 320, 3)
    assert encoder.prepare(picture(1280, 720)).shape == (320, 180, 3)
    small = picture(100, 300)
    assert encoder.prepare(small) is small


def test_faces_are_found_where_they_are_on_frames_shrunk_for_detection() -> None:
    frame = picture(360, 480, (340, 60, 5))
    full, half = (
        MtcnnVgg(
            Setup("face_vgg", None, CPU, "fp32"),
            detect_side=side,
            min_face=side // 9,
            architecture={"image_size": 32, "shrink": 64},
        )
        for side in (360, 180)
    )
    (at_full,), (at_half,) = full._largest_faces([frame]), half._largest_faces([frame])
    assert at_full is not None
    assert at_half is not None
    left, top = np.maximum(at_full[:2], at_half[:2])
    right, bottom = np.minimum(at_full[2:], at_half[2:])
    both = (right - left) * (bottom - top)
    areas = [float(np.prod(box[2:] - box[:2])) for box in (at_full, at_half)]
    assert both / (sum(areas) - both) > 0.8  # intersection over union


def test_a_crop_is_the_same_for_boxes_that_differ_by_less_than_a_pixel_s_breadth() -> None:
    # MTCNN's boxes move by 1e-5 pixels with the other frames of their batch.
    frame = picture(180, 240, (180, 20, 0))
    (box,) = boxes(frame)
    assert box is not None
    moved = box + np.array([1e-4, -1e-4, -1e-4, 1e-4], np.float32)
    assert np.array_equal(faces()._crop(frame, box), faces()._crop(frame, moved))


@pytest.mark.parametrize(
    "box", [(-30, -30, 50, 60), (150, 100, 300, 300), (-20, -20, -5, -5), (400, 400, 500, 500)]
)
def test_a_box_that_leaves_the_frame_is_cut_at_its_edge(box: tuple[int, ...]) -> None:
    crop = faces()._crop(picture(180, 240), np.array(box, np.float32))
    assert crop.shape == (64, 64, 3)


# ---- Random weights: the same each time, and only on request.


@pytest.mark.parametrize("stream", STREAMS)
def test_random_weights_are_the_same_at_every_build_and_leave_torch_s_generator_alone(
    stream: str,
) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    again = build("tiny", stream)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.weights_digest() == tiny(stream).weights_digest()


def test_random_weights_differ_from_stream_to_stream() -> None:
    assert len({tiny(stream).weights_digest() for stream in STREAMS}) == len(STREAMS)
    recipe = TINY["clip_text"]
    make: Any = encoder_class(recipe.encoder)
    digests = {
        make(Setup(name, None, CPU, "fp32"), **recipe.options).weights_digest() for name in "ab"
    }
    assert len(digests) == 2


def test_loading_a_checkpoint_leaves_torch_s_generator_alone(
    albert_folder: Path, wav2vec2_folder: Path, clip_file: Path, audioclip_file: Path
) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    TransformersText(Setup("a", albert_folder, CPU, "fp32"))
    TransformersSpeech(Setup("a", wav2vec2_folder, CPU, "fp32"))
    OpenClipText(Setup("a", clip_file, CPU, "fp32"), architecture=CLIP_SIZES)
    OpenClipImage(Setup("a", clip_file, CPU, "fp32"), architecture=CLIP_SIZES)
    AudioClipSound(Setup("a", audioclip_file, CPU, "fp32"), architecture=SOUND_SIZES)
    assert torch.equal(torch.get_rng_state(), before)


# ---- An item's features do not depend on its batch.


def items(encoder: Encoder) -> list[Any]:
    """More items than a batch of the network holds, of many lengths."""
    if encoder.consumes == "text":
        words = " ".join(SENTENCES).split()
        lengths = [90, 200, *range(66, 0, -1)]
        return [" ".join(random(n).choice(words, n)) for n in lengths]
    if encoder.consumes == "waveform":
        return [waveform(n, n) for n in (16000, 1, 399, 400, 401, 23456, 720, 5000)]
    # Ever darker pictures, two of three with a face.
    frames = (
        (picture(180, 240, *([(170 - n, 3 * n, 5)] if n % 3 else []), seed=n) * (1 - n / 50))
        for n in range(50)
    )
    counts = [3, 0, 1, 30, 2, 0]
    return [[encoder.prepare(next(frames).astype(np.uint8)) for _ in range(n)] for n in counts]


@pytest.mark.parametrize("stream", STREAMS)
def test_an_item_alone_has_the_features_it_has_in_a_mixed_batch(stream: str) -> None:
    encoder = tiny(stream)
    batch = items(encoder)
    together = encoder.encode(batch)
    if stream == "face_vgg":
        assert [len(rows) for rows in together][:3] == [2, 0, 0]
    assert apart(np.concatenate(together))
    chosen = range(len(batch)) if encoder.consumes != "text" else range(0, len(batch), 5)
    for index in chosen:
        (alone,) = encoder.encode([batch[index]])
        assert close(alone, together[index])
    backwards = reversed(encoder.encode(list(reversed(batch))))
    assert all(close(rows, other) for rows, other in zip(backwards, together, strict=True))


@pytest.mark.parametrize("stream", STREAMS)
def test_a_batch_of_nothing_is_no_features(stream: str) -> None:
    encoder = tiny(stream)
    assert encoder.encode([]) == []
    if encoder.consumes == "frames":
        assert [rows.shape for rows in encoder.encode([[], []])] == [(0, encoder.dim)] * 2


# ---- Shapes and sizes.


def one_item(encoder: Encoder) -> Any:
    if encoder.consumes == "text":
        return SENTENCES[0]
    if encoder.consumes == "waveform":
        return waveform(encoder.sample_rate // 2)
    return [encoder.prepare(picture(360, 480, (350, 20, 0))) for _ in range(2)]


def check_shape_and_state(encoder: Encoder) -> None:
    (rows,) = encoder.encode([one_item(encoder)])
    assert rows.dtype == np.float32
    assert rows.shape == (1 if encoder.level == "utterance" else 2, encoder.dim)
    assert np.isfinite(rows).all()
    assert not any(module.training for module in encoder.module.modules())
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())
    if isinstance(encoder, MtcnnVgg):
        assert not any(module.training for module in encoder.detector.modules())


@pytest.mark.parametrize("stream", STREAMS)
def test_a_tiny_encoder_s_rows_are_as_wide_as_it_says(stream: str) -> None:
    encoder = tiny(stream)
    assert encoder.dim == (256 if stream == "face_vgg" else 64)
    check_shape_and_state(encoder)


DIMS = dict(zip(STREAMS, (768, 1024, 768, 1024, 1024, 4096), strict=True))


@pytest.mark.parametrize("stream", STREAMS)
def test_the_paper_s_encoders_are_as_wide_as_the_paper_s(stream: str) -> None:
    encoder = build("paper", stream)
    assert encoder.dim == DIMS[stream]
    assert encoder.level == ("sequence" if encoder.modality == "vision" else "utterance")
    assert encoder.sample_rate == {"wav2vec2": 16000, "esresnext": 44100}.get(stream, 0)
    check_shape_and_state(encoder)


@pytest.mark.parametrize(
    ("stream", "parameters"),
    [("albert", 11_683_584), ("wav2vec2", 94_371_712)],  # of the published checkpoints
)
def test_the_paper_s_architecture_is_the_published_checkpoint_s(
    stream: str, parameters: int
) -> None:
    with torch.device("meta"):
        model = random_model(stream, PAPER[stream].options["architecture"])
    assert model.config.hidden_size == 768
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_paper_s_clip_is_openai_s_rn50() -> None:
    name = PAPER["clip_text"].options["architecture"]
    assert name == PAPER["clip_image"].options["architecture"]
    model = _clip(Setup("clip", None, CPU, "fp32"), name)
    state = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    # What OpenAI's RN50.pt holds (AudioCLIP's checkpoint has the same keys), of 102 million.
    assert sum(parameter.numel() for parameter in model.parameters()) == 102_007_137
    assert len(state) == 489
    assert state["visual.conv1.weight"] == (32, 3, 3, 3)
    assert state["visual.layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert state["visual.attnpool.positional_embedding"] == (50, 2048)
    assert state["visual.attnpool.c_proj.weight"] == (1024, 2048)
    assert state["transformer.resblocks.11.attn.in_proj_weight"] == (1536, 512)
    assert state["token_embedding.weight"] == (49408, 512)
    assert state["positional_embedding"] == (77, 512)
    assert state["text_projection"] == (512, 1024)
    # OpenAI trained with QuickGELU; GELU would pass unnoticed, but for the features.
    kinds = [type(module).__name__ for module in model.transformer.modules()]
    assert (kinds.count("QuickGELU"), kinds.count("GELU")) == (12, 0)


# ---- Lower precision.


@pytest.mark.parametrize("stream", STREAMS)
def test_bf16_is_near_fp32(stream: str) -> None:
    exact, fast = tiny(stream), tiny(stream, "bf16")
    item = one_item(exact)
    (wanted,), (got,) = exact.encode([item]), fast.encode([item])
    assert got.dtype == np.float32
    error = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
    assert 0 < error < 0.05
    assert not torch.is_autocast_enabled("cpu")


def test_bf16_leaves_the_boxes_of_faces_alone() -> None:
    fast = tiny("face_vgg", "bf16")
    assert isinstance(fast, MtcnnVgg)
    frames = [picture(180, 240, (170 - 9 * n, 9 * n, 5), seed=n) for n in range(4)]
    with fast._autocast():
        found = fast._largest_faces(frames)
    assert all(box is not None for box in found)
    assert np.array_equal(np.stack(boxes(*frames)), np.stack(found))  # type: ignore[arg-type]
