"""Hearing what other hosts have changed: what is known of it, and the thread that listens."""

from __future__ import annotations

from accelerator.invalidation.listener import Listener

__all__ = ["Listener"]
