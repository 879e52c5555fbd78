"""The steps of codec_cuda.py: what each of them measures or checks, with a budget of seconds.

A step is given a `Bench` and returns JSON: figures, and tables as lists of rows. Clips go through `Encoder.launch` of
the pipeline, two batches at a time, as in a run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.codec_baseline import encode_padded
from benchmarks.codec_models import matmul_flop, random_model
from moss_tok import MossAudioTokenizerModel, search
from moss_tok.attention import Span, WindowShape
from moss_tok.execution import COMPILER, Execution
from moss_tok.linear import Linear
from moss_tok.search import OneKernel, SearchConstants, one_kernel, search_by_sums, undecided_rows
from pipeline.codecs.moss_codec import MossCodec
from pipeline.codecs.protocol import Coded
from pipeline.steps.batch import Batcher
from pipeline.steps.encode import Encoder

RATE, FRAME = 24_000, 1920
GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "v1_tiny"
SHARD_THREADS = 8


@dataclass(frozen=True)
class Bench:
    """The device, the models on the host, and how much is measured."""

    device: torch.device
    model: MossAudioTokenizerModel
    """Encoder and decoder in bfloat16, on the host until a step takes it to the device."""
    measure_seconds: float
    audio_seconds: float
    """Of a set of clips."""
    static_frames: tuple[int, ...]
    compiler: str

    @classmethod
    def full(cls) -> Bench:
        model = random_model("full", parts="all", dtype=torch.bfloat16)
        return cls(torch.device("cuda"), model, 4.0, 2000.0, (512, 1024, 2048, 4096), COMPILER)

    @classmethod
    def rehearsal(cls) -> Bench:
        model = random_model("tiny", parts="all", dtype=torch.bfloat16)
        return cls(torch.device("cpu"), model, 0.1, 16.0, (16, 32, 64, 128), "eager")

    @property
    def rehearses(self) -> bool:
        return self.device.type == "cpu"

    def on_device(self, static_frames: int | None = None, compiled: bool | None = None) -> MossAudioTokenizerModel:
        model = self.model.to(self.device)
        execution = Execution.for_device(self.device, model.dtype)
        frames = static_frames or (self.static_frames[0] if self.rehearses else execution.static_frames)
        backend = execution.compile_backend if compiled is None else self.compiler if compiled else None
        model.execution = dataclasses.replace(execution, static_frames=frames, compile_backend=backend)
        return model

    def wait(self) -> None:
        if not self.rehearses:
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Step:
    run: Callable[[Bench], dict[str, Any]]
    seconds: float
    """It is ended after so many."""


def environment(bench: Bench) -> dict[str, Any]:
    packages = ("torch", "triton", "nvidia-cublas", "nvidia-cudnn-cu13")
    found = {each.name: each.version for each in distributions() if each.name.startswith(packages)}
    about: dict[str, Any] = {"python": sys.version.split()[0], **dict(sorted(found.items()))}
    if bench.rehearses:
        return about
    asked = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu,memory.total"
    said = subprocess.run(
        ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"], capture_output=True, text=True
    )
    about |= dict(zip(asked.split(","), said.stdout.strip().split(", "), strict=False))
    return about | {"matmul TFLOP/s": round(_products_rate(bench, 8192, 8192, 8192) / 1e12, 1)}


def tests(bench: Bench) -> dict[str, Any]:
    """The tests that run on every device of a machine."""
    files = ["tests/moss_tok/test_invariance.py", "tests/moss_tok/test_attention.py"]
    only = ["--collect-only"] if bench.rehearses else []
    command = [sys.executable, "-m", "pytest", "-q", "-k", "device", *only, *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=GOLDEN.parent.parent.parent)
    return {"exit status": done.returncode, "last line": done.stdout.strip().splitlines()[-1:]}


def bits(bench: Bench) -> dict[str, Any]:
    """Clips alone, together, in another order and in a stream of whole blocks, and a hash to compare processes by."""
    model = bench.on_device()
    clips = _log_normal(bench, seconds=bench.audio_seconds / 8)[:12]
    together = _encode(model, clips)
    alone = [_encode(model, [clip])[0] for clip in clips]
    turned = _encode(model, clips[::-1])[::-1]
    assert model.encoder is not None
    chunks = model.batch_encode(
        [torch.from_numpy(clips[0].waveform)], chunk_duration=model.encoder.block_frames / model.frame_rate
    )
    digest = hashlib.sha256(b"".join(codes.numpy().tobytes() for codes in together)).hexdigest()
    same = partial(all)
    return {
        "alone": same(torch.equal(*pair) for pair in zip(together, alone, strict=True)),
        "in another order": same(torch.equal(*pair) for pair in zip(together, turned, strict=True)),
        "as a stream": torch.equal(chunks.audio_codes[:, 0].cpu(), together[0]),
        "sha256": digest,
        "kernels": MossCodec(model).numerics,
    }


def golden(bench: Bench) -> dict[str, Any]:
    """The codes of the release's own code, on this device, in both precisions."""
    vectors = load_file(GOLDEN / "vectors.safetensors")
    expected = [vectors[name].long() for name in sorted(vectors) if name.endswith(".codes")]
    names = sorted(name for name in vectors if name.endswith(".waveform_int16"))
    clips = [vectors[name].float().reshape(-1) / 32768 for name in names]
    shares = {}
    for dtype in ("float32", "bfloat16"):
        model = MossAudioTokenizerModel.from_pretrained(GOLDEN, dtype=dtype, device=bench.device)
        found = _encode(model, clips)
        equal = torch.cat([one == two for one, two in zip(found, expected, strict=True)], dim=1).float()
        shares[f"{dtype}, % of codes equal"] = round(100 * float(equal.mean()), 3)
        shares[f"{dtype}, % in layer 0"] = round(100 * float(equal[0].mean()), 3)
    return shares


def sweep(bench: Bench, index: int, compiled: bool) -> dict[str, Any]:
    """Clips of 10 s in batches of one static group and of two, eager or compiled."""
    frames = bench.static_frames[index]
    model = bench.on_device(frames, compiled)
    clips = _clips(bench, [10.0] * int(bench.audio_seconds / 10))
    return {"rows": [_throughput(bench, model, f"{frames} x {groups}", clips, groups * frames) for groups in (1, 2)]}


def kinds_of_clips(bench: Bench) -> dict[str, Any]:
    """What clips look like should not matter."""
    model = bench.on_device()
    total = bench.audio_seconds
    cases = {
        "10 s": _clips(bench, [10.0] * int(total / 10)),
        "1 s": _clips(bench, [1.0] * int(total)),
        "log-normal": _log_normal(bench, total),
    }
    rows = [_throughput(bench, model, name, clips, _budget(model)) for name, clips in cases.items()]
    stream = MossCodec(model).stream(model.num_quantizers, _budget(model))
    clip = _clips(bench, [total])[0].waveform
    began = time.perf_counter()
    stream.step(clip)
    stream.finish()
    rows.append({"case": "one long clip", "x real time": round(total / (time.perf_counter() - began), 1)})
    return {"rows": rows}


def shard_threads(bench: Bench) -> dict[str, Any]:
    """Whether threads of shards that are at work hold up the thread that launches."""
    model = bench.on_device()
    clips = _clips(bench, [10.0] * int(bench.audio_seconds / 10))
    rows = [_throughput(bench, model, "no other thread", clips, _budget(model))]
    stop = threading.Event()
    threads = [threading.Thread(target=_shard_work, args=(stop,)) for _ in range(SHARD_THREADS)]
    for thread in threads:
        thread.start()
    try:
        rows.append(_throughput(bench, model, f"{SHARD_THREADS} threads at work", clips, _budget(model)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return {"rows": rows}


def parts(bench: Bench) -> dict[str, Any]:
    """The products of a group in their real shapes, attention, and the quantizer, each on its own."""
    model = bench.on_device(compiled=False)
    assert model.encoder is not None
    frames = cast(Execution, model.execution).static_frames or 0
    rows = []
    for stage in model.encoder.stages:
        steps = frames * int(float(stage.config.frame_rate) / model.frame_rate)
        layer = next(iter(stage.transformer))
        for name, linear in layer.named_modules():
            if isinstance(linear, Linear):
                inputs, outputs = linear.shape
                rate = _products_rate(bench, steps, inputs, outputs)
                rows.append({"part": f"{name} {steps} x {inputs} x {outputs}", "TFLOP/s": round(rate / 1e12, 2)})
        rows.append({"part": f"attention, {steps} steps", "ms": _attention_ms(bench, model, stage.config, steps)})
    hidden = torch.randn(frames, model.config.quantizer.input_dim, device=bench.device)
    quantizer = partial(model.quantizer.encode, hidden, model.num_quantizers)
    rows.append({"part": f"quantizer by products, {frames} frames", "ms": _milliseconds(bench, quantizer)})
    return {"rows": [{"part": "", "TFLOP/s": "", "ms": "", **row} for row in rows]}


def search_for_codes(bench: Bench) -> dict[str, Any]:
    """The search in one kernel: whether it computes what it says, what products would choose, and the time of both."""
    model = bench.on_device(compiled=False)
    quantizer, count = model.quantizer, model.num_quantizers
    constants = SearchConstants(quantizer.directions, quantizer.codebooks, quantizer.corrections)
    frames = cast(Execution, model.execution).static_frames or 0
    hidden = torch.randn(frames, model.config.quantizer.input_dim, device=bench.device)
    by_sums = partial(search_by_sums, constants)
    taken = by_sums if bench.rehearses else one_kernel(constants)
    if taken is None:
        return {"in one kernel": "refused: its warning says why"}
    undecided = undecided_rows(constants, frames)
    same = (quantizer.encode(hidden, count) == quantizer.encode(hidden, count, taken)).float().mean()
    rows = [{"search": "products", "ms": _milliseconds(bench, lambda: quantizer.encode(hidden, count))}]
    for rows_of_a_program, warps in ((4, 4), (8, 4), (8, 8), (16, 4), (16, 8)):
        search.ROWS, search.WARPS = rows_of_a_program, warps  # of this process, which has no other step
        kernel = by_sums if bench.rehearses else OneKernel(constants, search.launch_kernel)
        encode = partial(quantizer.encode, hidden, count, kernel)
        name = f"one kernel, {rows_of_a_program} rows, {warps} warps"
        rows.append({"search": name, "ms": _milliseconds(bench, encode)})
    return {
        "undecided rows as its sums": torch.equal(taken(undecided, count), by_sums(undecided, count)),
        "% of codes as by products": round(100 * float(same), 3),
        "rows": rows,
    }


def profile(bench: Bench) -> dict[str, Any]:
    """The kernels of one batch, by their time."""
    model = bench.on_device()
    clips = _clips(bench, [10.0] * 8)
    _encode(model, clips)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if not bench.rehearses:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        _encode(model, clips)
    key = "self_cpu_time_total" if bench.rehearses else "self_device_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: getattr(event, key), reverse=True)[:30]
    return {"rows": [{"kernel": each.key[:90], "calls": each.count, "ms": getattr(each, key) / 1e3} for each in events]}


def short_of_memory(bench: Bench) -> dict[str, Any]:
    """A batch that does not fit is halved and gives the same codes."""
    model = bench.on_device()
    clips = _clips(bench, [10.0] * int(bench.audio_seconds / 10))
    encoder = Encoder(MossCodec(model), model.num_quantizers, 10**9, str(bench.device))
    expected = [clip.codes for batch in _batches(clips, _budget(model)) for clip in encoder.encode(batch)]
    if bench.rehearses:
        _fail_once(model)
    else:
        torch.cuda.empty_cache()
        _, whole = torch.cuda.mem_get_info()
        used = torch.cuda.memory_reserved() + 2**30
        torch.cuda.set_per_process_memory_fraction(min(1.0, used / whole))
    batches = _batches(clips, 10**9)
    found = [clip.codes for batch in batches for clip in encoder.encode(batch)]
    order = [clip for budget in (_budget(model), 10**9) for batch in _batches(clips, budget) for clip in batch]
    by_clip = {id(clip): codes for clip, codes in zip(order[: len(clips)], expected, strict=True)}
    same = all(np.array_equal(by_clip[id(clip)], codes) for clip, codes in zip(order[len(clips) :], found, strict=True))
    return {"codes equal": same, "frames at once afterwards": encoder._max_frames}


def decoding(bench: Bench) -> dict[str, Any]:
    """Codes back to sound, in batches and in pieces."""
    model = bench.on_device()
    codec, frames = MossCodec(model), int(10 * model.frame_rate)
    codes = np.random.default_rng(0).integers(0, model.codebook_size, (model.num_quantizers, frames))
    count = max(1, _budget(model) // frames)
    batch, lengths = [Coded(codes)] * count, [frames * FRAME] * count
    seconds = _seconds(bench, lambda: codec.decode(batch, lengths))
    began = time.perf_counter()
    long = Coded(np.tile(codes, int(bench.audio_seconds / 10)))
    samples = frames * FRAME * int(bench.audio_seconds / 10)
    pieces = sum(piece.shape[1] for piece in codec.decode_pieces(long, samples))
    rows = [
        {"case": f"{count} x 10 s", "x real time": round(10 * count / seconds, 1)},
        {"case": "one long clip", "x real time": round(pieces / RATE / (time.perf_counter() - began), 1)},
    ]
    return {"rows": rows}


def baseline(bench: Bench) -> dict[str, Any]:
    """The published algorithm: padded to the longest clip, a dense mask, under bfloat16 autocast."""
    model = bench.model.to(bench.device)
    clips = [torch.from_numpy(clip.waveform[0]).to(bench.device) for clip in _clips(bench, [10.0] * 4)]

    def encode() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            encode_padded(model, clips)

    return {"x real time": round(40 / _seconds(bench, encode), 1)}


def _sweeps() -> dict[str, Step]:
    modes = {"eager": False, "compiled": True}
    return {
        f"sweep, {size}, {mode}": Step(partial(sweep, index=index, compiled=compiled), 60)
        for index, size in enumerate(("smallest", "small", "large", "largest"))
        for mode, compiled in modes.items()
    }


STEPS: dict[str, Step] = {
    "environment": Step(environment, 60),
    "bits": Step(bits, 90),
    "bits, another process": Step(bits, 90),
    "golden": Step(golden, 60),
    "kinds of clips": Step(kinds_of_clips, 90),
    **_sweeps(),
    "shard threads": Step(shard_threads, 60),
    "parts": Step(parts, 60),
    "search": Step(search_for_codes, 60),
    "profile": Step(profile, 60),
    "short of memory": Step(short_of_memory, 60),
    "decoding": Step(decoding, 90),
    "tests": Step(tests, 120),
    "baseline": Step(baseline, 60),
}


def _throughput(
    bench: Bench, model: MossAudioTokenizerModel, name: str, clips: Sequence[Any], budget: int
) -> dict[str, Any]:
    """Times passes over the clips, one batch launched ahead. Host time is what launching takes."""
    encoder = Encoder(MossCodec(model), model.num_quantizers, budget, str(bench.device))
    batches = _batches(clips, budget)
    for batch in batches[:2]:
        encoder.encode(batch)  # compiles, and makes the tables that are kept
    bench.wait()
    if not bench.rehearses:
        torch.cuda.reset_peak_memory_stats()
    audio = host = 0.0
    running: deque[Future[Any]] = deque()
    began = time.perf_counter()
    while time.perf_counter() - began < bench.measure_seconds:
        for batch in batches:
            launched = time.perf_counter()
            running.append(encoder.launch(batch))
            host += time.perf_counter() - launched
            if len(running) > 1:
                running.popleft().result()
            audio += sum(clip.waveform.shape[1] for clip in batch) / RATE
    while running:
        running.popleft().result()
    elapsed = time.perf_counter() - began
    flop = matmul_flop(model) * audio
    row = {"case": name, "x real time": round(audio / elapsed, 1), "TFLOP/s": round(flop / elapsed / 1e12, 2)}
    row["host ms a batch"] = round(1e3 * host / (audio * RATE / FRAME / budget), 2)
    row["host, % of the time"] = round(100 * host / elapsed, 1)
    row["peak GB"] = 0.0 if bench.rehearses else round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return row


def _encode(model: MossAudioTokenizerModel, clips: Iterable[Any]) -> list[Tensor]:
    """Codes of each clip, on the host."""
    waveforms = [clip if isinstance(clip, Tensor) else torch.from_numpy(clip.waveform) for clip in clips]
    output = model.batch_encode([waveform.reshape(1, -1) for waveform in waveforms])
    lengths = output.audio_codes_lengths.tolist()
    return [output.audio_codes[:, index, :length].cpu() for index, length in enumerate(lengths)]


def _clips(bench: Bench, durations: Sequence[float]) -> list[Any]:
    """Noise, as the encoder of the pipeline takes it."""
    draw = np.random.default_rng(0)
    noise = draw.standard_normal((1, int(max(durations, default=1) * RATE)), dtype=np.float32) / 10
    clips = []
    for duration in durations:
        waveform = np.roll(noise, int(draw.integers(noise.shape[1])), axis=1)[:, : int(duration * RATE)].copy()
        clips.append(SimpleNamespace(waveform=waveform, info=SimpleNamespace(num_samples=waveform.shape[1])))
    return clips


def _log_normal(bench: Bench, seconds: float) -> list[Any]:
    """Clips of 0.5 to 60 s, about 8 s on average."""
    durations = np.clip(np.exp(np.random.default_rng(1).normal(1.8, 0.8, max(2, int(seconds / 8)))), 0.5, 60)
    return _clips(bench, durations.tolist())


def _batches(clips: Sequence[Any], budget: int) -> list[list[Any]]:
    batcher: Batcher[Any] = Batcher(budget)
    for clip in clips:
        batcher.add(clip, -(-clip.waveform.shape[1] // FRAME))
    batches = []
    while batch := batcher.take():
        batches.append(batch)
    return batches


def _budget(model: MossAudioTokenizerModel) -> int:
    """Two groups, as in a run."""
    return 2 * (cast(Execution, model.execution).static_frames or 0)


def _seconds(bench: Bench, work: Callable[[], object]) -> float:
    """The mean time of repeated work, after two warm-ups."""
    for _ in range(2):
        work()
    bench.wait()
    count, began = 0, time.perf_counter()
    while count < 1 or time.perf_counter() - began < bench.measure_seconds / 8:
        work()
        count += 1
        if count % 16 == 0:
            bench.wait()
    bench.wait()
    return (time.perf_counter() - began) / count


def _milliseconds(bench: Bench, work: Callable[[], object]) -> float:
    return round(1e3 * _seconds(bench, work), 3)


def _products_rate(bench: Bench, rows: int, inputs: int, outputs: int) -> float:
    """Operations per second of bfloat16 products of this shape."""
    x, weight = (torch.randn(size, inputs, device=bench.device, dtype=torch.bfloat16) for size in (rows, outputs))
    return 2.0 * rows * inputs * outputs / _seconds(bench, lambda: F.linear(x, weight))


def _attention_ms(bench: Bench, model: MossAudioTokenizerModel, config: Any, steps: int) -> float:
    shape = WindowShape(config.context, config.num_heads, config.head_dim)
    length = int(10 * config.frame_rate)
    spans = [Span(0, length)] * max(1, steps // length)
    rows = sum(span.length for span in spans)
    attention = cast(Execution, model.execution).attention(spans, shape, model.dtype, bench.device)
    qkv = torch.randn(rows, 3, config.num_heads, config.head_dim, device=bench.device).to(model.dtype)
    out = torch.empty(rows, config.d_model, device=bench.device, dtype=model.dtype)
    attention.write(slice(0, rows), qkv)
    return _milliseconds(bench, lambda: attention.attend(out))


def _shard_work(stop: threading.Event) -> None:
    """What the thread of a shard does between clips: rows of Python objects, and bytes of arrays."""
    codes = np.zeros((32, 125), np.int16)
    while not stop.is_set():
        rows = [{"id": str(index), "codes": codes.tobytes()} for index in range(200)]
        hashlib.sha256(b"".join(row["codes"] for row in rows)).digest()  # type: ignore[misc]


def _fail_once(model: MossAudioTokenizerModel) -> None:
    """A rehearsal has no memory that could be taken away."""
    step = model.encode_step
    failed: list[bool] = []

    def failing(*arguments: Any, **options: Any) -> Any:
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("rehearsed")
        return step(*arguments, **options)

    model.encode_step = failing  # type: ignore[method-assign]
