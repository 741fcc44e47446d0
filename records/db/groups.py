"""Reading a sorted list from many ranges of one index.

An index over a column, a sort key and the primary key holds the rows of each value of the column in the order of the
sort. A list of the rows with some of the values merges the starts of these ranges. PostgreSQL's planner does not: it
reads the index of the sort until enough rows match, and reads all of it if they come last.
"""

from collections.abc import Sequence
from typing import Any

from django.db import connections
from django.db.models import Expression, F, Field, QuerySet, Subquery
from django.db.models.fields.json import JSONField
