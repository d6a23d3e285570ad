"""Views as rich renderables. They return; the command line prints."""

from __future__ import annotations

from hftrace.render.screen import screen

__all__ = ["screen"]
