"""Audit entries for refused requests (403): the user, the action and the row."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from django.apps import apps
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.exceptions import ValidationError
from django.db import DataError, models
from django.http import HttpRequest, HttpResponse
from rest_framework.permissions import SAFE_METHODS

from records import context
from records.audit.models import AuditEntry
from records.models.changes import Change

logger = logging.getLogger(__name__)

# Cap the entries of each user so that an attacker cannot flood the audit log. The request log has every refusal.
MAX_ENTRIES = 10

PERIOD = timedelta(minutes=15)

#: Action of a viewset → action of the entry; other writes are updates.
VIEWSET_ACTIONS = {
    "create": "create",
    "destroy": "delete",
    "bulk_destroy": "delete",
    "end_all": "delete",
    "restore": "restore",
    "undo": "undo",
    "undo_request": "undo",
}

#: End of the name of an admin page → action of the entry.
ADMIN_PAGES = {"password_change": "password_change", "_add": "create", "_delete": "delete", "logout": "logout"}

#: Action of an admin list → action of the entry.
ADMIN_ACTIONS = {
    "delete_selected": "delete",
    "restore_selected": "restore",
    "undo_entries": "undo",
    "undo_requests": "undo",
    "end": "logout",
}


class RefusalMiddleware:
    """Record each 403 of the API, the admin and the CSRF check.

    It runs outside of the transaction of the view, which is rolled back.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        # Set by writes of many rows, of which some may be refused.
        keys = getattr(request, "refused_keys", [])
        if (response.status_code == 403 or keys) and "X-Dry-Run" not in response.headers:
            try:
                record_refusal(request, keys)
            except Exception:  # the response is valid without the entry, and the database or the cache may be down
                logger.exception("A refusal could not be recorded.")
        return response


class Target(NamedTuple):
    """The action of an entry, the model, and the key of the row as it was sent."""

    action: str
    model: type[models.Model]
    key: str | None = None


def record_refusal(request: HttpRequest, keys: Sequence[Any] = ()) -> None:
    """Write a failure to the audit log for each key, by default that of the path.

    Each user gets up to MAX_ENTRIES in PERIOD.
    """
    # Without a CSRF token DRF sets an anonymous user, but the session identifies the browser.
    user_id = context.actor_id() or getattr(context.login_session(), "user_id", None)
    target = _target(request, user_id)
    if target is None:
        return
    for key in list(keys)[: MAX_ENTRIES + 1] or [target.key]:
        if _is_capped(user_id):
            return
        model, change = _row(target._replace(key=None if key is None else str(key)))
        AuditEntry.objects.record(model, target.action, [change], outcome=AuditEntry.Outcome.FAILURE, user_id=user_id)


def _is_capped(user_id: int | None) -> bool:
    # All anonymous users share one counter, because addresses are cheap.
    period = PERIOD.total_seconds()
    cache, key = caches["default"], f"refusals:{user_id or 'anonymous'}:{time.time() // period:.0f}"
    cache.add(key, 0, period)
    try:
        count = cache.incr(key)
    except ValueError:  # the counter expired in between
        return False
    if count == MAX_ENTRIES + 1:
        logger.warning("User %s was refused often: further refusals are in the request log only.", user_id or "-")
    return count > MAX_ENTRIES


def _target(request: HttpRequest, user_id: int | None) -> Target | None:
    """Return the target of the request; None if its failure is recorded elsewhere or it reached no view."""
    match = request.resolver_match
    if match is None:
        return None
    view_class, model_admin = getattr(match.func, "cls", None), _model_admin(match.func)
    if model_admin is not None:
        return _admin_target(request, match, model_admin.model)
    if view_class is not None and not view_class.authentication_classes:
        return None  # the endpoints of accounts, which record their failures
    if getattr(view_class, "queryset", None) is not None:
        return _viewset_target(request, match)
    action = _unless_read(request, _page_action(str(match.url_name or "")))
    return Target(action, get_user_model(), str(user_id) if user_id and action != "view" else None)


def _page_action(name: str) -> str:
    return next((action for end, action in ADMIN_PAGES.items() if name.endswith(end)), "update")


def _model_admin(view: Any) -> Any:
    """Return the ModelAdmin of a page. Django sets it on every view but the password form."""
    while view is not None:
        model_admin = getattr(view, "model_admin", None) or getattr(view, "__self__", None)
        if hasattr(model_admin, "model"):
            return model_admin
        view = getattr(view, "__wrapped__", None)
    return None


def _viewset_target(request: HttpRequest, match: Any) -> Target:
    options = match.func.initkwargs
    viewset = options.get("resource") or match.func.cls
    name = match.func.actions.get((request.method or "").lower(), "")
    action = VIEWSET_ACTIONS.get(name, "update")
    if name == "destroy" and request.GET.get("permanent", "").lower() == "true":
        action = "purge"
    is_row = options.get("detail") or "resource" in options
    return Target(_unless_read(request, action), viewset.queryset.model, match.kwargs.get("id") if is_row else None)


def _admin_target(request: HttpRequest, match: Any, model: type[models.Model]) -> Target:
    page = match.url_name
    key = match.kwargs.get("object_id") or match.kwargs.get("id")
    action = _page_action(page)
    if page.endswith("changelist") and request.method == "POST":
        action = ADMIN_ACTIONS.get(request.POST.get("action", ""), "update")
        selected = request.POST.getlist("_selected_action")
        key = selected[0] if len(selected) == 1 else None
    return Target(_unless_read(request, action), model, unquote(key) if key else None)


def _unless_read(request: HttpRequest, action: str) -> str:
    return "view" if request.method in SAFE_METHODS else action


def _row(target: Target) -> tuple[type[models.Model], Change]:
    """Return the model, key and owner of the row; for an undo, of the row that the entry is about."""
    model: Any = target.model
    owned_by = getattr(model, "owned_by", None)
    is_undone = target.action == "undo"
    columns = ["object_type", "object_id", "owner_id"] if is_undone else ["pk", owned_by or "pk"]
    try:
        key = model._meta.pk.to_python(target.key) if target.key else None
        rows = getattr(model, "all_objects", model._default_manager)
        row = rows.filter(pk=key).values_list(*columns).first() if key is not None else None
    except (ValidationError, ValueError, OverflowError, DataError):
        row = None  # no row can have this key
    if row is None:
        return model, Change(None)
    if is_undone:
        models_by_table = {kind._meta.db_table: kind for kind in apps.get_models()}
        return models_by_table.get(row[0], model), Change(*row[1:])
    return model, Change(row[0], row[1] if owned_by else None)
