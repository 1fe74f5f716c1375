"""Speech to words: a checkpoint in the published one's format, decoded letter by letter.

The model is small and random, so what it "hears" is gibberish; that the gibberish is right is
checked by a decoder written from the definition of CTC. The vocabulary is the published one.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

from clipmsa.cache import Utterance
from clipmsa.cache.errors import WeightsError
from clipmsa.cli.main import main
from clipmsa.extract.datasets.clips import Clip
from clipmsa.extract.datasets.demo import write_clip
from clipmsa.extract.media.video import read_waveform
from clipmsa.extract.transcripts.transcriber import Transcriber, find_transcriber

RATE = 16000
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
PREPROCESSOR = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": RATE,
}


@pytest.fixture(scope="module")
def model() -> Wav2Vec2ForCTC:
    torch.manual_seed(3)
    config = Wav2Vec2Config(
        vocab_size=len(LETTERS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    model = Wav2Vec2ForCTC(config).eval()
    with torch.no_grad():
        model.lm_head.weight *= 30  # so that letters change with the sound,
        model.lm_head.bias[[0, 4]] += 2.0  # blanks and word ends are among them,
        model.lm_head.bias[3] = 4.0  # and so would be <unk>, which is no letter
    return model


@pytest.fixture
def folder(tmp_path, model) -> Path:
    """A folder like facebook/wav2vec2-base-960h; its checkpoint, too, lacks `masked_spec_embed`."""
    folder = tmp_path / "wav2vec2-base-960h"
    model.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    del state["wav2vec2.masked_spec_embed"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    (tmp_path / "vocab.json").write_text(json.dumps({x: i for i, x in enumerate(LETTERS)}))
    Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def probability(logits: torch.Tensor, letters: list[int]) -> float:
    """CTC by its definition (Graves et al. 2006): all paths that spell the letters, summed."""
    chances = logits.double().softmax(-1)
    padded = [0, *(x for letter in letters for x in (letter, 0))]  # blanks between
    ends = torch.zeros(len(padded), dtype=torch.double)
    ends[:2] = chances[0, padded[:2]]
    for step in chances[1:]:
        before, ends = ends, torch.zeros_like(ends)
        for i, letter in enumerate(padded):
            reach = before[max(0, i - 1) : i + 1].sum()
            if i > 1 and letter not in (0, padded[i - 2]):
                reach = reach + before[i - 2]
            ends[i] = reach * step[letter]
    return float(ends[-2:].sum())


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal(round(seconds * rate))).astype(np.float32)


def decoded(model: Wav2Vec2ForCTC, waveform: np.ndarray) -> str:
    """CTC: the likeliest letter of each step, repetitions once, blanks out; "|" between words."""
    scaled = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
    with torch.no_grad():
        logits = model(torch.from_numpy(scaled)[None]).logits[0]
    logits[:, 1:4] = -np.inf  # <s>, </s>, <unk>
    letters = [LETTERS[i] for i, _ in itertools.groupby(logits.argmax(-1).tolist())]
    return "".join(x for x in letters if x != "<pad>").replace("|", " ").lower().strip()


def test_the_likeliest_letters_become_words(folder, model):
    waveform = noise(3)
    wanted = decoded(model, waveform)
    assert " " in wanted
    assert "mm" in wanted  # one letter twice, over a blank
    assert Transcriber(folder).transcribe(waveform, RATE) == wanted


def test_sound_of_any_rate_and_length_will_do(folder):
    transcriber = Transcriber(folder)
    transcriber.transcribe(noise(0.01, 44100), 44100)  # shorter than a step
    slow, fast = (transcriber.transcribe(np.zeros(rate, np.float32), rate) for rate in (8000, RATE))
    assert slow == fast


def test_a_clip_is_given_the_words_of_its_own_part_of_the_file(folder, model, tmp_path):
    waveform = noise(4)
    write_clip(tmp_path / "a.mp4", [], 10, waveform, RATE)
    utterance = Utterance("a", "0", "test", float("nan"), "", start=1.0, end=3.0)
    transcriber = Transcriber(folder)
    clip = transcriber.heard(Clip(utterance, tmp_path / "a.mp4"))
    assert (clip.start, clip.end, clip.path) == (1.0, 3.0, tmp_path / "a.mp4")
    sound = read_waveform(tmp_path / "a.mp4", 1.0, 3.0)
    assert sound is not None
    assert clip.utterance.text == decoded(model, sound[0])
    write_clip(tmp_path / "b.mp4", [np.zeros((32, 32, 3), np.uint8)] * 10, 10, None, RATE)
    assert transcriber.heard(Clip(utterance, tmp_path / "b.mp4")).utterance.text == ""


def test_the_checkpoint_is_found_in_a_folder_or_named_with_what_gets_it(folder, tmp_path):
    assert find_transcriber(tmp_path).transcribe(noise(1), RATE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError) as caught:
        find_transcriber(tmp_path / "empty")
    message = str(caught.value)
    assert "empty/wav2vec2-base-960h/model.safetensors" in message
    assert "https://huggingface.co/facebook/wav2vec2-base-960h" in message
    assert f"`clipmsa weights fetch --transcriber --dir {tmp_path / 'empty'}`" in message


def test_an_encoder_without_letters_is_refused(folder):
    state = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in state.items() if not key.startswith("lm_head")},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(WeightsError, match=r"lacks 2 weights of Wav2Vec2ForCTC, such as lm_head"):
        Transcriber(folder)


def test_the_vocabulary_of_another_model_is_refused(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "Ä": len(vocabulary)}))
    with pytest.raises(WeightsError, match="33 of them and the model 32 outputs"):
        Transcriber(folder)


def test_surprise_is_ctc_s_likelihood_of_a_text_by_letter(folder, model):
    transcriber, sound = Transcriber(folder), noise(0.3)
    scaled = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    with torch.no_grad():
        logits = model(torch.from_numpy(scaled)[None]).logits[0]
    logits[:, 1:4] = -torch.inf  # what is no letter
    for text, spelt in (("add it, Al", "ADD|IT|AL"), ("ééa", "A"), ("ADD IT AL", "ADD|IT|AL")):
        letters = [LETTERS.index(letter) for letter in spelt]
        wanted = -np.log(probability(logits, letters)) / len(letters)
        assert transcriber.surprise(sound, RATE, text) == pytest.approx(wanted, rel=1e-3)
    heard = transcriber.transcribe(sound, RATE)
    other = "".join("q" if letter != "q" else "z" for letter in heard)
    assert transcriber.surprise(sound, RATE, heard) < transcriber.surprise(sound, RATE, other)
    assert np.isnan(transcriber.surprise(sound, RATE, "我2"))
    assert np.isinf(transcriber.surprise(sound, RATE, "more letters than steps" * 3))


@pytest.mark.slow
def test_clips_whose_text_is_not_heard_are_listed(folder, tmp_path, capsys):
    """Of as many clips as it takes to know what is usual, one has more letters than time."""
    transcriber = Transcriber(folder)
    write_clip(tmp_path / "a.mp4", [], 10, noise(0.5), RATE)
    sound, rate = read_waveform(tmp_path / "a.mp4") or (noise(0), 0)
    heard = transcriber.transcribe(sound, rate)
    rows = [f"a.mp4,{heard},0,train,{i}" for i in range(20)]
    rows.append(f"a.mp4,{'anything else but this ' * 9},0,train,odd")
    table = tmp_path / "clips.csv"
    table.write_text("\n".join(["path,text,label,split,clip_id", *rows]))
    assert main(["verify", str(table), "--listen", str(tmp_path), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "a$_$odd" in shown
    assert "a$_$3" not in shown
