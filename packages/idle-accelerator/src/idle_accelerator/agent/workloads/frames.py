"""What the agent and a function's process say to each other, over two pipes.

Each frame is a head (u32 length of the body, u8 kind) and a body; all numbers are little-endian. The agent sends one SETUP,
then CALLs; the process answers calls in the order in which they came. Whatever comes from the process is the word of a
stranger: see ``conversation`` for how it is read.
"""

from struct import Struct
from typing import Final

HEAD: Final = Struct("<IB")

# To the process.
SETUP: Final = 1
"""u32 length of a JSON object, that object, then the pickled function."""
CALL: Final = 2
"""CALL_BODY, then the pickled (args, kwargs)."""

# From the process.
RETURNED: Final = 16
"""ENDED_BODY, u8 1 for plain data or 2 for a pickle, then the result."""
STORED: Final = 17
"""ENDED_BODY, u8 as in RETURNED, u64 size: the result stands in the file ``places.result_name`` of the folder RESULTS."""
RAISED: Final = 18
"""ENDED_BODY, RAISED_BODY, then the three texts in UTF-8."""
REFUSED: Final = 19
"""ENDED_BODY, then the sentence in UTF-8: the result was no plain data, or could not be pickled or stored."""
OUTPUT: Final = 20
"""OUTPUT_BODY, then bytes that were written to one of the two streams."""
SHRUNK: Final = 21
"""u8 stream: its file begins anew at position 0."""
LEAVING: Final = 22
"""Empty: it was told to vacate, and leaves while no call is running."""

CALL_BODY: Final = Struct("<II")
"""task index, epoch"""
ENDED_BODY: Final = Struct("<IId")
"""task index, epoch, seconds that the call took"""
RAISED_BODY: Final = Struct("<BiIII")
"""1 when it was SystemExit with a number, that number, lengths in bytes of type name, text and traceback"""
OUTPUT_BODY: Final = Struct("<IIBQQ")
"""task index, epoch, stream (1 stdout, 2 stderr), offset within the call's stream, position in the stream's file"""

DATA: Final = 1
PICKLE: Final = 2
STDOUT: Final = 1
STDERR: Final = 2

SENT_LIMIT_BYTES: Final = 0xFFFF_FFFF
"""Longest body to the process: what u32 can say."""
RESULT_LIMIT_BYTES: Final = 256 * 1024
"""Longer results are left in a file."""
OUTPUT_LIMIT_BYTES: Final = 256 * 1024
"""Longest piece of output in one frame."""
KEPT_OUTPUT_BYTES: Final = 1024 * 1024
"""Of what a call has written to one stream since the last look, at most so much of the end is sent."""
ANSWER_LIMIT_BYTES: Final = 1024 * 1024
"""Longest body that is taken from the process."""
TYPE_NAME_LIMIT: Final = 300
TEXT_LIMIT: Final = 20_000
TRACEBACK_LIMIT: Final = 100_000
"""Characters, as in wire.payload.RemoteError."""

REPLIES_BYTES: Final = 64 * 1024
"""Size of the file, shared in memory, in which replies are gathered before they go through the pipe. They survive the process
in it, as it may be killed at any moment: u64 length, then that many bytes of frames."""
REPLIES_HEAD: Final = Struct("<Q")
