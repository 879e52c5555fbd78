"""Where training starts: the network as the best linear codec of its widths, by the Karhunen-Loève transform.

Each encoder stage's input projection takes the leading principal components of its patched input, and its output
projection keeps the leading coordinates; the decoder has the transposes, in reverse. The layers add little at first.
From random weights the same network needs ten times as many steps to get as far.

Two things beside it:

- Components are ranked after a pre-emphasis within each patch, because what is heard is not where the energy is.
- A constant coordinate runs beside the signal through all stages. Layer norm removes how loud a frame is; beside a
  constant it can be seen. In the encoder the first layer's attention makes it, out of a norm's bias; in the decoder it
  is the bias of the quantizer's output projection.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moss_tok.training.model import Layer, Stage, TrainableCodec, patch_down

PRE_EMPHASIS = 0.85
# The constant, in multiples of a coordinate's root mean square over the training sound and of sqrt(d_model).
CONSTANT = 0.3


@torch.no_grad()
def start_from_klt(codec: TrainableCodec, waveforms: Tensor, rate: float) -> None:
    """Set all projections from waveforms (B, samples), whole frames; `rate` is the information in bits a frame that
    latents beside unit noise shall carry (channel.py).
    """
    encoder, decoder = codec.encoder.stages, codec.decoder.stages[::-1]
    sizes = [config.patch_size for config in codec.encoder.configs if hasattr(config, "patch_size")]
    features = patch_down(waveforms[:, :, None], sizes[0])
    emphasis = torch.eye(sizes[0]) - PRE_EMPHASIS * torch.eye(sizes[0]).roll(1, 0).tril()
    emphasis[0, 0] = 1 - PRE_EMPHASIS
    features = features @ emphasis.T
    constant = 0.0
    for index, (down, up) in enumerate(zip(encoder, decoder, strict=True)):
        first = index == 0
        if not first:
            features = patch_down(features, sizes[index])
        vectors = _components(features.flatten(0, 1))
        kept = down.config.output_dimension - 1
        coordinates = features @ vectors[:, :kept]
        if first:
            # Bring a coordinate to about 1 for speech: norms and layer scales are set for that.
            gain = 1 / float(coordinates.square().mean().sqrt())
            constant = CONSTANT * down.config.d_model**0.5
            _analysis(down, gain * vectors.T @ emphasis)
            _make_constant(down, constant)
            _synthesis(up, torch.linalg.inv(emphasis) @ vectors / gain)
            coordinates = coordinates * gain
        else:
            _analysis(down, _beside_constant(vectors.T, sizes[index]))
            down.input_proj.weight[-1] = _constant_input(down.config.input_dimension, sizes[index])
            _synthesis(up, _beside_constant(vectors.T, sizes[index]).T)
            up.output_proj.weight[-sizes[index] :, -1] = 1
        down.output_proj.weight[-1, -1] = 1
        up.input_proj.weight[-1, -1] = 1
        features = coordinates
    _latents(codec, features.flatten(0, 1), constant, rate)


def _components(rows: Tensor) -> Tensor:
    """(D, D): the principal directions of rows (N, D) as columns, the largest first."""
    second = rows.double().T @ rows.double() / len(rows)
    directions: Tensor = torch.linalg.eigh(second).eigenvectors
    return directions.flip(1).float()


def _beside_constant(analysis: Tensor, size: int) -> Tensor:
    """analysis (n, D) with `size` columns of zeros: a patch puts the constant channel, the last one, at the end."""
    return torch.cat([analysis, torch.zeros(len(analysis), size)], 1)


def _constant_input(inputs: int, size: int) -> Tensor:
    row = torch.zeros(inputs)
    row[-size:] = 1 / size
    return row


def _analysis(stage: Stage, analysis: Tensor) -> None:
    """An encoder stage: leading rows of `analysis` into the first coordinates; those that it returns, in order."""
    width, kept = stage.config.d_model - 1, stage.config.output_dimension - 1
    rows = min(width, len(analysis))
    stage.input_proj.weight.zero_()
    stage.input_proj.weight[:rows] = analysis[:rows]
    stage.output_proj.weight.zero_()
    stage.output_proj.weight[:kept, :kept] = torch.eye(kept)


def _synthesis(stage: Stage, synthesis: Tensor) -> None:
    """A decoder stage: its inputs are leading coordinates, and `synthesis` (outputs, n) makes the patch of them."""
    width, given = stage.config.d_model - 1, stage.config.input_dimension - 1
    columns = min(width, synthesis.shape[1])
    stage.input_proj.weight.zero_()
    stage.input_proj.weight[:given, :given] = torch.eye(given)
    stage.output_proj.weight.zero_()
    stage.output_proj.weight[:, :columns] = synthesis[:, :columns]


def _make_constant(stage: Stage, value: float) -> None:
    """Let the first layer's attention write `value` into the last coordinate, at every step."""
    layer = stage.transformer.layers[0]
    if not isinstance(layer, Layer):
        raise TypeError(f"a stage holds layers, not {type(layer).__name__}")
    d_model = stage.config.d_model
    layer.norm1.weight[-1], layer.norm1.bias[-1] = 0, 1
    in_proj, out_proj = layer.self_attn.weights
    # The values' last row reads the norm's bias alone; attention averages it, which leaves it as it is.
    in_proj[3 * d_model - 1], in_proj[3 * d_model - 1, -1] = 0, 1
    out_proj[:, -1], out_proj[-1], out_proj[-1, -1] = 0, 0, 1
    layer.layer_scale_1.scale[-1] = value


def _latents(codec: TrainableCodec, hidden: Tensor, constant: float, rate: float) -> None:
    """The projections into and out of the quantizer: coordinates, scaled to `rate` bits a frame beside unit noise."""
    quantizer = codec.quantizer
    kept = min(quantizer.config.rvq_dim, hidden.shape[1])
    variances = hidden[:, :kept].var(0)
    low, high = 1e-4, 1e4
    for _ in range(60):
        scale = (low * high) ** 0.5
        bits = 0.5 * torch.log2(1 + scale**2 * variances).sum()
        low, high = (scale, high) if bits < rate else (low, scale)
    for projection in (quantizer.input_proj, quantizer.output_proj):
        projection.weight.zero_()
        projection.bias.zero_()
    quantizer.input_proj.weight[:kept, :kept] = torch.eye(kept) * scale
    quantizer.output_proj.weight[:kept, :kept] = torch.eye(kept) / scale
    quantizer.output_proj.bias[-1] = constant
    quantizer.mean.zero_()
    quantizer.variance.fill_(1e-3)
    quantizer.variance[:kept] = variances * scale**2
