"""Property tests here have no deadline: a slow machine is not a wrong rule."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("rules", deadline=None, print_blob=True)
settings.load_profile("rules")
