"""The encoder or the decoder: patches and transformer stages in a row, run over a packed batch of clips or streams."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import torch
from torch import Tensor, nn

from moss_tok.attention import Span
from moss_tok.config import ModuleConfig, PatchConfig
from moss_tok.execution import Execution
from moss_tok.patch import patch_down, patch_up
from moss_tok.stage import Stage


@dataclass(frozen=True)
class StreamState:
    """All that the next chunk of a stream needs. It is a value and never changed in place.

    `frames` is the number of frames so far. `caches[stage][layer]` holds keys and values (steps, 2, heads, head_dim) of
    the last `context` steps or a little more, so the size is bounded however long the stream is.
    """

    frames: int = 0
    caches: tuple[tuple[Tensor, ...], ...] = ()

    def to(self, device: torch.device | str) -> StreamState:
        """The same state on another device."""
        return StreamState(self.frames, tuple(tuple(cache.to(device) for cache in stage) for stage in self.caches))

    @property
    def nbytes(self) -> int:
        return sum(cache.nbytes for stage in self.caches for cache in stage)

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, to be saved as safetensors."""
        named = {f"{s}.{i}": cache for s, stage in enumerate(self.caches) for i, cache in enumerate(stage)}
        return {"frames": torch.tensor(self.frames), **named}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> StreamState:
        """The inverse of `tensors`. Raises ValueError if they are not a state."""
        if "frames" not in tensors:
            raise ValueError(f"a saved stream state has a tensor 'frames', got {sorted(tensors)[:8]}")
        places = sorted(tuple(int(part) for part in name.split(".")) for name in tensors if name != "frames")
        stages: list[list[Tensor]] = []
        for stage, layer in places:
            if stage == len(stages):
                stages.append([])
            if stage != len(stages) - 1 or layer != len(stages[stage]):
                raise ValueError(f"the saved stream state has a gap before tensor {stage}.{layer}")
            stages[stage].append(tensors[f"{stage}.{layer}"])
        return cls(int(tensors["frames"]), tuple(tuple(stage) for stage in stages))


class Patch(nn.Module):
    """A module without parameters, so that the indices in parameter names are those of the release."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.size = config.patch_size


class Stack(nn.ModuleList):
    """The modules of `encoder_kwargs` (`down`) or `decoder_kwargs`, under the names of the release.

    `keys` are the names in the checkpoint. A stage has a projection if its weight is stored, or if the dimensions
    differ; in that case a checkpoint without it is refused as incomplete.
    """

    def __init__(self, modules: Sequence[ModuleConfig], name: str, keys: set[str], frame_rate: Fraction) -> None:
        super().__init__()
        self.down = name == "encoder"
        self.frame_rate = frame_rate
        for index, config in enumerate(modules):
            if isinstance(config, PatchConfig):
                self.append(Patch(config))
                continue
            inside, outside = f"{name}.{index}.input_proj.weight" in keys, f"{name}.{index}.output_proj.weight" in keys
            self.append(
                Stage(
                    config,
                    input_proj=inside or config.input_dimension != config.d_model,
                    output_proj=outside or config.d_model != config.output_dimension,
                )
            )

    @property
    def stages(self) -> list[Stage]:
        return [module for module in self if isinstance(module, Stage)]

    @property
    def block_frames(self) -> int:
        """The smallest number of frames that is a whole number of contexts in every stage."""
        periods = [Fraction(stage.config.context) / stage.config.frame_rate * self.frame_rate for stage in self.stages]
        numerators, denominators = [p.numerator for p in periods], [p.denominator for p in periods]
        return math.lcm(*numerators) // math.gcd(*denominators) if periods else 1

    def forward(
        self, x: Tensor, spans: Sequence[Span], states: Sequence[StreamState] | None, *, execution: Execution
    ) -> tuple[Tensor, list[StreamState]]:
        """x (rows, features) of all clips, joined -> the output rows and the new states of the streams.

        `spans` count frames. `states` is None for whole clips, which leave no state.
        """
        kept: list[list[list[Tensor]]] = []
        for module in self:
            if isinstance(module, Patch):
                x = patch_down(x, module.size) if self.down else patch_up(x, module.size)
                continue
            module = cast(Stage, module)
            steps = int(module.config.frame_rate / self.frame_rate)
            stage_spans = [Span(span.past * steps, span.length * steps) for span in spans]
            cache = None if states is None else _stage_cache(module, states, len(kept), x.device)
            x, saved = module(x, stage_spans, steps, execution, cache)
            kept.append(saved)
        if states is None:
            return x, []
        return x, [
            StreamState(span.end, tuple(tuple(layer[clip] for layer in stage) for stage in kept))
            for clip, span in enumerate(spans)
        ]


def _stage_cache(stage: Stage, states: Sequence[StreamState], index: int, device: torch.device) -> list[list[Tensor]]:
    """The keys and values of one stage, for each layer and stream. They are empty for a stream that begins."""
    config = stage.config
    for state in states:
        if state.caches and (len(state.caches) <= index or len(state.caches[index]) != config.num_layers):
            raise ValueError(f"this is the state of another codec: stage {index} has {config.num_layers} layers")
    empty = torch.empty(0, 2, config.num_heads, config.head_dim, dtype=stage.product_dtype, device=device)
    return [
        [state.caches[index][layer] if state.caches else empty for state in states]
        for layer in range(config.num_layers)
    ]
