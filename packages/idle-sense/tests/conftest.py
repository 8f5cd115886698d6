"""Lets tests import what stands beside this file: fake servers that several folders use."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
