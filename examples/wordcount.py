r"""The words of a directory of text files, counted by one call of a function for each file.

    .venv/bin/python examples/wordcount.py docs      on Windows: .venv\Scripts\python examples\wordcount.py docs

Start a pool first: python3 run.py up. Your own machine is in use while you sit at it; to lend it all the same:
python3 run.py idlectl lend --for 10m
"""

import re
import sys
from collections import Counter
from pathlib import Path

from idle_accelerator import Client


def count(text: str) -> Counter[str]:
    return Counter(re.findall(r"[^\W\d_]{4,}", text.lower()))


folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".md", ".txt")]
texts = [path.read_text(encoding="utf-8") for path in files]
print(f"counting the words of {len(texts)} files …", flush=True)
with Client() as client:
    words = sum(map(Counter, client.map(count, texts)), Counter[str]())
for word, times in words.most_common(10):
    print(f"{times:6}  {word}")
