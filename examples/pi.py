r"""Pi by throwing darts: an array of 16 tasks of a plain program, which finds its number in IDLE_TASK_INDEX.

    .venv/bin/python examples/pi.py                  on Windows: .venv\Scripts\python examples\pi.py

Start a pool first: python3 run.py up. Your own machine is in use while you sit at it; to lend it all the same:
python3 run.py idlectl lend --for 10m. The program needs Python on the PATH of nodes with your operating system."""

import sys

from idle_accelerator import Client

TASKS, DARTS = 16, 200_000
SYSTEM = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
PYTHON = "python" if SYSTEM == "windows" else "python3"
PROGRAM = f"""
import os, random
draw = random.Random(int(os.environ["IDLE_TASK_INDEX"])).random
print(sum(draw() ** 2 + draw() ** 2 < 1 for _ in range({DARTS})))
"""

hits = 0
with Client() as client:
    job = client.submit([PYTHON, "-c", PROGRAM], array=TASKS, os=SYSTEM, name="Monte-Carlo pi")
    print(f"submitted {job.id}; waiting for {TASKS} tasks ...", flush=True)
    for done, task in enumerate(job.as_finished(), start=1):
        if task.state != "SUCCEEDED":
            sys.exit(f"task {task.index}: {task.reason.sentence if task.reason else task.state}")
        hits += int(job.logs(task=task.index))
        print(f"  {done:2} of {TASKS} on {task.node_name}: pi is {4 * hits / (done * DARTS):.5f}", flush=True)
