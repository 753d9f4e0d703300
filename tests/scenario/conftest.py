"""The pieces of the main job are scripts, not a package; the scenarios use them as they are."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
