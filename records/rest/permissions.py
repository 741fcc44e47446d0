"""Who may act on rows: their owner, and staff with Django's model permissions. `visible_to` decides who sees them."""

from typing import Any

from rest_framework.permissions import SAFE_METHODS, IsAuthenticated

#: Action of a viewset → verb of the model permission that it needs. Reads need none: invisible rows are 404.
VERBS = {
    "create": "add",
    "update": "change",
    "partial_update": "change",
    "bulk_update": "change",
    "destroy": "delete",
    "bulk_destroy": "delete",
    "restore": "change",
}
#: Actions on many rows → the action on one row: who may take one may take the other.
SINGLE_ACTIONS = {"bulk_update": "partial_update", "bulk_destroy": "destroy"}


class RecordPermission(IsAuthenticated):
    """Owners may take the view's `owner_actions` on their rows; everything else needs the model permission.

    Everyone may read public rows.
    """

    def has_permission(self, request: Any, view: Any) -> bool:
        is_public_read = request.method in SAFE_METHODS and getattr(view.model, "is_public", False)
        if not is_public_read and not super().has_permission(request, view):
            return False
        verb = view.required_verb()
        is_owner_action = view.model.owned_by is not None and _is_owner_action(view)
        return view.detail or verb is None or is_owner_action or request.user.may(verb, view.model)

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        verb = view.required_verb()
        if verb is None:
            return True
        owned_by = view.model.owned_by
        is_owner = owned_by is not None and getattr(obj, owned_by, None) == request.user.pk
        return (is_owner and _is_owner_action(view)) or request.user.may(verb, view.model)


def _is_owner_action(view: Any) -> bool:
    return SINGLE_ACTIONS.get(view.action, view.action) in view.owner_actions
