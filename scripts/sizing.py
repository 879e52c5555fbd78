"""Print how many GPUs, cores and bytes a dataset takes: the table of docs/cluster.md.

    python scripts/sizing.py [--gpu-speed 5000] [--decode-speed 1130] [--gpu-price 2.5] [--core-price 0.04] [--gpus 8]

Pass your own measurements: `python -m benchmarks.codec_cuda` prints the speed of a GPU, `python -m benchmarks.decode`
the speed of a core. Take prices from your provider.
"""

from __future__ import annotations

import argparse

HOURS = (1_000, 100_000, 3_000_000)
FRAMES_PER_SECOND = 12.5
LAYERS = 32
BITS_PER_CODE = 10.05  # docs/benchmarks.md: all other columns and the footer are in it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu-speed", type=float, default=5000, help="x real time of one GPU (default: %(default)s)")
    parser.add_argument("--decode-speed", type=float, default=1130, help="of one core (default: %(default)s)")
    parser.add_argument("--gpu-price", type=float, default=2.5, help="of a GPU for an hour (default: %(default)s)")
    parser.add_argument("--core-price", type=float, default=0.04, help="of a core for an hour (default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=8, help="that work at once (default: %(default)s)")
    given = parser.parse_args()
    print(table(given.gpu_speed, given.decode_speed, given.gpu_price, given.core_price, given.gpus))


def table(gpu_speed: float, decode_speed: float, gpu_price: float, core_price: float, gpus: int) -> str:
    """Markdown, a row for each size of dataset."""
    lines = [
        f"| hours of audio | GPU hours | days on {gpus} GPUs | cores per GPU | core hours | codes, GB | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    bytes_per_hour = 3600 * FRAMES_PER_SECOND * LAYERS * BITS_PER_CODE / 8
    for hours in HOURS:
        gpu_hours, core_hours = hours / gpu_speed, hours / decode_speed
        cost = gpu_hours * gpu_price + core_hours * core_price
        lines.append(
            f"| {hours:,} | {gpu_hours:,.1f} | {gpu_hours / gpus / 24:,.2f} | {gpu_speed / decode_speed:.1f} | "
            f"{core_hours:,.0f} | {hours * bytes_per_hour / 1e9:,.0f} | {cost:,.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
