"""Actors at their end. The board's process imports this module, so it imports nothing large."""

from __future__ import annotations

from typing import Any

import ray


def end_actor(actor: Any) -> None:
    """End an actor. Without a connection there is nothing to end, and `ray.kill` would start a cluster of its own."""
    if ray.is_initialized():
        ray.kill(actor)
