"""ESResNeXt-fbsp, the audio encoder of AudioCLIP: a 44.1 kHz waveform becomes 1024 numbers.

CLIP-MSA (Sec. 2.2.2) describes the sound of an utterance by this network, trained jointly with CLIP
so that its embeddings share CLIP's space. The architecture is by Guzhov, Raue, Hees and Dengel:
ESResNe(X)t-fbsp (IJCNN 2021) and AudioCLIP (ICASSP 2022; MIT licence, © 2021 Andrey Guzhov). For
inference with the released weights, names, shapes and the order of float32 operations are theirs.

The way of a signal through this file, N = batch x audio channels:

    waveform    (N, samples)        int16 range, mapped to [-1, 1]
    frames      (N, T, 2048)        1654 samples every 561, windowed, zero-padded
    spectrum    (N, 1025, T) x 2    frames times learned complex B-spline kernels (fbsp)
    image       (N, 3, 341, T)      power in dB; low, middle and high band as three colours
    features    (N, 2048)           ResNeXt-50 32x4d, an attention map multiplied onto each stage
    embedding   (B, 1024)           features summed over the audio channels, one linear layer

There is no length mask: padding a waveform changes its embedding, so a batch must hold clips of
equal length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipmsa.cache.errors import WeightsError

COLOURS = 3


def frame(signal: Tensor, window: Tensor, hop_length: int, n_fft: int) -> Tensor:
    """Cut (N, samples) into overlapping frames (N, T, n_fft) under a window of (win_length,).

    The last frame is completed with zeros shared between both ends of the signal, and each windowed
    frame is centred in zeros up to `n_fft`. An odd zero goes to the right, both times.
    """
    win_length = window.shape[0]
    hops = max(0, math.ceil((signal.shape[-1] - win_length) / hop_length))
    missing = hops * hop_length + win_length - signal.shape[-1]
    padded = F.pad(signal, (missing // 2, missing - missing // 2))
    frames = padded.unfold(-1, win_length, hop_length) * window
    margin = n_fft - win_length
    return F.pad(frames, (margin // 2, margin - margin // 2))


class Fbsp(nn.Module):
    """Spectrum by learned complex frequency B-spline wavelets: a Fourier transform, at first.

    Kernel k of n_fft // 2 + 1 is a carrier of `fc[k]` cycles under the window
    sinc(fb[k] t / m[k]) ** m[k] of bandwidth `fb[k]` > 0 and real order `m[k]`.
    """

    def __init__(self, n_fft: int) -> None:
        super().__init__()
        bins = n_fft // 2 + 1
        self.n_fft = n_fft
        self.m = nn.Parameter(torch.zeros(bins))
        self.fb = nn.Parameter(torch.ones(bins))
        self.fc = nn.Parameter(torch.arange(bins, dtype=torch.float32))
        # Never used, but the released weights have it and a strict load asks for it.
        self.bias = nn.Parameter(torch.empty(0))
        self._built: tuple[object, object, tuple[Tensor, Tensor]] | None = None

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Turn (N, T, n_fft) into the real and the imaginary spectrum, (N, bins, T) each."""
        real, imag = self.kernels()
        return (frames @ real.T).transpose(1, 2), (frames @ imag.T).transpose(1, 2)

    def kernels(self) -> tuple[Tensor, Tensor]:
        """Real and imaginary kernels, (bins, n_fft) each.

        They take longer to build than to apply, so they are kept until `m`, `fb` or `fc` is
        replaced or written to, which torch counts in a tensor's version (writing through `.data`
        is not counted). Where gradients are wanted, every call builds its own.
        """
        sources = (self.m, self.fb, self.fc)
        learning = torch.is_grad_enabled() and any(source.requires_grad for source in sources)
        if learning or any(source.is_inference() for source in sources):  # those have no version
            return self._build()
        state = [(id(source), source._version) for source in sources]
        built = self._built
        if built is None or built[0] != state:
            # The sources are kept alive with it, so that nothing else can take their ids.
            built = self._built = (state, sources, self._build())
        return built[2]

    def _build(self) -> tuple[Tensor, Tensor]:
        # The phase fc * t reaches 3217 rad, where float32 rounds visibly: the weights were trained
        # with that rounding, so float64 or another order here would move the embedding by 2e-4.
        dtype, eps = torch.promote_types(self.fc.dtype, torch.float32), 1e-8
        m, fb, fc = (p.to(dtype).unsqueeze(1) for p in (self.m, self.fb, self.fc))
        t = torch.linspace(-1.0, 1.0, self.n_fft, dtype=dtype, device=fc.device) * math.pi + eps

        # A negative sinc to a fractional power is complex; its angle is pi times the power.
        a = fb * t / (m + eps)
        sinc = torch.where(a == 0, 1.0, a.sin() / a)
        modulus = (sinc * sinc).sqrt().square() ** (0.5 * m)
        angle = torch.where(sinc < 0, m * math.pi, 0.0)
        window_real, window_imag = modulus * angle.cos(), modulus * angle.sin()

        carrier_real, carrier_imag = (fc * t).cos(), -(fc * t).sin()
        real = window_real * carrier_real - window_imag * carrier_imag
        imag = window_real * carrier_imag + window_imag * carrier_real
        return fb.sqrt() * real / math.sqrt(self.n_fft), fb.sqrt() * imag / math.sqrt(self.n_fft)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Fbsp:
        self._built = None  # .to(), .double() … write through `.data`
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        # In a copy the ids would mean nothing, and a pickle need not carry the kernels.
        return {**self.__dict__, "_built": None}


def decibel_image(real: Tensor, imag: Tensor) -> Tensor:
    """Show a spectrum (N, bins, T) as power in dB, (N, 3, bins // 3, T).

    The colours are the low, middle and high third of the bins, the lowest in row 0; what does not
    divide by three is dropped from the top. Only powers that are not positive are floored, at
    -180 dB; smaller positive ones stay.
    """
    rows = real.shape[1] // COLOURS
    power = (real.square() + imag.square())[:, : COLOURS * rows]
    bands = power.reshape(-1, COLOURS, rows, power.shape[-1])
    return 10.0 * torch.where(bands > 0, bands, 1e-18).log10()


class Bottleneck(nn.Module):
    """Residual block of ResNeXt: 1x1, grouped 3x3 (which carries the stride), 1x1 convolutions."""

    def __init__(
        self, in_channels: int, width: int, out_channels: int, *, groups: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ⌈H / stride⌉, ⌈W / stride⌉)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


class Attention(nn.Module):
    """A map in (0, 1), drawn from a stage's input, that the stage's output is multiplied by."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(
            in_channels, in_channels, kernel, padding=padding, groups=in_channels
        )
        self.conv_point = nn.Conv2d(in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, *size)."""
        peaks = F.adaptive_max_pool2d(x, tuple(size))
        return torch.sigmoid(self.bn(self.conv_point(self.conv_depth(peaks))))


class ESResNeXt(nn.Module):
    """The encoder; the default sizes are AudioCLIP's, smaller ones make a quick stand-in.

    Stage i = 0 … 3 has `layers[i]` blocks, `cardinality` groups of `base_width` * 2**i channels
    inside them, and 4 * `stem_width` * 2**i channels at its end. `n_fft`, `hop_length` and
    `win_length` count samples. For speed use autocast, which leaves the front end in float32;
    `.half()` would round the centre frequencies of the kernels as well.
    """

    window: Tensor

    def __init__(
        self,
        *,
        layers: Sequence[int] = (3, 4, 6, 3),
        stem_width: int = 64,
        cardinality: int = 32,
        base_width: int = 4,
        embed_dim: int = 1024,
        n_fft: int = 2048,
        hop_length: int = 561,
        win_length: int = 1654,
    ) -> None:
        super().__init__()
        if len(layers) != 4:
            raise ValueError(f"layers must give the blocks of 4 stages, got {tuple(layers)}")
        if not 0 < win_length <= n_fft:
            raise ValueError(f"win_length {win_length} must be in 1 … n_fft = {n_fft}")
        self.hop_length = hop_length

        blackman_harris = (0.35875, 0.48829, 0.14128, 0.01168)
        cosines = torch.signal.windows.general_cosine
        window = cosines(win_length, a=blackman_harris, sym=False, dtype=torch.float64)
        self.register_buffer("window", window.float())
        self.fbsp = Fbsp(n_fft)

        self.conv1 = nn.Conv2d(COLOURS, stem_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

        channels = [stem_width, *(4 * stem_width * 2**i for i in range(4))]
        stages = []
        for i, depth in enumerate(layers):
            before, width, after = channels[i], cardinality * base_width * 2**i, channels[i + 1]
            first = Bottleneck(before, width, after, groups=cardinality, stride=1 if i == 0 else 2)
            rest = [Bottleneck(after, width, after, groups=cardinality) for _ in range(depth - 1)]
            stages.append(nn.Sequential(first, *rest))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

        frequency, time = (3, 1), (1, 5)  # the axis a branch looks along
        self.att1 = Attention(channels[0], channels[1], frequency)
        self.att2 = Attention(channels[1], channels[2], time)
        self.att3 = Attention(channels[2], channels[3], frequency)
        self.att4 = Attention(channels[3], channels[4], time)
        self.att5 = Attention(channels[4], channels[4], (3, 5))
        self.fc = nn.Linear(channels[4], embed_dim)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Embed mono waveforms (B, samples), 44.1 kHz in [-1, 1], as (B, embed_dim).

        The embedding is not normalised. The clips of a batch must really have the same length.
        """
        if x.ndim != 2 or not x.is_floating_point():
            got = f"{x.dtype} {tuple(x.shape)}"
            raise ValueError(f"expected a float waveform (B, samples), got {got}")
        # The network was trained on the int16 range and is blind to what is 90 dB quieter.
        return self.embed_pcm(x.unsqueeze(1) * 32768.0)

    def embed_pcm(self, pcm: Tensor) -> Tensor:
        """Embed waveforms (B, C, samples), 44.1 kHz in the int16 range, as (B, embed_dim).

        Each of the C audio channels goes through the trunk alone; their features are summed, so
        mono played twice is not mono.
        """
        if pcm.ndim != 3 or pcm.numel() == 0:
            raise ValueError(f"expected samples as (B, C, samples), got {tuple(pcm.shape)}")
        features = self.features(self.image(pcm.flatten(0, 1)))
        embedding: Tensor = self.fc(features.reshape(*pcm.shape[:2], -1).sum(dim=1))
        return embedding

    def image(self, pcm: Tensor) -> Tensor:
        """Draw waveforms (N, samples), int16 range, as dB images (N, 3, bins // 3, T)."""
        # bfloat16 would be 2 % off here, so autocast waits for the trunk.
        with torch.autocast(pcm.device.type, enabled=False):
            with torch.no_grad():
                pcm = pcm.to(torch.promote_types(self.window.dtype, torch.float32))
                # As in training: -32768 … 32767 onto [-1, 1], which lifts silence to 1.5e-5.
                signal = ((pcm + 32768.0) * 2.0) / 65535.0 - 1.0
                frames = frame(signal, self.window, self.hop_length, self.fbsp.n_fft)
            return decibel_image(*self.fbsp(frames))

    def features(self, image: Tensor) -> Tensor:
        """Run the trunk: dB images (N, 3, H, T) to (N, channels)."""
        x = image.to(self.conv1.weight.dtype)
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        attentions = (self.att1, self.att2, self.att3, self.att4)
        for layer, attention in zip(layers, attentions, strict=True):
            y = layer(x)
            x = y * attention(x, y.shape[-2:])
        pooled = F.adaptive_avg_pool2d(x, 1) * self.att5(x, (1, 1))
        return torch.flatten(pooled, 1)


def audio_state_dict(full: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick the audio encoder's entries, under bare names, from an AudioCLIP state dict.

    A state dict of the audio encoder alone, without the prefix, passes as it is.
    """
    prefix = "audio."
    found = {key.removeprefix(prefix): full[key] for key in full if key.startswith(prefix)}
    if found or "fbsp.fc" in full:
        return found or dict(full)
    examples = ", ".join(sorted(full)[:3]) or "nothing"
    raise WeightsError(
        f"no AudioCLIP audio encoder among these weights: no key starts with {prefix!r} "
        f"(they hold {examples}, …); take AudioCLIP-Full-Training.pt"
    )
