"""Who may act: an owner on their own rows, staff by Django's model permissions. Who may see is `visible_to`."""

from typing import Any

from rest_framework.permissions import SAFE_METHODS, IsAuthenticated

#: What an action of a viewset needs of Django's model permissions. Reads need none: rows that are out of sight are 404.
VERBS = {"create": "add", "update": "change", "partial_update": "change", "destroy": "delete", "restore": "change"}


class RecordPermission(IsAuthenticated):
    """Owners may do the view's `owner_actions` to their rows; everything else takes the model permission.

    Without an account one may read what is public.
    """

    def has_permission(self, request: Any, view: Any) -> bool:
        reads = request.method in SAFE_METHODS and getattr(view.model, "is_public", False)
        if not reads and not super().has_permission(request, view):
            return False
        verb = view.verb()
        is_owners = view.model.owned_by is not None and view.action in view.owner_actions
        return view.detail or verb is None or is_owners or request.user.may(verb, view.model)

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        verb = view.verb()
        if verb is None:
            return True
        owned_by = view.model.owned_by
        is_owner = owned_by is not None and getattr(obj, owned_by, None) == request.user.pk
        return (is_owner and view.action in view.owner_actions) or request.user.may(verb, view.model)
