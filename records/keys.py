"""The former place of this name, which migrations import."""

from records.db.keys import uuid7

__all__ = ["uuid7"]
