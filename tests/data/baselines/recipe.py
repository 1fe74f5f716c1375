"""Deterministic weights and inputs of the golden parity data of this folder.

Needs numpy only.  All random numbers come from ``RandomState.random_sample`` (numpy's frozen
legacy generator), seeded with the CRC-32 of a text, and go through +, -, *, / and sqrt in float64
alone, so that they are the same bit for bit everywhere.  There is no model in this file.

    weights(model)   {parameter name: float64 array}, by the rules of `fill`
    inputs(model)    {name: array}: features padded with zeros at the end, lengths, labels, probes
    TABLES[model]    ((name, shape, kind), ...)     kind: w matrix, b bias, g gain of a norm
    SIZES[model]     what the inputs are made with
"""

from __future__ import annotations

import zlib

import numpy as np

SEED = "golden-1"
GAIN: dict[str, float] = {}


def uniform(tag: str, shape) -> np.ndarray:
    """Float64 numbers in [-1, 1), seeded with the CRC-32 of a text."""
    state = np.random.RandomState(zlib.crc32(tag.encode("utf-8")) & 0xFFFFFFFF)
    return 2.0 * state.random_sample(tuple(shape)) - 1.0


def fill(model: str, name: str, shape, kind: str) -> np.ndarray:
    """The value of one parameter: matrices of unit gain, biases in 0.3 (-1, 1), gains near 1."""
    u = uniform(f"{SEED}/{model}/{name}", shape)
    if kind == "w":
        return u * np.sqrt(3.0 / shape[-1]) * GAIN.get(model, 1.0)
    if kind == "b":
        return 0.3 * u
    if kind == "g":
        return 1.0 + 0.2 * u
    if kind.startswith("="):  # a constant
        return np.full(tuple(shape), float(kind[1:]))
    raise KeyError(kind)


def weights(model: str) -> dict[str, np.ndarray]:
    return {name: fill(model, name, shape, kind) for name, shape, kind in TABLES[model]}


def features(tag: str, lengths, T: int, d: int) -> np.ndarray:
    """(B, T, d) in 1.7 (-1, 1), zeros from each utterance's own length on."""
    x = 1.7 * uniform(tag, (len(lengths), T, d))
    for i, length in enumerate(lengths):
        x[i, length:] = 0.0
    return x


def labels(tag: str, n: int) -> np.ndarray:
    """(n,) in [-3, 3], multiples of 0.2; the second is 0."""
    y = np.rint(15.0 * uniform(tag, (n,))) / 5.0
    y[1] = 0.0
    return y


def inputs(model: str) -> dict[str, np.ndarray]:
    out = {}
    for name, what, *args in SIZES[model]:
        tag = f"{SEED}/{model}/in/{name}"
        if what == "features":
            lengths, T, d = args
            out[name] = features(tag, lengths, T, d)
        elif what == "vectors":
            out[name] = args[1] * uniform(tag, args[0])
            for at in args[2] if len(args) > 2 else ():
                out[name][tuple(at)] = 0.0
        elif what == "labels":
            out[name] = labels(tag, args[0])
        elif what == "gauss":  # near a standard normal
            draws = uniform(tag, (12, *args[0]))
            total = draws[0]
            for draw in draws[1:]:
                total = total + draw
            out[name] = total / 2.0
        elif what == "value":
            out[name] = np.array(args[0])
        else:
            raise KeyError(what)
    return out


def digest(arrays) -> str:
    """CRC-32 over sorted names and little-endian float64 bytes, as 8 hex digits."""
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(name.encode("utf-8"), crc)
        crc = zlib.crc32(np.ascontiguousarray(arrays[name], dtype="<f8").tobytes(), crc)
    return f"{crc:08x}"


# (name, shape, kind) of every parameter
TABLES = {
    "mfn": [
        ("lstm_l.weight_ih", (24, 7), "w"),
        ("lstm_l.weight_hh", (24, 6), "w"),
        ("lstm_l.bias_ih", (24,), "b"),
        ("lstm_l.bias_hh", (24,), "b"),
        ("lstm_a.weight_ih", (16, 5), "w"),
        ("lstm_a.weight_hh", (16, 4), "w"),
        ("lstm_a.bias_ih", (16,), "b"),
        ("lstm_a.bias_hh", (16,), "b"),
        ("lstm_v.weight_ih", (20, 6), "w"),
        ("lstm_v.weight_hh", (20, 5), "w"),
        ("lstm_v.bias_ih", (20,), "b"),
        ("lstm_v.bias_hh", (20,), "b"),
        ("att1_fc1.weight", (9, 30), "w"),
        ("att1_fc1.bias", (9,), "b"),
        ("att1_fc2.weight", (30, 9), "w"),
        ("att1_fc2.bias", (30,), "b"),
        ("att2_fc1.weight", (7, 30), "w"),
        ("att2_fc1.bias", (7,), "b"),
        ("att2_fc2.weight", (8, 7), "w"),
        ("att2_fc2.bias", (8,), "b"),
        ("gamma1_fc1.weight", (6, 38), "w"),
        ("gamma1_fc1.bias", (6,), "b"),
        ("gamma1_fc2.weight", (8, 6), "w"),
        ("gamma1_fc2.bias", (8,), "b"),
        ("gamma2_fc1.weight", (10, 38), "w"),
        ("gamma2_fc1.bias", (10,), "b"),
        ("gamma2_fc2.weight", (8, 10), "w"),
        ("gamma2_fc2.bias", (8,), "b"),
        ("out_fc1.weight", (11, 23), "w"),
        ("out_fc1.bias", (11,), "b"),
        ("out_fc2.weight", (1, 11), "w"),
        ("out_fc2.bias", (1,), "b"),
    ],
    "mfm": [
        ("encoder_l.lstm.weight_ih", (24, 6), "w"),
        ("encoder_l.lstm.weight_hh", (24, 6), "w"),
        ("encoder_l.lstm.bias_ih", (24,), "b"),
        ("encoder_l.lstm.bias_hh", (24,), "b"),
        ("encoder_l.fc1.weight", (6, 6), "w"),
        ("encoder_l.fc1.bias", (6,), "b"),
        ("encoder_a.lstm.weight_ih", (16, 4), "w"),
        ("encoder_a.lstm.weight_hh", (16, 4), "w"),
        ("encoder_a.lstm.bias_ih", (16,), "b"),
        ("encoder_a.lstm.bias_hh", (16,), "b"),
        ("encoder_a.fc1.weight", (4, 4), "w"),
        ("encoder_a.fc1.bias", (4,), "b"),
        ("encoder_v.lstm.weight_ih", (20, 5), "w"),
        ("encoder_v.lstm.weight_hh", (20, 5), "w"),
        ("encoder_v.lstm.bias_ih", (20,), "b"),
        ("encoder_v.lstm.bias_hh", (20,), "b"),
        ("encoder_v.fc1.weight", (5, 5), "w"),
        ("encoder_v.fc1.bias", (5,), "b"),
        ("decoder_l.lstm.weight_ih", (36, 9), "w"),
        ("decoder_l.lstm.weight_hh", (36, 9), "w"),
        ("decoder_l.lstm.bias_ih", (36,), "b"),
        ("decoder_l.lstm.bias_hh", (36,), "b"),
        ("decoder_l.fc1.weight", (6, 9), "w"),
        ("decoder_l.fc1.bias", (6,), "b"),
        ("decoder_a.lstm.weight_ih", (32, 8), "w"),
        ("decoder_a.lstm.weight_hh", (32, 8), "w"),
        ("decoder_a.lstm.bias_ih", (32,), "b"),
        ("decoder_a.lstm.bias_hh", (32,), "b"),
        ("decoder_a.fc1.weight", (4, 8), "w"),
        ("decoder_a.fc1.bias", (4,), "b"),
        ("decoder_v.lstm.weight_ih", (44, 11), "w"),
        ("decoder_v.lstm.weight_hh", (44, 11), "w"),
        ("decoder_v.lstm.bias_ih", (44,), "b"),
        ("decoder_v.lstm.bias_hh", (44,), "b"),
        ("decoder_v.fc1.weight", (5, 11), "w"),
        ("decoder_v.fc1.bias", (5,), "b"),
        ("mfn_encoder.lstm_l.weight_ih", (20, 6), "w"),
        ("mfn_encoder.lstm_l.weight_hh", (20, 5), "w"),
        ("mfn_encoder.lstm_l.bias_ih", (20,), "b"),
        ("mfn_encoder.lstm_l.bias_hh", (20,), "b"),
        ("mfn_encoder.lstm_a.weight_ih", (12, 4), "w"),
        ("mfn_encoder.lstm_a.weight_hh", (12, 3), "w"),
        ("mfn_encoder.lstm_a.bias_ih", (12,), "b"),
        ("mfn_encoder.lstm_a.bias_hh", (12,), "b"),
        ("mfn_encoder.lstm_v.weight_ih", (16, 5), "w"),
        ("mfn_encoder.lstm_v.weight_hh", (16, 4), "w"),
        ("mfn_encoder.lstm_v.bias_ih", (16,), "b"),
        ("mfn_encoder.lstm_v.bias_hh", (16,), "b"),
        ("mfn_encoder.att1_fc1.weight", (9, 24), "w"),
        ("mfn_encoder.att1_fc1.bias", (9,), "b"),
        ("mfn_encoder.att1_fc2.weight", (24, 9), "w"),
        ("mfn_encoder.att1_fc2.bias", (24,), "b"),
        ("mfn_encoder.att2_fc1.weight", (7, 24), "w"),
        ("mfn_encoder.att2_fc1.bias", (7,), "b"),
        ("mfn_encoder.att2_fc2.weight", (6, 7), "w"),
        ("mfn_encoder.att2_fc2.bias", (6,), "b"),
        ("mfn_encoder.gamma1_fc1.weight", (6, 30), "w"),
        ("mfn_encoder.gamma1_fc1.bias", (6,), "b"),
        ("mfn_encoder.gamma1_fc2.weight", (6, 6), "w"),
        ("mfn_encoder.gamma1_fc2.bias", (6,), "b"),
        ("mfn_encoder.gamma2_fc1.weight", (10, 30), "w"),
        ("mfn_encoder.gamma2_fc1.bias", (10,), "b"),
        ("mfn_encoder.gamma2_fc2.weight", (6, 10), "w"),
        ("mfn_encoder.gamma2_fc2.bias", (6,), "b"),
        ("mfn_encoder.out_fc1.weight", (11, 18), "w"),
        ("mfn_encoder.out_fc1.bias", (11,), "b"),
        ("mfn_encoder.out_fc2.weight", (1, 11), "w"),
        ("mfn_encoder.out_fc2.bias", (1,), "b"),
        ("last_to_zy_fc1.weight", (7, 18), "w"),
        ("last_to_zy_fc1.bias", (7,), "b"),
        ("zy_to_fy_fc1.weight", (5, 7), "w"),
        ("zy_to_fy_fc1.bias", (5,), "b"),
        ("zy_to_fy_fc2.weight", (5, 5), "w"),
        ("zy_to_fy_fc2.bias", (5,), "b"),
        ("zl_to_fl_fc1.weight", (4, 6), "w"),
        ("zl_to_fl_fc1.bias", (4,), "b"),
        ("zl_to_fl_fc2.weight", (4, 4), "w"),
        ("zl_to_fl_fc2.bias", (4,), "b"),
        ("za_to_fa_fc1.weight", (3, 4), "w"),
        ("za_to_fa_fc1.bias", (3,), "b"),
        ("za_to_fa_fc2.weight", (3, 3), "w"),
        ("za_to_fa_fc2.bias", (3,), "b"),
        ("zv_to_fv_fc1.weight", (6, 5), "w"),
        ("zv_to_fv_fc1.bias", (6,), "b"),
        ("zv_to_fv_fc2.weight", (6, 6), "w"),
        ("zv_to_fv_fc2.bias", (6,), "b"),
        ("fy_to_y_fc1.weight", (5, 5), "w"),
        ("fy_to_y_fc1.bias", (5,), "b"),
        ("fy_to_y_fc2.weight", (1, 5), "w"),
        ("fy_to_y_fc2.bias", (1,), "b"),
    ],
    "mag": [
        ("W_hv.weight", (8, 14), "w"),
        ("W_hv.bias", (8,), "b"),
        ("W_ha.weight", (8, 13), "w"),
        ("W_ha.bias", (8,), "b"),
        ("W_v.weight", (8, 6), "w"),
        ("W_v.bias", (8,), "b"),
        ("W_a.weight", (8, 5), "w"),
        ("W_a.bias", (8,), "b"),
        ("LayerNorm.weight", (8,), "g"),
        ("LayerNorm.bias", (8,), "b"),
    ],
    "self_mm": [
        ("audio_model.rnn.weight_ih_l0", (16, 5), "w"),
        ("audio_model.rnn.weight_hh_l0", (16, 4), "w"),
        ("audio_model.rnn.bias_ih_l0", (16,), "b"),
        ("audio_model.rnn.bias_hh_l0", (16,), "b"),
        ("audio_model.linear_1.weight", (3, 4), "w"),
        ("audio_model.linear_1.bias", (3,), "b"),
        ("video_model.rnn.weight_ih_l0", (20, 6), "w"),
        ("video_model.rnn.weight_hh_l0", (20, 5), "w"),
        ("video_model.rnn.bias_ih_l0", (20,), "b"),
        ("video_model.rnn.bias_hh_l0", (20,), "b"),
        ("video_model.linear_1.weight", (4, 5), "w"),
        ("video_model.linear_1.bias", (4,), "b"),
        ("post_fusion_layer_1.weight", (7, 15), "w"),
        ("post_fusion_layer_1.bias", (7,), "b"),
        ("post_fusion_layer_2.weight", (7, 7), "w"),
        ("post_fusion_layer_2.bias", (7,), "b"),
        ("post_fusion_layer_3.weight", (1, 7), "w"),
        ("post_fusion_layer_3.bias", (1,), "b"),
        ("post_text_layer_1.weight", (6, 8), "w"),
        ("post_text_layer_1.bias", (6,), "b"),
        ("post_text_layer_2.weight", (6, 6), "w"),
        ("post_text_layer_2.bias", (6,), "b"),
        ("post_text_layer_3.weight", (1, 6), "w"),
        ("post_text_layer_3.bias", (1,), "b"),
        ("post_audio_layer_1.weight", (3, 3), "w"),
        ("post_audio_layer_1.bias", (3,), "b"),
        ("post_audio_layer_2.weight", (3, 3), "w"),
        ("post_audio_layer_2.bias", (3,), "b"),
        ("post_audio_layer_3.weight", (1, 3), "w"),
        ("post_audio_layer_3.bias", (1,), "b"),
        ("post_video_layer_1.weight", (4, 4), "w"),
        ("post_video_layer_1.bias", (4,), "b"),
        ("post_video_layer_2.weight", (4, 4), "w"),
        ("post_video_layer_2.bias", (4,), "b"),
        ("post_video_layer_3.weight", (1, 4), "w"),
        ("post_video_layer_3.bias", (1,), "b"),
    ],
    "mmim": [
        ("visual_enc.rnn.weight_ih_l0", (16, 6), "w"),
        ("visual_enc.rnn.weight_hh_l0", (16, 4), "w"),
        ("visual_enc.rnn.bias_ih_l0", (16,), "b"),
        ("visual_enc.rnn.bias_hh_l0", (16,), "b"),
        ("visual_enc.rnn.weight_ih_l0_reverse", (16, 6), "w"),
        ("visual_enc.rnn.weight_hh_l0_reverse", (16, 4), "w"),
        ("visual_enc.rnn.bias_ih_l0_reverse", (16,), "b"),
        ("visual_enc.rnn.bias_hh_l0_reverse", (16,), "b"),
        ("visual_enc.linear_1.weight", (8, 8), "w"),
        ("visual_enc.linear_1.bias", (8,), "b"),
        ("acoustic_enc.rnn.weight_ih_l0", (12, 5), "w"),
        ("acoustic_enc.rnn.weight_hh_l0", (12, 3), "w"),
        ("acoustic_enc.rnn.bias_ih_l0", (12,), "b"),
        ("acoustic_enc.rnn.bias_hh_l0", (12,), "b"),
        ("acoustic_enc.rnn.weight_ih_l0_reverse", (12, 5), "w"),
        ("acoustic_enc.rnn.weight_hh_l0_reverse", (12, 3), "w"),
        ("acoustic_enc.rnn.bias_ih_l0_reverse", (12,), "b"),
        ("acoustic_enc.rnn.bias_hh_l0_reverse", (12,), "b"),
        ("acoustic_enc.linear_1.weight", (12, 6), "w"),
        ("acoustic_enc.linear_1.bias", (12,), "b"),
        ("mi_tv.mlp_mu.0.weight", (8, 9), "w"),
        ("mi_tv.mlp_mu.0.bias", (8,), "b"),
        ("mi_tv.mlp_mu.2.weight", (8, 8), "w"),
        ("mi_tv.mlp_mu.2.bias", (8,), "b"),
        ("mi_tv.mlp_logvar.0.weight", (8, 9), "w"),
        ("mi_tv.mlp_logvar.0.bias", (8,), "b"),
        ("mi_tv.mlp_logvar.2.weight", (8, 8), "w"),
        ("mi_tv.mlp_logvar.2.bias", (8,), "b"),
        ("mi_tv.entropy_prj.0.weight", (2, 8), "w"),
        ("mi_tv.entropy_prj.0.bias", (2,), "b"),
        ("mi_ta.mlp_mu.0.weight", (12, 9), "w"),
        ("mi_ta.mlp_mu.0.bias", (12,), "b"),
        ("mi_ta.mlp_mu.2.weight", (12, 12), "w"),
        ("mi_ta.mlp_mu.2.bias", (12,), "b"),
        ("mi_ta.mlp_logvar.0.weight", (12, 9), "w"),
        ("mi_ta.mlp_logvar.0.bias", (12,), "b"),
        ("mi_ta.mlp_logvar.2.weight", (12, 12), "w"),
        ("mi_ta.mlp_logvar.2.bias", (12,), "b"),
        ("mi_ta.entropy_prj.0.weight", (3, 12), "w"),
        ("mi_ta.entropy_prj.0.bias", (3,), "b"),
        ("cpc_zt.net.weight", (9, 7), "w"),
        ("cpc_zt.net.bias", (9,), "b"),
        ("cpc_zv.net.weight", (8, 7), "w"),
        ("cpc_zv.net.bias", (8,), "b"),
        ("cpc_za.net.weight", (12, 7), "w"),
        ("cpc_za.net.bias", (12,), "b"),
        ("fusion_prj.linear_1.weight", (7, 29), "w"),
        ("fusion_prj.linear_1.bias", (7,), "b"),
        ("fusion_prj.linear_2.weight", (7, 7), "w"),
        ("fusion_prj.linear_2.bias", (7,), "b"),
        ("fusion_prj.linear_3.weight", (1, 7), "w"),
        ("fusion_prj.linear_3.bias", (1,), "b"),
    ],
    "tpmsa": [
        ("w_cat", (), "=1.0"),
        ("w_t", (), "=1.0"),
        ("w_v", (), "=0.01"),
        ("w_a", (), "=0.05"),
        ("t_encoder.linear.weight", (8, 12), "w"),
        ("t_encoder.linear.bias", (8,), "b"),
        ("v_encoder.layer.self_attn.in_proj_weight", (18, 6), "w"),
        ("v_encoder.layer.self_attn.in_proj_bias", (18,), "b"),
        ("v_encoder.layer.self_attn.out_proj.weight", (6, 6), "w"),
        ("v_encoder.layer.self_attn.out_proj.bias", (6,), "b"),
        ("v_encoder.layer.linear1.weight", (8, 6), "w"),
        ("v_encoder.layer.linear1.bias", (8,), "b"),
        ("v_encoder.layer.linear2.weight", (6, 8), "w"),
        ("v_encoder.layer.linear2.bias", (6,), "b"),
        ("v_encoder.layer.norm1.weight", (6,), "g"),
        ("v_encoder.layer.norm1.bias", (6,), "b"),
        ("v_encoder.layer.norm2.weight", (6,), "g"),
        ("v_encoder.layer.norm2.bias", (6,), "b"),
        ("v_encoder.encoder.layers.0.self_attn.in_proj_weight", (18, 6), "w"),
        ("v_encoder.encoder.layers.0.self_attn.in_proj_bias", (18,), "b"),
        ("v_encoder.encoder.layers.0.self_attn.out_proj.weight", (6, 6), "w"),
        ("v_encoder.encoder.layers.0.self_attn.out_proj.bias", (6,), "b"),
        ("v_encoder.encoder.layers.0.linear1.weight", (8, 6), "w"),
        ("v_encoder.encoder.layers.0.linear1.bias", (8,), "b"),
        ("v_encoder.encoder.layers.0.linear2.weight", (6, 8), "w"),
        ("v_encoder.encoder.layers.0.linear2.bias", (6,), "b"),
        ("v_encoder.encoder.layers.0.norm1.weight", (6,), "g"),
        ("v_encoder.encoder.layers.0.norm1.bias", (6,), "b"),
        ("v_encoder.encoder.layers.0.norm2.weight", (6,), "g"),
        ("v_encoder.encoder.layers.0.norm2.bias", (6,), "b"),
        ("v_encoder.linear.weight", (8, 6), "w"),
        ("v_encoder.linear.bias", (8,), "b"),
        ("a_encoder.layer.self_attn.in_proj_weight", (15, 5), "w"),
        ("a_encoder.layer.self_attn.in_proj_bias", (15,), "b"),
        ("a_encoder.layer.self_attn.out_proj.weight", (5, 5), "w"),
        ("a_encoder.layer.self_attn.out_proj.bias", (5,), "b"),
        ("a_encoder.layer.linear1.weight", (8, 5), "w"),
        ("a_encoder.layer.linear1.bias", (8,), "b"),
        ("a_encoder.layer.linear2.weight", (5, 8), "w"),
        ("a_encoder.layer.linear2.bias", (5,), "b"),
        ("a_encoder.layer.norm1.weight", (5,), "g"),
        ("a_encoder.layer.norm1.bias", (5,), "b"),
        ("a_encoder.layer.norm2.weight", (5,), "g"),
        ("a_encoder.layer.norm2.bias", (5,), "b"),
        ("a_encoder.encoder.layers.0.self_attn.in_proj_weight", (15, 5), "w"),
        ("a_encoder.encoder.layers.0.self_attn.in_proj_bias", (15,), "b"),
        ("a_encoder.encoder.layers.0.self_attn.out_proj.weight", (5, 5), "w"),
        ("a_encoder.encoder.layers.0.self_attn.out_proj.bias", (5,), "b"),
        ("a_encoder.encoder.layers.0.linear1.weight", (8, 5), "w"),
        ("a_encoder.encoder.layers.0.linear1.bias", (8,), "b"),
        ("a_encoder.encoder.layers.0.linear2.weight", (5, 8), "w"),
        ("a_encoder.encoder.layers.0.linear2.bias", (5,), "b"),
        ("a_encoder.encoder.layers.0.norm1.weight", (5,), "g"),
        ("a_encoder.encoder.layers.0.norm1.bias", (5,), "b"),
        ("a_encoder.encoder.layers.0.norm2.weight", (5,), "g"),
        ("a_encoder.encoder.layers.0.norm2.bias", (5,), "b"),
        ("a_encoder.linear.weight", (8, 5), "w"),
        ("a_encoder.linear.bias", (8,), "b"),
        ("v_interact.multihead_attn_1.in_proj_weight", (24, 8), "w"),
        ("v_interact.multihead_attn_1.in_proj_bias", (24,), "b"),
        ("v_interact.multihead_attn_1.out_proj.weight", (8, 8), "w"),
        ("v_interact.multihead_attn_1.out_proj.bias", (8,), "b"),
        ("v_interact.add_norm_1.norm.weight", (8,), "g"),
        ("v_interact.add_norm_1.norm.bias", (8,), "b"),
        ("v_interact.add_norm_2.norm.weight", (8,), "g"),
        ("v_interact.add_norm_2.norm.bias", (8,), "b"),
        ("v_interact.ff.linear1.weight", (16, 8), "w"),
        ("v_interact.ff.linear1.bias", (16,), "b"),
        ("v_interact.ff.linear2.weight", (8, 16), "w"),
        ("v_interact.ff.linear2.bias", (8,), "b"),
        ("a_interact.multihead_attn_1.in_proj_weight", (24, 8), "w"),
        ("a_interact.multihead_attn_1.in_proj_bias", (24,), "b"),
        ("a_interact.multihead_attn_1.out_proj.weight", (8, 8), "w"),
        ("a_interact.multihead_attn_1.out_proj.bias", (8,), "b"),
        ("a_interact.add_norm_1.norm.weight", (8,), "g"),
        ("a_interact.add_norm_1.norm.bias", (8,), "b"),
        ("a_interact.add_norm_2.norm.weight", (8,), "g"),
        ("a_interact.add_norm_2.norm.bias", (8,), "b"),
        ("a_interact.ff.linear1.weight", (16, 8), "w"),
        ("a_interact.ff.linear1.bias", (16,), "b"),
        ("a_interact.ff.linear2.weight", (8, 16), "w"),
        ("a_interact.ff.linear2.bias", (8,), "b"),
        ("t_regression.weight", (1, 8), "w"),
        ("t_regression.bias", (1,), "b"),
        ("v_regression.weight", (1, 8), "w"),
        ("v_regression.bias", (1,), "b"),
        ("a_regression.weight", (1, 8), "w"),
        ("a_regression.bias", (1,), "b"),
        ("cat_regression.weight", (1, 24), "w"),
        ("cat_regression.bias", (1,), "b"),
    ],
    "tpmsa1": [
        ("t_encoder.linear.weight", (8, 12), "w"),
        ("t_encoder.linear.bias", (8,), "b"),
        ("regression.weight", (1, 8), "w"),
        ("regression.bias", (1,), "b"),
    ],
}

# (name, what, ...) of every input
SIZES = {
    "mfn": [
        ("ragged.lengths", "value", [7, 4, 6, 1]),
        ("ragged.text", "features", [7, 4, 6, 1], 7, 7),
        ("ragged.audio", "features", [7, 4, 6, 1], 7, 5),
        ("ragged.vision", "features", [7, 4, 6, 1], 7, 6),
        ("ragged.labels", "labels", 4),
        ("full.text", "features", [5, 5, 5], 5, 7),
        ("full.audio", "features", [5, 5, 5], 5, 5),
        ("full.vision", "features", [5, 5, 5], 5, 6),
        ("full.labels", "labels", 3),
    ],
    "mfm": [
        ("ragged.lengths", "value", [5, 3, 6, 1]),
        ("ragged.text", "features", [5, 3, 6, 1], 6, 6),
        ("ragged.audio", "features", [5, 3, 6, 1], 6, 4),
        ("ragged.vision", "features", [5, 3, 6, 1], 6, 5),
        ("ragged.labels", "labels", 4),
        ("full.text", "features", [5, 5, 5, 5], 5, 6),
        ("full.audio", "features", [5, 5, 5, 5], 5, 4),
        ("full.vision", "features", [5, 5, 5, 5], 5, 5),
        ("full.labels", "labels", 4),
        ("ragged.gauss.zl", "gauss", [4, 6]),
        ("ragged.gauss.za", "gauss", [4, 4]),
        ("ragged.gauss.zv", "gauss", [4, 5]),
        ("ragged.gauss.zy", "gauss", [4, 7]),
        ("full.gauss.zl", "gauss", [4, 6]),
        ("full.gauss.za", "gauss", [4, 4]),
        ("full.gauss.zv", "gauss", [4, 5]),
        ("full.gauss.zy", "gauss", [4, 7]),
    ],
    "mag": [
        ("text", "vectors", [3, 5, 8], 1.7),
        ("audio", "vectors", [3, 5, 5], 1.7, [(0, 1), (1, -1)]),
        ("vision", "vectors", [3, 5, 6], 1.7, [(0, 1), (1, -1)]),
        ("probe", "vectors", [3, 5, 8], 1.0),
        ("betas", "value", [1.0, 0.5, 0.001]),
    ],
    "self_mm": [
        ("text", "vectors", [5, 8], 1.7),
        ("audio.lengths", "value", [4, 1, 6, 3, 5]),
        ("vision.lengths", "value", [2, 7, 1, 5, 3]),
        ("audio", "features", [4, 1, 6, 3, 5], 6, 5),
        ("vision", "features", [2, 7, 1, 5, 3], 7, 6),
        ("labels", "labels", 5),
        ("u.text", "vectors", [5], 2.5),
        ("u.audio", "vectors", [5], 2.5),
        ("u.vision", "vectors", [5], 2.5),
        ("trace.labels", "labels", 10),
        ("trace.H", "value", 3.0),
        ("trace.f.fusion", "vectors", [3, 10, 7], 1.0),
        ("trace.f.text", "vectors", [3, 10, 6], 1.0),
        ("trace.f.audio", "vectors", [3, 10, 3], 1.0),
        ("trace.f.vision", "vectors", [3, 10, 4], 1.0),
        ("run.text", "vectors", [10, 8], 1.7),
        ("run.audio.lengths", "value", [1, 4, 2, 5, 3, 1, 4, 2, 5, 3]),
        ("run.vision.lengths", "value", [2, 4, 6, 2, 4, 6, 2, 4, 6, 2]),
        ("run.audio", "features", [1, 4, 2, 5, 3, 1, 4, 2, 5, 3], 5, 5),
        ("run.vision", "features", [2, 4, 6, 2, 4, 6, 2, 4, 6, 2], 6, 6),
    ],
    "mmim": [
        ("text", "vectors", [10, 9], 1.7),
        ("audio.lengths", "value", [4, 1, 6, 3, 5, 2, 6, 3, 4, 5]),
        ("vision.lengths", "value", [2, 7, 1, 5, 3, 4, 6, 2, 7, 1]),
        ("audio", "features", [4, 1, 6, 3, 5, 2, 6, 3, 4, 5], 6, 5),
        ("vision", "features", [2, 7, 1, 5, 3, 4, 6, 2, 7, 1], 7, 6),
        ("labels", "labels", 10),
        ("memory.tv.pos", "vectors", [7, 2], 0.9),
        ("memory.tv.neg", "vectors", [6, 2], 0.9),
        ("memory.ta.pos", "vectors", [7, 3], 0.9),
        ("memory.ta.neg", "vectors", [6, 3], 0.9),
        ("run.0.text", "vectors", [10, 9], 1.7),
        ("run.0.audio", "features", [4, 1, 6, 3, 5, 2, 6, 3, 4, 5], 6, 5),
        ("run.0.vision", "features", [2, 7, 1, 5, 3, 4, 6, 2, 7, 1], 7, 6),
        ("run.0.labels", "labels", 10),
        ("run.1.text", "vectors", [10, 9], 1.7),
        ("run.1.audio", "features", [4, 1, 6, 3, 5, 2, 6, 3, 4, 5], 6, 5),
        ("run.1.vision", "features", [2, 7, 1, 5, 3, 4, 6, 2, 7, 1], 7, 6),
        ("run.1.labels", "labels", 10),
        ("run.2.text", "vectors", [10, 9], 1.7),
        ("run.2.audio", "features", [4, 1, 6, 3, 5, 2, 6, 3, 4, 5], 6, 5),
        ("run.2.vision", "features", [2, 7, 1, 5, 3, 4, 6, 2, 7, 1], 7, 6),
        ("run.2.labels", "labels", 10),
        ("run.3.text", "vectors", [10, 9], 1.7),
        ("run.3.audio", "features", [4, 1, 6, 3, 5, 2, 6, 3, 4, 5], 6, 5),
        ("run.3.vision", "features", [2, 7, 1, 5, 3, 4, 6, 2, 7, 1], 7, 6),
        ("run.3.labels", "labels", 10),
    ],
    "tpmsa": [
        ("ragged.text.lengths", "value", [6, 4, 3]),
        ("ragged.av.lengths", "value", [4, 5, 2]),
        ("ragged.text", "features", [6, 4, 3], 6, 12),
        ("ragged.audio", "features", [4, 5, 2], 5, 5),
        ("ragged.vision", "features", [4, 5, 2], 5, 6),
        ("ragged.labels", "labels", 3),
        ("full.text", "features", [5, 5, 5], 5, 12),
        ("full.audio", "features", [4, 4, 4], 4, 5),
        ("full.vision", "features", [4, 4, 4], 4, 6),
        ("full.labels", "labels", 3),
    ],
    "tpmsa1": [
        ("text.lengths", "value", [6, 4, 3]),
        ("text", "features", [6, 4, 3], 6, 12),
        ("labels", "labels", 3),
    ],
}
