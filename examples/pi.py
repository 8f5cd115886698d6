r"""π by throwing darts: an array of 16 tasks of a plain program, each with its own index as seed.

    .venv/bin/python examples/pi.py                  on Windows: .venv\Scripts\python examples\pi.py

Start a pool first: python3 run.py up. Your own machine is in use while you sit at it; to lend it all the same:
python3 run.py idlectl lend --for 10m. The program is any program: this one needs python3 on the nodes' PATH.
"""

from idle_accelerator import Client

TASKS, DARTS = 16, 200_000
PROGRAM = f"""
import os, random
draw = random.Random(int(os.environ["IDLE_TASK_INDEX"])).random
print(sum(draw() ** 2 + draw() ** 2 < 1 for _ in range({DARTS})))
"""

with Client() as client:
    job = client.submit(["python3", "-c", PROGRAM], array=TASKS, name="Monte-Carlo pi")
    print(f"submitted {job.id}; waiting for {TASKS} tasks …", flush=True)
    hits = 0
    for done, task in enumerate(job.as_finished(), start=1):
        hits += int(job.logs(task=task.index))
        print(f"  {done:2} of {TASKS} from {task.node_name}: π ≈ {4 * hits / (done * DARTS):.5f}", flush=True)
