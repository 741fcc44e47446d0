"""The database's clock, which is the same for every node of the service."""

from datetime import UTC, datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models.functions import Now


class DatabaseNow(Now):
    """Django's `Now()`, on SQLite written as Django stores a time there: as text, which is compared as text."""

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        milliseconds = "STRFTIME('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f000', 'NOW')"
        return self.as_sql(compiler, connection, template=f"REPLACE({milliseconds}, '.000000', '')", **context)


NOW = {
    "postgresql": "SELECT statement_timestamp()",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}


def database_now(using: str = DEFAULT_DB_ALIAS) -> datetime:
    """Return the database's time. Costs a query: where one is made anyway, select `DatabaseNow()` with it."""
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(NOW[connection.vendor])
        [now] = cursor.fetchone()
    return now.astimezone(UTC) if isinstance(now, datetime) else datetime.fromisoformat(now).replace(tzinfo=UTC)
