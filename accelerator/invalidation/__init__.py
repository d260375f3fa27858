"""Hearing what other hosts have changed: what is known of each area, and the thread that listens."""

from __future__ import annotations

from accelerator.invalidation.listener import Listener

__all__ = ["Listener"]
