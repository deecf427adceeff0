# Two images from one file: `server` (web, reconciler, migrations; no torch) and `worker` (with torch).
#
#   docker build --target server -t attnservice .
#   docker build --target worker -t attnservice-worker .

FROM node:22-bookworm-slim AS scripts
WORKDIR /scripts
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
 && mkdir vendor \
 && cp node_modules/echarts/dist/echarts.esm.min.mjs node_modules/htmx.org/dist/htmx.esm.js vendor/

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    DJANGO_SETTINGS_MODULE=attnservice.settings ATTN_DATA=/data ATTN_ARTIFACTS=/artifacts ATTN_STATIC=/app/static
WORKDIR /app
RUN useradd --system --uid 10001 --home-dir /data attn && install -d -o attn -g attn /data /artifacts
# Packages first, so that a change of code does not install them again. The lock is the constraint: exact versions of
# just what the image's extras ask for.
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN mkdir attnservice experiments workers && touch attnservice/__init__.py experiments/__init__.py workers/__init__.py

FROM base AS server
RUN pip install --constraint requirements.lock --editable .
COPY . .
COPY --from=scripts /scripts/vendor .vendor/vendor
RUN ATTN_INSECURE_KEY=1 python manage.py collectstatic --noinput --verbosity 0
USER attn
EXPOSE 8000
CMD ["python", "-m", "gunicorn", "--config", "python:attnservice.web_server", "--bind", "0.0.0.0:8000", "attnservice.wsgi"]

FROM base AS worker
RUN pip install --constraint requirements.lock --editable '.[worker]'
COPY . .
USER attn
STOPSIGNAL SIGTERM
CMD ["python", "-m", "celery", "-A", "attnservice.celery", "worker", "-c", "1", "-Q", "cpu", "-n", "cpu@%h", "--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"]
