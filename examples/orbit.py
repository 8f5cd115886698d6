r"""A planet's long way round its sun: a simulation that saves every second, so that it goes on wherever it has to leave.

    .venv/bin/python examples/orbit.py               on Windows: .venv\Scripts\python examples\orbit.py

Start a pool first: python3 run.py up. Your own machine is in use while you sit at it; to lend it all the same:
python3 run.py idlectl lend --for 10m. The program needs Python on the PATH of nodes with your operating system. Stop the machine that
computes, and another goes on from the last checkpoint: the result is that of an undisturbed run to the last digit. To see that one,
without a pool: .venv/bin/python examples/orbit.py --here"""

import json
import os
import sys
from math import pi

from idle_accelerator import task

YEARS, STEPS = 2000, 10_000

if "IDLE_JOB_ID" in os.environ or "--here" in sys.argv:  # on a node, or without a pool
    saved = task.resume_from()
    year, x, y, u, v = json.loads((saved / "state").read_text()) if saved else (0, 1.0, 0.0, 0.0, 2 * pi)
    due = task.every(1)
    while year < YEARS:
        for _ in range(STEPS):
            pull = 4 * pi**2 / STEPS / (x * x + y * y) ** 1.5
            u, v = u - pull * x, v - pull * y
            x, y = x + u / STEPS, y + v / STEPS
        year += 1
        if due():
            task.progress(year / YEARS, f"year {year}")
            task.commit(year, {"state": json.dumps([year, x, y, u, v]).encode()})
            task.should_stop() and task.leave()
    print(f"after {year} years it stands at {x!r}, {y!r}")
else:
    from idle_accelerator import Client

    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
    command = ["python" if system == "windows" else "python3", "orbit.py"]
    with Client() as client:
        job = client.submit(command, inputs=[__file__], os=system, name="orbit")
        print(f"submitted {job.id}; to watch it: python3 run.py idlectl job {job.id}", flush=True)
        print(job.result().stdout.decode(), end="")
