"""The permissions that users hold, directly or through groups."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db.models import Exists, OuterRef, Q, QuerySet


def permissions_of(user: Any) -> QuerySet[Permission]:
    """Return the permissions that were granted to this user, directly or through groups."""
    direct, through_groups = (grants(user.pk).values("permission") for grants in (_direct_grants, _group_grants))
    return Permission.objects.filter(Q(pk__in=direct) | Q(pk__in=through_groups))


def exceeds(user: Any) -> Q:
    """Return the condition for users who are superusers or hold a permission that `user` lacks."""
    # Two subqueries, because one join over both tables multiplies the members of large groups.
    lacking = [
        Exists(grants.exclude(permission__in=permissions_of(user).values("pk")))
        for grants in (_direct_grants(OuterRef("pk")), _group_grants(OuterRef("pk")))
    ]
    return Q(is_superuser=True) | lacking[0] | lacking[1]


def _direct_grants(user: Any) -> QuerySet[Any]:
    """Return a row for each permission that was granted to this user directly."""
    model: Any = get_user_model()
    grants: QuerySet[Any] = model.user_permissions.through._default_manager.filter(user=user)
    return grants


def _group_grants(user: Any) -> QuerySet[Any]:
    """Return a row for each permission that this user has through a group."""
    grants: QuerySet[Any] = Group.permissions.through._default_manager.filter(group__user=user)
    return grants
