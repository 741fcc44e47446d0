from users.models.identity import Identity
from users.models.managers import LAST_SUPERUSER_MESSAGE, UserManager, UserQuerySet
from users.models.permissions import permissions_of
from users.models.queued_mail import QueuedMail
from users.models.rate_limit import Limit, RateLimit
from users.models.session import Session
from users.models.spent_token import SpentToken
from users.models.user import GRANTS, PROFILE, User

__all__ = [
    "GRANTS",
    "LAST_SUPERUSER_MESSAGE",
    "PROFILE",
    "Identity",
    "Limit",
    "QueuedMail",
    "RateLimit",
    "Session",
    "SpentToken",
    "User",
    "UserManager",
    "UserQuerySet",
    "permissions_of",
]
