"""AudioCLIP's audio encoder: the same numbers as the original, from the same weights and sounds."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from clipmsa.cache.errors import WeightsError
from clipmsa.extract.encoders.esresnext import ESResNeXt, audio_state_dict, decibel_image, frame

DATA = Path(__file__).parents[2] / "data"
TINY: dict[str, Any] = {
    "layers": (1, 1, 1, 1),
    "stem_width": 4,
    "cardinality": 2,
    "base_width": 2,
    "embed_dim": 32,
    "n_fft": 256,
    "hop_length": 128,
    "win_length": 200,
}


def load_recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("esresnext_recipe", DATA / "esresnext_recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = load_recipe()
with np.load(DATA / "esresnext_golden.npz") as archive:
    golden: dict[str, NDArray[Any]] = dict(archive)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine two threads wait for each other longer than one works."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def manifest() -> dict[str, tuple[list[int], str]]:
    """Bare key -> shape, dtype of AudioCLIP's `audio.*` entries."""
    rows = (DATA / "esresnext_state_dict.tsv").read_text().splitlines()[1:]
    entries = (row.split("\t") for row in rows)
    return {
        key.removeprefix("audio."): ([int(n) for n in shape.strip("[]").split(",") if n], dtype)
        for key, shape, dtype in entries
    }


@cache
def recipe_weights(variant: str) -> dict[str, NDArray[Any]]:
    weights: dict[str, NDArray[Any]] = recipe.fill_all(
        {key: shape for key, (shape, _) in manifest().items()}, variant
    )
    return weights


@cache
def full_size(variant: str) -> ESResNeXt:
    """AudioCLIP's encoder with the recipe's weights, frozen."""
    model = ESResNeXt().eval().requires_grad_(False)
    weights = {key: torch.from_numpy(value) for key, value in recipe_weights(variant).items()}
    model.load_state_dict(weights, strict=True)
    return model


def tiny(**changes: Any) -> ESResNeXt:
    """A frozen toy whose kernels are no plain Fourier transform."""
    torch.manual_seed(0)
    model = ESResNeXt(**{**TINY, **changes}).eval().requires_grad_(False)
    model.fbsp.m.uniform_(0.0, 2.0)
    model.fbsp.fb.uniform_(0.75, 1.25)
    model.fbsp.fc.add_(0.3 * torch.rand_like(model.fbsp.fc))
    return model


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.5


# The original's numbers


def run_and_watch(model: ESResNeXt, pcm: Tensor) -> dict[str, NDArray[Any]]:
    """Embed a waveform; return all that the golden data looks at on the way."""
    seen: dict[str, Tensor] = {}

    def output(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, value: seen.update({name: value.clone()})

    def given(name: str) -> Callable[..., None]:
        return lambda _module, inputs: seen.update({name: inputs[0].clone()})

    def spectrum(_module: nn.Module, _inputs: Any, value: tuple[Tensor, Tensor]) -> None:
        seen["spec"] = torch.stack(value, dim=-1)

    handles = [
        model.fbsp.register_forward_hook(spectrum),
        model.conv1.register_forward_pre_hook(given("x_db")),
        model.maxpool.register_forward_hook(output("stem")),
        model.fc.register_forward_pre_hook(given("pooled")),
        model.fc.register_forward_hook(output("out")),
        model.att5.register_forward_hook(output("att5")),
    ]
    for i in range(1, 5):
        layer, attention, after = (
            model.get_submodule(name) for name in (f"layer{i}", f"att{i}", f"att{i + 1}")
        )
        handles += [
            layer.register_forward_hook(output(f"layer{i}")),
            attention.register_forward_hook(output(f"att{i}")),
            after.register_forward_pre_hook(given(f"stage{i}")),  # what it looks at
        ]
    with ExitStack() as hooks, torch.inference_mode():
        for handle in handles:
            hooks.callback(handle.remove)
        model.embed_pcm(pcm)
    return {name: value.numpy() for name, value in seen.items()}


@dataclass
class Run:
    """Our encoder on one waveform with one variant of the recipe's weights."""

    prefix: str
    channels: int
    seen: dict[str, NDArray[Any]]

    def steps(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """The golden data's steps with our tensors, one an audio channel where it has that."""
        for key in golden:
            if key.startswith(self.prefix) and key.endswith(".shape"):
                step = key.removeprefix(self.prefix).removesuffix(".shape")
                name, _, channel = step.partition("#")
                ours = self.seen[name]
                yield step, ours[int(channel) :: self.channels] if channel else ours


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((variant, case), marks=() if case == "short_1001" else pytest.mark.slow)
        for variant in recipe.VARIANTS
        for case in recipe.CASES
    ],
    ids="-".join,
)
def run(request: pytest.FixtureRequest) -> Run:
    variant, case = request.param
    pcm = torch.from_numpy(recipe.CASES[case]())
    return Run(f"{variant}.{case}.", pcm.shape[1], run_and_watch(full_size(variant), pcm))


every_variant = pytest.mark.parametrize("variant", recipe.VARIANTS)


def test_state_dict_has_the_keys_shapes_and_types_of_audioclip() -> None:
    ours = {
        key: (list(value.shape), str(value.dtype).removeprefix("torch."))
        for key, value in ESResNeXt().state_dict().items()
    }
    assert ours == manifest()


@every_variant
def test_recipe_makes_the_weights_the_golden_data_was_made_with(variant: str) -> None:
    digest = recipe.weights_sha256(recipe_weights(variant))
    assert digest == golden[f"{variant}.weights_sha256"].tobytes()


@pytest.mark.parametrize("case", recipe.CASES)
def test_recipe_makes_the_sounds_the_golden_data_was_made_with(case: str) -> None:
    sound = recipe.CASES[case]()
    assert sound.shape == tuple(golden[f"waveform.{case}.shape"])
    np.testing.assert_array_equal(recipe.sample(sound), golden[f"waveform.{case}.sample"])


def test_window_of_a_new_encoder_is_the_originals_bit_for_bit() -> None:
    model = tiny(n_fft=2048, win_length=1654)
    assert np.array_equal(model.window.numpy(), recipe.blackman_harris(1654))


@every_variant
def test_kernels_are_the_originals(variant: str) -> None:
    kernels = torch.stack(full_size(variant).fbsp.kernels(), dim=-1).numpy()
    prefix = f"{variant}.fbsp_weights"
    assert kernels.shape == tuple(golden[f"{prefix}.shape"])
    rows = kernels[golden[f"{prefix}.row_index"]]
    np.testing.assert_allclose(rows, golden[f"{prefix}.rows"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(
        recipe.sample(kernels), golden[f"{prefix}.sample"], rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("case", recipe.CASES)
def test_frames_are_the_originals(case: str) -> None:
    pcm = torch.from_numpy(recipe.CASES[case]()).flatten(0, 1)
    signal = ((pcm + 32768.0) * 2.0) / 65535.0 - 1.0
    frames = frame(signal, torch.from_numpy(recipe.blackman_harris(1654)), 561, 2048).numpy()
    assert frames.shape == tuple(golden[f"{case}.frames.shape"])
    expected = golden[f"{case}.frames.sample"]
    np.testing.assert_allclose(recipe.sample(frames), expected, rtol=0, atol=1e-7)
    assert frames.mean(dtype=np.float64) == pytest.approx(golden[f"{case}.frames.mean"], abs=1e-8)


def test_every_step_gives_the_originals_numbers(run: Run) -> None:
    differing = {}
    for step, ours in run.steps():
        key = run.prefix + step
        assert ours.shape == tuple(golden[f"{key}.shape"]), step
        mean, std = golden[f"{key}.mean"], golden[f"{key}.std"]
        errors = (
            rms(recipe.sample(ours) - golden[f"{key}.sample"]),
            abs(ours.mean(dtype=np.float64) - mean),
            abs(ours.std(dtype=np.float64) - std),
        )
        # 0.01 dB in the image, where single deep nulls move by more than their share.
        limit = 0.01 if step.startswith("x_db") else 5e-5 * np.hypot(mean, std)
        if max(errors) > limit:
            differing[step] = (errors, limit)
    assert not differing


def test_embedding_is_the_originals(run: Run) -> None:
    expected = golden[f"{run.prefix}out.full"]
    ours = run.seen["out"].reshape(expected.shape)
    assert rms(ours - expected) <= 5e-5 * rms(expected)


# Inputs


def test_forward_takes_in_unit_range_what_embed_pcm_takes_as_int16() -> None:
    generator = torch.Generator().manual_seed(2)
    pcm = torch.randint(-32768, 32768, (2, 3000), generator=generator, dtype=torch.int16)
    model = tiny()
    assert torch.equal(model(pcm / 32768.0), model.embed_pcm(pcm.unsqueeze(1)))


def test_a_batch_gives_what_its_clips_give_alone() -> None:
    model, clips = tiny(), noise(3, 4410)
    alone = torch.cat([model(clip) for clip in clips[:, None]])
    torch.testing.assert_close(model(clips), alone, rtol=1e-4, atol=1e-5)


def test_features_of_audio_channels_are_summed() -> None:
    model, mono = tiny(), 8000 * noise(1, 1, 4410)
    twice = model.embed_pcm(mono.expand(1, 2, -1)) - model.fc.bias
    torch.testing.assert_close(twice, 2 * (model.embed_pcm(mono) - model.fc.bias))


@pytest.mark.parametrize(
    "waveform", [noise(100), noise(1, 1, 100), torch.ones(1, 100, dtype=torch.int16)]
)
def test_forward_refuses_what_is_no_batch_of_float_waveforms(waveform: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected a float waveform \(B, samples\)"):
        tiny()(waveform)


@pytest.mark.parametrize("shape", [(1, 0), (0, 100)])
def test_forward_refuses_an_empty_waveform(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected samples"):
        tiny()(torch.zeros(shape))


def test_embed_pcm_refuses_a_missing_channel_axis() -> None:
    with pytest.raises(ValueError, match=r"\(B, C, samples\)"):
        tiny().embed_pcm(noise(1, 100))


@pytest.mark.parametrize(
    ("signal", "hop", "expected"),
    [
        ([1], 2, [[0, 1, 0, 0, 0]]),
        ([1, 2], 2, [[0, 1, 2, 0, 0]]),
        ([1, 2, 3], 2, [[0, 1, 2, 0, 0], [0, 3, 0, 0, 0]]),
        ([1, 2, 3, 4], 1, [[0, 1, 2, 0, 0], [0, 2, 3, 0, 0], [0, 3, 4, 0, 0]]),
        ([1, 2, 3], 3, [[0, 0, 1, 0, 0], [0, 3, 0, 0, 0]]),
    ],
)
def test_missing_zeros_are_shared_with_an_odd_one_on_the_right(
    signal: list[float], hop: int, expected: list[list[float]]
) -> None:
    frames = frame(torch.tensor([signal], dtype=torch.float32), torch.ones(2), hop, n_fft=5)
    assert frames.tolist() == [expected]


def test_only_powers_that_are_not_positive_are_floored() -> None:
    real = torch.tensor([3.0, 1e-12, 0.0, 9.0]).reshape(1, 4, 1)  # the last is one bin too many
    imag = torch.tensor([4.0, 0.0, 0.0, 9.0]).reshape(1, 4, 1)
    image = decibel_image(real, imag)
    assert image.shape == (1, 3, 1, 1)
    torch.testing.assert_close(
        image.flatten(), torch.tensor([10 * np.log10(25), -240, -180]).float()
    )


# Sizes, devices, precisions


@pytest.mark.parametrize("samples", [1, 199, 200, 201, 4410])
def test_any_length_gives_one_finite_embedding(samples: int) -> None:
    embedding = tiny()(noise(2, samples))
    assert embedding.shape == (2, 32)
    assert embedding.isfinite().all()


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": (2, 1, 3, 1)},
        {"cardinality": 1, "base_width": 8},
        {"n_fft": 257, "win_length": 257},
        {"n_fft": 512, "hop_length": 561, "win_length": 400},
        {"stem_width": 2, "embed_dim": 5},
    ],
    ids=str,
)
def test_sizes_can_be_chosen(changes: dict[str, Any]) -> None:
    model = tiny(**changes)
    n_fft = {**TINY, **changes}["n_fft"]
    assert model.image(noise(1, 4410)).shape[1:3] == (3, (n_fft // 2 + 1) // 3)
    assert model(noise(1, 4410)).shape == (1, {**TINY, **changes}["embed_dim"])


@pytest.mark.parametrize("changes", [{"layers": (1, 1, 1)}, {"win_length": 300}], ids=str)
def test_sizes_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(ValueError, match=name):
        ESResNeXt(**{**TINY, **changes})


def test_one_seed_gives_one_network() -> None:
    one, same = tiny().state_dict(), tiny().state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)


def test_memory_format_does_not_change_the_embedding() -> None:
    model, clip = tiny(), noise(2, 4410)
    plain = model(clip)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(clip), plain, rtol=1e-4, atol=1e-5)


def test_autocast_leaves_the_front_end_in_float32() -> None:
    model, pcm = tiny(), 8000 * noise(2, 4410)
    image = model.image(pcm)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.image(pcm), image)
        assert model.embed_pcm(pcm.unsqueeze(1)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_module_can_be_cast(dtype: torch.dtype) -> None:
    assert tiny().to(dtype)(noise(1, 4410)).dtype == dtype


@pytest.mark.parametrize("inference", [False, True])
def test_no_tensor_of_the_forward_pass_stays_on_the_cpu(inference: bool) -> None:
    # Fake tensors refuse to mix devices, and need no such device.
    model = ESResNeXt(**TINY).eval().requires_grad_(False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to("cuda")
        clips = torch.randn(2, 4410, device="cuda")
        with torch.inference_mode(inference):
            for _ in range(2):  # without and with kept kernels
                embedding = model(clips)
    assert embedding.device.type == "cuda"
    assert embedding.shape == (2, 32)


# Kept kernels


def frozen_kernels_are_kept(model: ESResNeXt) -> bool:
    return model.fbsp.kernels()[0] is model.fbsp.kernels()[0]


def test_frozen_kernels_are_built_once() -> None:
    model = tiny()
    assert frozen_kernels_are_kept(model)
    with torch.inference_mode():
        assert frozen_kernels_are_kept(model)


def shifted(model: ESResNeXt) -> dict[str, Tensor]:
    return {**model.state_dict(), "fbsp.fc": model.fbsp.fc + 0.3}


def load(model: ESResNeXt) -> None:
    model.load_state_dict(shifted(model))


def load_in_inference_mode(model: ESResNeXt) -> None:
    with torch.inference_mode():
        model.load_state_dict(shifted(model))


def load_by_assignment(model: ESResNeXt) -> None:
    model.load_state_dict(shifted(model), assign=True)


def write_in_place(model: ESResNeXt) -> None:
    model.fbsp.m.mul_(0.5)


def replace_a_parameter(model: ESResNeXt) -> None:
    replacement = nn.Parameter(model.fbsp.fb * 1.2, requires_grad=False)
    while replacement._version < model.fbsp.fb._version:  # only its identity tells it apart
        replacement.mul_(1.0)
    model.fbsp.fb = replacement


def round_to_half_precision(model: ESResNeXt) -> None:
    model.bfloat16().float()


def step_an_optimiser(model: ESResNeXt) -> None:
    model.requires_grad_(True)
    optimiser = torch.optim.SGD(model.fbsp.parameters(), lr=0.1)
    model(noise(1, 4410)).square().sum().backward()
    optimiser.step()
    model.requires_grad_(False)


@pytest.mark.parametrize(
    "change",
    [
        load,
        load_in_inference_mode,
        load_by_assignment,
        write_in_place,
        replace_a_parameter,
        round_to_half_precision,
        step_an_optimiser,
    ],
)
@pytest.mark.parametrize("copied", [False, True], ids=["itself", "copy"])
def test_new_weights_are_used_at_once(change: Callable[[ESResNeXt], None], copied: bool) -> None:
    model, clip = tiny(), noise(1, 4410)
    before = model(clip)
    if copied:
        model = copy.deepcopy(model)
    change(model)
    fresh = ESResNeXt(**TINY).eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model(clip), fresh(clip))
    assert not torch.equal(model(clip), before)


def test_new_weights_are_used_at_once_by_a_network_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model, clip = tiny(), noise(1, 4410)
        before = model(clip)
        write_in_place(model)
        assert not torch.equal(model(clip), before)


def test_learning_kernels_get_a_gradient_at_every_pass() -> None:
    model = tiny().requires_grad_(True)
    for _ in range(2):
        model.zero_grad()
        model(noise(1, 4410)).square().sum().backward()
        for parameter in (model.fbsp.m, model.fbsp.fb, model.fbsp.fc):
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any()


def test_kept_kernels_are_neither_in_the_state_dict_nor_in_a_pickle() -> None:
    model = tiny()
    keys, size = list(model.state_dict()), len(pickle.dumps(model))
    model(noise(1, 4410))
    assert list(model.state_dict()) == keys
    assert len(pickle.dumps(model)) == size


# Checkpoints


def test_strict_loading_refuses_a_missing_key() -> None:
    state = tiny().state_dict()
    del state["att3.bn.running_var"]
    with pytest.raises(RuntimeError, match=r"Missing key.*att3\.bn\.running_var"):
        tiny().load_state_dict(state)


def test_audio_entries_are_picked_from_a_whole_checkpoint() -> None:
    state = tiny().state_dict()
    whole = {f"audio.{key}": value for key, value in state.items()}
    whole |= {"visual.conv1.weight": torch.ones(1), "logit_scale_ai": torch.ones(())}
    picked = audio_state_dict(whole)
    assert picked.keys() == state.keys()
    assert all(picked[key] is state[key] for key in state)


def test_bare_keys_pass_as_they_are() -> None:
    state = tiny().state_dict()
    assert audio_state_dict(state) == dict(state)


@pytest.mark.parametrize(
    "state", [{}, {"visual.conv1.weight": torch.ones(1)}], ids=["empty", "CLIP"]
)
def test_a_checkpoint_without_the_encoder_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"no AudioCLIP audio encoder"):
        audio_state_dict(state)
