"""Query sets whose SQL is compiled once for each shape of a query.

Django takes longer to build and compile a small query than the database takes to run it. A query set from `compiled()`
records the operations on it instead of applying them. When it is evaluated, the operations without their values are the
shape of the query. The ORM compiles one statement for each shape; later evaluations run it with their own values.

Django remains the only author of SQL, and the statement depends on nothing but the recorded operations: two queries
share one only if every filter, order, column and lock is the same. What cannot be recorded is done by Django as usual.
"""

from records.db.compiled.parameters import Parameter, ParametrizedExpression
from records.db.compiled.querysets import CompilableQuerySet, compiled_rows

__all__ = ["CompilableQuerySet", "Parameter", "ParametrizedExpression", "compiled_rows"]
