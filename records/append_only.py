"""The former place of these names, which migrations import."""

from records.audit.append_only import AppendOnly, CheckPurges

__all__ = ["AppendOnly", "CheckPurges"]
