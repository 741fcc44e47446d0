"""Requests that were refused (403), in the audit log: who tried what on which row."""

import logging
import time
from collections.abc import Callable
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

# Cap the entries of each caller so that an attacker cannot flood the audit log. The request log has every refusal.
MOST = 10

PERIOD = timedelta(minutes=15)

#: Action of a viewset → what the log calls it; every other one that writes is an update.
VIEWSET_ACTIONS = {
    "create": "create",
    "destroy": "delete",
    "end_all": "delete",
    "restore": "restore",
    "undo": "undo",
    "undo_request": "undo",
}

#: End of the name of an admin page → what the log calls it.
ADMIN_PAGES = {"password_change": "password_change", "_add": "create", "_delete": "delete", "logout": "logout"}

#: Action of an admin list → what the log calls it.
ADMIN_ACTIONS = {
    "delete_selected": "delete",
    "restore_selected": "restore",
    "undo_entries": "undo",
    "undo_requests": "undo",
    "end": "logout",
}


class RefusalMiddleware:
    """Records each 403, whoever answered so: the API, the admin or the CSRF check.

    It runs outside of the view and its transaction, which the refusal rolled back.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code == 403:
            try:
                record_refusal(request)
            except Exception:  # the answer is right without its entry, and the database or the cache may be down
                logger.exception("A refusal could not be recorded.")
        return response


class Target(NamedTuple):
    """What was tried: the action as the log calls it, on rows of `model`, and the key of the row as it was sent."""

    action: str
    model: type[models.Model]
    key: str | None = None


def record_refusal(request: HttpRequest) -> None:
    """Write a failure to the audit log, up to MOST of each caller in PERIOD."""
    # Without a CSRF token DRF takes the caller for nobody; the session still tells whose browser sent the request.
    caller = context.actor_id() or getattr(context.login_session(), "user_id", None)
    target = _target(request, caller)
    if target is None or not _has_room(caller):
        return
    model, change = _row(target)
    AuditEntry.objects.record(model, target.action, [change], outcome=AuditEntry.Outcome.FAILURE, user_id=caller)


def _has_room(user_id: int | None) -> bool:
    # All callers without an account are counted as one: addresses cost nothing.
    period = PERIOD.total_seconds()
    cache, key = caches["throttles"], f"refusals:{user_id or 'anonymous'}:{time.time() // period:.0f}"
    cache.add(key, 0, period)
    try:
        count = cache.incr(key)
    except ValueError:  # expired between the two
        return True
    if count == MOST + 1:
        logger.warning("User %s was refused often: further refusals are in the request log only.", user_id or "-")
    return count <= MOST


def _target(request: HttpRequest, caller: int | None) -> Target | None:
    """Return what the request was about; None if its failure is recorded elsewhere or it reached no view."""
    match = request.resolver_match
    if match is None:
        return None
    view_class, model_admin = getattr(match.func, "cls", None), _model_admin(match.func)
    if model_admin is not None:
        return _admin_target(request, match, model_admin.model)
    if view_class is not None and not view_class.authentication_classes:
        return None  # signing in and the like, which record their own failures
    if getattr(view_class, "queryset", None) is not None:
        return _viewset_target(request, match)
    page = str(match.url_name or "")
    action = next((name for end, name in ADMIN_PAGES.items() if page.endswith(end)), "update")
    action = _unless_read(request, action)
    return Target(action, get_user_model(), str(caller) if caller and action != "view" else None)


def _model_admin(view: Any) -> Any:
    """Return the ModelAdmin that serves a page: Django names it on the view, but not on the password form."""
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
    action = next((name for end, name in ADMIN_PAGES.items() if page.endswith(end)), "update")
    if page.endswith("changelist") and request.method == "POST":
        action = ADMIN_ACTIONS.get(request.POST.get("action", ""), "update")
        selected = request.POST.getlist("_selected_action")
        key = selected[0] if len(selected) == 1 else None
    return Target(_unless_read(request, action), model, unquote(key) if key else None)


def _unless_read(request: HttpRequest, action: str) -> str:
    return "view" if request.method in SAFE_METHODS else action


def _row(target: Target) -> tuple[type[models.Model], Change]:
    """Return the row that exists by this key, and whose it is; for an entry of the log the row that it is about."""
    model: Any = target.model
    owned_by = getattr(model, "owned_by", None)
    is_undone = target.action == "undo"  # the row that counts is the one that the entry is about
    columns = ["object_type", "object_id", "owner_id"] if is_undone else ["pk", owned_by or "pk"]
    try:
        key = model._meta.pk.to_python(target.key) if target.key else None
        rows = getattr(model, "all_objects", model._default_manager)
        found = rows.filter(pk=key).values_list(*columns).first() if key is not None else None
    except (ValidationError, ValueError, OverflowError, DataError):
        found = None  # no row can have it
    if found is None:
        return model, Change(None)
    if is_undone:
        kinds = {kind._meta.db_table: kind for kind in apps.get_models()}
        return kinds.get(found[0], model), Change(*found[1:])
    return model, Change(found[0], found[1] if owned_by else None)
