"""A zoom into the Mandelbrot set: each frame is a task that renders a PNG, and all frames are joined into one picture.

    .venv/bin/python examples/mandelbrot.py zoom

Start a pool first: python3 run.py up. Your own machine is in use while you sit at it; to lend it all the same:
python3 run.py idlectl lend --for 10m
"""

import sys
from pathlib import Path
from struct import pack
from zlib import compress, crc32

from idle_accelerator import Client

SIZE, DEPTH, FRAMES, COLUMNS = 160, 160, 12, 4


def escape(c: complex) -> float:
    z = 0j
    for step in range(DEPTH):
        z = z * z + c
        if abs(z) > 2:
            return step / DEPTH
    return 0.0


def png(rows: list[bytes]) -> bytes:
    head = pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    chunks = [b"IHDR" + head, b"IDAT" + compress(b"".join(b"\0" + row for row in rows)), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pack(">I", len(c) - 4) + c + pack(">I", crc32(c)) for c in chunks)


def frame(number: int) -> tuple[bytes, list[bytes]]:
    side = [(i / SIZE - 0.5) * 3 / 2**number for i in range(SIZE)]
    grid = [[escape(complex(-0.743643887 + x, 0.131825904 + y)) for x in side] for y in side]
    rows = [bytes(int(255 * v**power) for v in line for power in (0.9, 0.55, 0.3)) for line in grid]
    return png(rows), rows


to = Path(sys.argv[1] if len(sys.argv) > 1 else "zoom")
to.mkdir(exist_ok=True)
strips: list[bytes] = []
with Client() as client:
    for number, (picture, rows) in enumerate(client.map(frame, range(FRAMES))):
        (to / f"frame-{number:02}.png").write_bytes(picture)
        if number % COLUMNS == 0:
            strips += [b""] * SIZE
        strips[-SIZE:] = [left + right for left, right in zip(strips[-SIZE:], rows, strict=True)]
        print(f"  frame {number + 1} of {FRAMES}", flush=True)
(to / "zoom.png").write_bytes(png(strips))
print(f"{to / 'zoom.png'}: {FRAMES} frames of {SIZE} × {SIZE}")
