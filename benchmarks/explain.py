"""Print the query plans of one case.

python benchmarks/explain.py "stocks: price range sort name"
python benchmarks/explain.py --list
python benchmarks/explain.py --path "/api/v1/stocks?search=zz" [--as owner]
"""

import argparse
import sys

from cases import Case, Personas, all_cases
from django.db import connection
from lists import recorded_statements


def explain(case: Case, personas: Personas) -> None:
    client = personas.client(case.persona)
    path = personas.path(case)
    client.get(path)
    with recorded_statements() as recorder:
        response = client.get(path)
    print(f"{case.name}: GET {path} as {case.persona} → {response.status_code}")
    keyword = "EXPLAIN (ANALYZE, BUFFERS)" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    for sql, params in recorder.statements:
        if not sql.startswith("SELECT") or 'FROM "sessions"' in sql:
            continue
        print(f"\n{sql}\n  with {params}\n")
        with connection.cursor() as cursor:
            cursor.execute(f"{keyword} {sql}", params)
            for line in cursor.fetchall():
                print("  ", line[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="?", help="the name of a case")
    parser.add_argument("--list", action="store_true", help="print the names of all cases")
    parser.add_argument("--path", help="the path of another GET request")
    parser.add_argument("--as", dest="persona", default="superuser", choices=["superuser", "owner"])
    options = parser.parse_args()
    cases = {case.name: case for case in all_cases()}
    if options.list:
        print("\n".join(cases))
    elif options.path:
        explain(Case("custom", options.persona, options.path.replace("{", "{{").replace("}", "}}")), Personas())
    elif options.case in cases:
        explain(cases[options.case], Personas())
    else:
        sys.exit("There is no such case. Use --list to print all names.")


if __name__ == "__main__":
    main()
