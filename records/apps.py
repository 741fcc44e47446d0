from django.apps import AppConfig
from django.conf import settings
from django.db.backends.signals import connection_created
from django.db.models import CharField, TextField
from django.db.models.functions import Lower, Upper


def echo_sql(connection, **kwargs) -> None:
    # Django logs statements only where it is told to record them.
    connection.force_debug_cursor = True


def know_every_letter(connection, **kwargs) -> None:
    """SQLite's own UPPER knows ASCII only. No index rests on it, as one does on LOWER."""
    if connection.vendor == "sqlite":
        connection.connection.create_function("UPPER", 1, lambda text: text and str(text).upper(), deterministic=True)


class RecordsConfig(AppConfig):
    name = "records"

    def ready(self) -> None:
        # `username__lower="ada"` meets the index behind a Lower(...) constraint; `__iexact` compares in upper case.
        CharField.register_lookup(Lower)
        TextField.register_lookup(Lower)
        CharField.register_lookup(Upper)
        TextField.register_lookup(Upper)
        connection_created.connect(know_every_letter)
        if settings.SQL_ECHO:
            connection_created.connect(echo_sql)
