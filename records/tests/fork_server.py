"""A process that has imported libraries that need no settings, and runs each command in a fork of itself.

It reads one command per line as JSON and writes its exit code: `[["manage.py", "check"], cwd, environment, out, err]`.
"""

import gc
import json
import os
import runpy
import sys
import traceback
from importlib import import_module

LIBRARIES = (
    "authlib.integrations.django_client",
    "django.contrib.admin",
    "django.contrib.staticfiles.finders",
    "django.core.management",
    "django.db.backends.postgresql.base",
    "django.db.backends.sqlite3.base",
    "django.db.migrations",
    "django.test",
    "django_filters",
    "environ",
    "jsonschema",
    "jwt",
    "rest_framework.serializers",
    "whitenoise.middleware",
)
for library in LIBRARIES:
    import_module(library)

gc.collect()
gc.freeze()  # so that collections in a fork do not copy these pages
for line in sys.stdin:
    command, folder, environment, *outputs = json.loads(line)
    pid = os.fork()
    if pid == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()

for number, path in enumerate([os.devnull, *outputs]):
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
os.chdir(folder)
os.environ.clear()
os.environ.update(environment)
sys.argv = command
sys.path[0] = "" if command[0] == "-c" else folder
code: object = 0
try:
    if command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(command[1], {"__name__": "__main__"})
    else:
        runpy.run_path(command[0], run_name="__main__")
except SystemExit as error:
    code = error.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
except BaseException:
    traceback.print_exc()
    code = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(code if isinstance(code, int) else int(code is not None))  # without tearing down what is shared by the forks
