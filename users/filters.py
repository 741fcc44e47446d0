import django_filters

from records.rest.filters import AnyCaseFilter, BooleanFilter, IntegerFilter, SoftDeletableFilterSet, TextFilter
from users.models import User


class UserFilterSet(SoftDeletableFilterSet):
    username = AnyCaseFilter(help_text="Exactly this username, ignoring case.")
    email = AnyCaseFilter(help_text="Exactly this address, ignoring case.")
    gender = django_filters.ChoiceFilter(choices=User.Gender.choices, help_text="`Male` or `Female`.")
    age = IntegerFilter(help_text="Exactly this age.")
    age__gte = IntegerFilter(field_name="age", lookup_expr="gte", help_text="This age or older.")
    age__lte = IntegerFilter(field_name="age", lookup_expr="lte", help_text="This age or younger.")
    is_active = BooleanFilter(help_text="Whether the account can be used.")
    is_verified = BooleanFilter(help_text="Whether the address is verified.")
    is_staff = BooleanFilter(help_text="Whether the user may use the admin site.")
    is_superuser = BooleanFilter(help_text="Whether every permission is granted.")
    oauth_provider = TextFilter(help_text="Provider the account was created through.")
