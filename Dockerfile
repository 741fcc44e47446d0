# Two stages: what builds stays behind, the image that runs holds the packages and the code.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
COPY requirements.txt .
RUN /venv/bin/pip install -r requirements.txt
WORKDIR /app
COPY . .
# As at every start, where it then finds nothing to do.
RUN /venv/bin/python manage.py shell -c "from config.management.commands.serve import Command; Command().collect_static()" \
    && rm -rf var/secret_key var/db.sqlite3*

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
