# Two stages: the build tools stay in the first, and the image has the packages and the code only.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
# The packages of the service in the versions of requirements.txt, which also lists those of the test suite.
COPY requirements.in requirements.txt ./
RUN /venv/bin/pip install -r requirements.in -c requirements.txt
WORKDIR /app
COPY . .
# `serve` collects static files too if they have changed; here it is done once, so that containers start faster.
RUN /venv/bin/python manage.py shell -c "from config.management.commands.serve import Command; Command().collect_static()" \
    && rm -rf var/secret_key var/db.sqlite3* \
    # A container writes no bytecode, and compiling would take a fifth of each start.
    && /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash config records users stocks

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin stocks
COPY --from=build /venv /venv
COPY --from=build --chown=stocks:stocks /app /app
WORKDIR /app
USER stocks
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT', '8000')}/health/ready\", timeout=2)"]
CMD ["python", "manage.py", "serve", "--host", "0.0.0.0"]
