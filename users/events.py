"""Events of accounts in the audit log."""

from django.contrib.auth import get_user_model

from records.audit.models import AuditEntry
from records.models.changes import Change


def record_event(action: str, user_id: int | None, outcome: str = "success") -> None:
    """Record an event of an account; `user_id` is None if the attempt matched no account."""
    AuditEntry.objects.record(get_user_model(), action, [Change(user_id, user_id)], outcome=outcome, user_id=user_id)
