r"""A zoom into the Mandelbrot set: each task renders one frame as a PNG; all frames are joined into zoom/zoom.png.

    .venv/bin/python examples/mandelbrot.py          on Windows: .venv\Scripts\python examples\mandelbrot.py

Start a pool first: python3 run.py up. Your own machine is in use while you sit at it; to lend it all the same:
python3 run.py idlectl lend --for 10m
"""

from math import cos, log2
from pathlib import Path
from struct import pack
from zlib import compress, crc32

from idle_accelerator import Client

SIZE, FRAMES, COLUMNS, DEPTH, CENTRE = 160, 12, 4, 250, -0.743643887 + 0.131825904j


def png(rows: list[bytes]) -> bytes:
    head = pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    chunks = [b"IHDR" + head, b"IDAT" + compress(b"".join(b"\0" + row for row in rows)), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pack(">I", len(c) - 4) + c + pack(">I", crc32(c)) for c in chunks)


def colour(c: complex) -> bytes:
    z, step = 0j, 0
    while abs(z) < 16 and step < DEPTH:
        z, step = z * z + c, step + 1
    hue = 2 * log2(step + 2 - log2(log2(abs(z) + 2)))
    return bytes(int(128 + 127 * cos(hue + tone)) * (step < DEPTH) for tone in (3.4, 2.6, 1.6))


def frame(number: int) -> tuple[bytes, list[bytes]]:
    side = [(i / SIZE - 0.5) * 3 / 2**number for i in range(SIZE)]
    rows = [b"".join(colour(CENTRE + complex(x, -y)) for x in side) for y in side]
    return png(rows), rows


(to := Path("zoom")).mkdir(exist_ok=True)
grids: list[list[bytes]] = []
with Client() as client:
    for number, (picture, grid) in enumerate(client.map(frame, range(FRAMES))):
        (to / f"frame-{number:02}.png").write_bytes(picture)
        grids.append(grid)
        print(f"  frame {number + 1} of {FRAMES}", flush=True)
rows = [b"".join(row) for n in range(0, FRAMES, COLUMNS) for row in zip(*grids[n : n + COLUMNS], strict=True)]
print(f"{to / 'zoom.png'}: {(to / 'zoom.png').write_bytes(png(rows))} bytes, {FRAMES} frames")
