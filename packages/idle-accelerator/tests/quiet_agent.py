"""A real agent for which nothing but keyboard, mouse and terminals counts as use: what else runs on the machine of a test is not the
owner's. ``python quiet_agent.py URL DATA_DIR [busy|pieces] [alone]``.

``busy``: its event loop is held for 0.3 s at a time by one call, ``pieces``: by many short ones. ``alone``: without the watch.
"""

import asyncio
import dataclasses
import hashlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from idle_accelerator.agent import app, config
from idle_accelerator.agent.config import AgentConfig
from idle_accelerator.agent.owner_file import OwnerFile
from idle_accelerator.agent.session import Session
from idle_accelerator.agent.watcher import Watcher
from idle_sense import Policy

HELD_S = 0.3


def policy() -> Policy:
    return dataclasses.replace(
        Policy.desktop(),
        input_idle_s=3.0,
        grace_s=0.1,
        grace_cap_s=0.2,
        pace_s=0.0,
        watch_calls=False,
        watch_media=False,
        watch_fullscreen=False,
        watch_gpu=False,
        cpu_busy_ratio=1.0,
        cpu_free_ratio=1.0,
        disk_busy_bytes_per_s=1e15,
        disk_free_bytes_per_s=1e15,
        network_busy_bytes_per_s=1e15,
        network_free_bytes_per_s=1e15,
        memory_short_ratio=0.0,
        memory_free_ratio=0.0,
        stall_busy_ratio=1.0,
        stall_free_ratio=1.0,
        lend_on_metered=True,
        hot_c=1000.0,
        cool_c=1000.0,
    )


async def hold(kind: str) -> None:
    """As an agent that hashes and decodes much: all but no time for anything else."""
    grants = [{"index": index, "epoch": 1, "arguments": "x" * 50} for index in range(1000)]
    whole = json.dumps([grants] * 60)
    while True:
        ends_s = time.monotonic() + HELD_S
        while time.monotonic() < ends_s:
            if kind == "busy":
                json.loads(whole)
            else:
                hashlib.sha256(json.dumps(json.loads(json.dumps(grants))).encode()).hexdigest()
        await asyncio.sleep(0.001)


def main(url: str, data_dir: str, *options: str) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    config._POLICIES["desktop"] = policy
    holding = next((option for option in options if option in ("busy", "pieces")), None)
    run = Session.run

    async def run_held(self: Session) -> None:
        task = None if holding is None else asyncio.create_task(hold(holding))
        try:
            await run(self)
        finally:
            if task is not None:
                task.cancel()

    Session.run = run_held
    if "alone" in options:
        Watcher.serves = property(lambda self: False)  # type: ignore[assignment]
    directory = Path(data_dir)
    directory.mkdir(parents=True, exist_ok=True)
    terms = OwnerFile(directory / "owner.toml")
    values: dict[str, Any] = {"sandbox": "process", "cpus": 8.0, **terms.values()}
    return app.run_agent(
        AgentConfig(
            scheduler_url=url,
            data_dir=directory,
            name=directory.name,
            owner_file=terms,
            **values,
        )
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
