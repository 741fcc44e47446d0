from records.audit.models import AuditEntry
from records.rest.filters import ChoiceFilter, InstantFilter, IntegerFilter, StrictFilterSet, TextFilter


class AuditEntryFilterSet(StrictFilterSet):
    user_id = IntegerFilter(help_text="Id of the user who acted, or whose login failed.")
    action = ChoiceFilter(choices=[(name, name) for name in AuditEntry.ACTIONS], help_text="What was done.")
    outcome = ChoiceFilter(choices=AuditEntry.Outcome.choices, help_text="Whether it succeeded.")
    object_type = TextFilter(help_text="What kind of row: `users`, `stocks`, …")
    object_id = TextFilter(help_text="Id of the row.")
    owner_id = IntegerFilter(help_text="Id of the user who owns the row.")
    request_id = TextFilter(help_text="All that one request, or one run of a command, did.")
    at__gte = InstantFilter(field_name="at", lookup_expr="gte", help_text="Done then or later.")
    at__lte = InstantFilter(field_name="at", lookup_expr="lte", help_text="Done then or earlier.")
