"""Identifiers: a letter for the noun, then 16 random characters of base32 (80 bits).

Random from the first character on, so a few characters are a unique prefix for people.
"""

from typing import Annotated, NamedTuple

from pydantic import Field

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
RANDOM_LENGTH = 16
MAX_TASKS = 1_000_000
"""Of one job."""
MAX_EPOCH = 2**31

JobId = Annotated[str, Field(pattern=r"^j[a-z2-7]{16}$", examples=["jx3k7q2m5w4t6rab2"])]
NODE_ID_PATTERN = r"^n[a-z2-7]{16}$"
NodeId = Annotated[str, Field(pattern=NODE_ID_PATTERN, examples=["nb7c2k5q6w3x4zab2"])]
Digest = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the content, lower-case hex.",
        examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    ),
]


def from_random(letter: str, random_bytes: bytes) -> str:
    """An id out of at least 10 random bytes, which the caller draws."""
    number = int.from_bytes(random_bytes[:10], "big")
    return letter + "".join(ALPHABET[(number >> (5 * place)) & 31] for place in range(RANDOM_LENGTH))


class AttemptRef(NamedTuple):
    """Names one attempt: the epoch fences it, since every lease of a task raises the task's epoch by one."""

    job_id: str
    task_index: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.job_id}.{self.task_index}.{self.epoch}"
