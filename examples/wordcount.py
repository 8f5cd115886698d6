r"""The words of a directory of text files, counted by one call of a function for each file.

    .venv/bin/python examples/wordcount.py           on Windows: .venv\Scripts\python examples\wordcount.py

Without the name of a directory it counts this repository's docs. Start a pool first: python3 run.py up. Your own
machine is in use while you sit at it; to lend it all the same: python3 run.py idlectl lend --for 10m"""

import re
import sys
from collections import Counter
from pathlib import Path

from idle_accelerator import Client


def count(text: str) -> Counter[str]:
    return Counter(re.findall(r"[^\W\d_]{4,}", text.lower()))


folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs"
files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".md", ".txt")]
texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
words: Counter[str] = Counter()
with Client() as client:
    for path, found in zip(files, client.map(count, texts), strict=True):
        words.update(found)
        print(f"{sum(found.values()):6} words in {path.relative_to(folder)}", flush=True)
print("most common:", *(f"{times:6} x {word}" for word, times in words.most_common(10)), sep="\n")
