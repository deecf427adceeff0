"""Settings of every process: web, reconciler and workers. All limits can be set by environment."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF
from django.urls import reverse_lazy

from attnservice.env import BadSetting, flag, text, whole
from attnservice.storage_url import blocks_storage

BASE_DIR = Path(__file__).resolve().parent.parent
ATTN_DATA = Path(os.environ.get("ATTN_DATA", BASE_DIR / ".data")).resolve()

# --- Safety ---------------------------------------------------------------------------------------
DEBUG = flag("ATTN_DEBUG", False)
SECRET_KEY = text("ATTN_SECRET_KEY")
if not SECRET_KEY:
    _kept = ATTN_DATA / "secret-key"  # `make run` writes it; see attnservice.local
    if _kept.exists():
        SECRET_KEY = _kept.read_text().strip()
    elif DEBUG or flag("ATTN_INSECURE_KEY", False):
        SECRET_KEY = "insecure-key-for-tests-and-debugging-only-" + "x" * 20
    else:
        raise BadSetting("ATTN_SECRET_KEY is not set: give a random string of 50 characters or more")
ALLOWED_HOSTS = [host for host in text("ATTN_HOSTS", "localhost,127.0.0.1,[::1]").split(",") if host]
CSRF_TRUSTED_ORIGINS = [origin for origin in text("ATTN_ORIGINS").split(",") if origin]
ATTN_HTTPS = flag("ATTN_HTTPS", False)  # behind TLS: secure cookies, HSTS, redirect
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = ATTN_HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if ATTN_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = ATTN_HTTPS
if flag("ATTN_BEHIND_PROXY", False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]  # probes speak plain HTTP inside the cluster
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_AGE = 14 * 24 * 3600

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:", "blob:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
    }
}
# The admin theme's Alpine evaluates expressions and one of its templates has an inline script.
ATTN_ADMIN_CSP = {"script-src": [SELF, "'unsafe-eval'", "'unsafe-inline'"], "style-src": [SELF, "'unsafe-inline'"]}

# --- Applications ---------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "knox",
    "axes",
    "csp",
    "django_prometheus",
    "experiments",
]
MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "experiments.pages.http.middleware.AdminPolicy",
    "axes.middleware.AxesMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
ROOT_URLCONF = "attnservice.urls"
WSGI_APPLICATION = "attnservice.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- Database -------------------------------------------------------------------------------------
# SQLite: WAL lets readers read during a write, IMMEDIATE makes a writer wait instead of failing in mid-transaction.
# NORMAL may lose the last commits on power failure, never on a killed process.
SQLITE_SYNCHRONOUS = text("ATTN_SQLITE_SYNCHRONOUS", "NORMAL")


def _database(url: str) -> dict[str, Any]:
    database: dict[str, Any] = {**dj_database_url.parse(url, conn_max_age=60, conn_health_checks=True)}
    if database["ENGINE"].endswith("sqlite3"):
        database["ENGINE"] = "attnservice.sqlite"  # throttles writers
        database["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": f"PRAGMA journal_mode=WAL;PRAGMA synchronous={SQLITE_SYNCHRONOUS};PRAGMA cache_size=-65536",
        }
        # A file database in tests too: real processes share it.
        database["TEST"] = {"NAME": os.environ.get("ATTN_TEST_SQLITE", "/tmp/attn-test.sqlite3")}
    else:
        database.setdefault("OPTIONS", {})["connect_timeout"] = 5
    return database


DATABASES = {"default": _database(text("DATABASE_URL") or f"sqlite:///{ATTN_DATA / 'attnservice.sqlite3'}")}
if text("DATABASE_REPLICA_URL"):  # for points of series; see attnservice.replica
    DATABASES["replica"] = _database(text("DATABASE_REPLICA_URL"))
    DATABASE_ROUTERS = ["attnservice.replica.Router"]
    MIDDLEWARE.insert(0, "attnservice.replica.Reading")

# --- Queue ----------------------------------------------------------------------------------------
REDIS_URL = text("REDIS_URL", "redis://127.0.0.1:6379/0")
ATTN_LEASE_S = whole("ATTN_LEASE_S", 60, least=1)  # how long a worker keeps its run without a heartbeat
ATTN_BEAT_S = whole("ATTN_BEAT_S", 15, least=1)  # how often it renews
ATTN_RECONCILE_S = whole("ATTN_RECONCILE_S", 5, least=1)
ATTN_DB_OUTAGE_S = whole("ATTN_DB_OUTAGE_S", 600)
ATTN_CRASH_LIMIT = whole("ATTN_CRASH_LIMIT", 3, least=1)
ATTN_BACKOFF_S = whole("ATTN_BACKOFF_S", 5)  # doubled by every further crash in a row
ATTN_PROJECT_RUNNING = whole("ATTN_PROJECT_RUNNING", 0)  # runs of one project at once; 0: no limit
ATTN_SHARE_HALF_LIFE_S = whole("ATTN_SHARE_HALF_LIFE_S", 6 * 3600, least=1)  # of a project's recent usage
ATTN_QUEUE_PATIENCE_S = whole("ATTN_QUEUE_PATIENCE_S", 24 * 3600)  # after which any run counts as urgent
ATTN_GRACE_S = whole("ATTN_GRACE_S", 45, least=3)  # from a worker's SIGTERM to its end at the latest
ATTN_STOP_GRACE_S = whole("ATTN_STOP_GRACE_S", ATTN_GRACE_S * 2 // 3)  # a trainer that was told to stop, before SIGKILL
if ATTN_STOP_GRACE_S >= ATTN_GRACE_S:
    raise BadSetting(f"ATTN_STOP_GRACE_S={ATTN_STOP_GRACE_S}: must be less than ATTN_GRACE_S={ATTN_GRACE_S}")
for _name, _seconds in (("ATTN_BEAT_S", ATTN_BEAT_S), ("ATTN_RECONCILE_S", ATTN_RECONCILE_S)):
    if _seconds * 2 > ATTN_LEASE_S:
        raise BadSetting(f"{_name}={_seconds}: must be at most half of ATTN_LEASE_S={ATTN_LEASE_S}")

# --- Limits ---------------------------------------------------------------------------------------
ATTN_WRITERS_AT_ONCE = whole("ATTN_WRITERS_AT_ONCE", 1, least=1)  # large writes to PostgreSQL
ATTN_MAX_RUNS = whole("ATTN_MAX_RUNS", 1000, least=1)  # runs that one experiment may expand to
ATTN_MAX_SERIES_RUNS = whole("ATTN_MAX_SERIES_RUNS", 100, least=1)  # runs in one /series/ request
ATTN_MAX_POINTS = whole("ATTN_MAX_POINTS", 100_000, least=4)  # points a series in one reply
ATTN_MAX_REPLY_POINTS = whole("ATTN_MAX_REPLY_POINTS", 5_000_000, least=4)  # points of all series in one reply
ATTN_MAX_LOG_BYTES = whole("ATTN_MAX_LOG_BYTES", 10 * 2**20)  # kept log of one attempt
ATTN_MAX_SERIES = whole("ATTN_MAX_SERIES", 20_000, least=1)  # names of series of one run
ATTN_MAX_ARTIFACTS = whole("ATTN_MAX_ARTIFACTS", 10_000, least=1)  # files of one run, checkpoints aside
ATTN_MAX_ARTIFACTS_MB = whole("ATTN_MAX_ARTIFACTS_MB", 10 * 1024, least=1)
ATTN_QUESTION_S = whole("ATTN_QUESTION_S", 30, least=1)  # how long a question to a checkpoint may take
ATTN_OPEN_QUESTIONS = whole("ATTN_OPEN_QUESTIONS", 20, least=1)  # that one person may have at a time
ATTN_QUESTION_KEEP_H = whole("ATTN_QUESTION_KEEP_H", 24, least=1)
ATTN_MAX_ANSWER_BYTES = whole("ATTN_MAX_ANSWER_BYTES", 4 * 2**20, least=1024)
DATA_UPLOAD_MAX_MEMORY_SIZE = whole("ATTN_MAX_BODY_BYTES", 2 * 2**20)

# --- Files ----------------------------------------------------------------------------------------
ATTN_SCRATCH = Path(os.environ.get("ATTN_SCRATCH", ATTN_DATA / "scratch"))
ATTN_DATA_ROOT = Path(os.environ.get("ATTN_DATA_ROOT", ATTN_DATA / "datasets"))  # files that specs may name
ATTN_MODELS_ROOT = Path(os.environ.get("ATTN_MODELS_ROOT", ATTN_DATA / "models"))  # weights that specs may name
MEDIA_ROOT = Path(os.environ.get("ATTN_ARTIFACTS", ATTN_DATA / "artifacts"))
_local_files: dict[str, Any] = {"BACKEND": "attnservice.storage.DurableFiles"}
_bucket_files: dict[str, Any] = {
    "BACKEND": "storages.backends.s3.S3Storage",
    "OPTIONS": {
        "bucket_name": text("ATTN_S3_BUCKET"),
        "endpoint_url": text("ATTN_S3_ENDPOINT") or None,
        "access_key": text("ATTN_S3_ACCESS_KEY") or None,
        "secret_key": text("ATTN_S3_SECRET_KEY") or None,
        "file_overwrite": True,
    },
}
STORAGES = {
    "default": _bucket_files if text("ATTN_S3_BUCKET") else _local_files,
    "staticfiles": {"BACKEND": "attnservice.static.ModuleManifestStorage"},
}
# Where exact values of ended runs are archived: s3://bucket/prefix or file:///folder; empty: they stay in the database.
ATTN_BLOCKS_STORAGE = text("ATTN_BLOCKS_STORAGE")
ATTN_BLOCKS_MIN_KB = whole("ATTN_BLOCKS_MIN_KB", 64, least=0)  # smaller blocks stay
ATTN_BLOCKS_AFTER_S = whole("ATTN_BLOCKS_AFTER_S", 3600, least=0)  # since the run ended
if ATTN_BLOCKS_STORAGE:
    STORAGES["blocks"] = blocks_storage(ATTN_BLOCKS_STORAGE, _bucket_files["OPTIONS"])
STATIC_URL = "static/"
STATIC_ROOT = Path(os.environ.get("ATTN_STATIC", ATTN_DATA / "static"))
ATTN_VENDOR = BASE_DIR / ".vendor"  # ECharts and htmx, laid out by the Makefile from node_modules
STATICFILES_DIRS = [ATTN_VENDOR] if ATTN_VENDOR.is_dir() else []
WHITENOISE_KEEP_ONLY_HASHED_FILES = False

# --- People ---------------------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = reverse_lazy("login")
LOGIN_REDIRECT_URL = reverse_lazy("home")
LOGOUT_REDIRECT_URL = LOGIN_URL
AXES_FAILURE_LIMIT = whole("ATTN_LOGIN_ATTEMPTS", 10, least=1)
AXES_COOLOFF_TIME = timedelta(minutes=whole("ATTN_LOGIN_COOLOFF_MIN", 15, least=1))
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "429.html"

# --- REST -----------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "experiments.api.http.tokens.Token",  # first, so that an anonymous call is answered 401 and not 403
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["experiments.api.http.renderers.Json"],
    "DEFAULT_PARSER_CLASSES": ["experiments.api.http.renderers.BoundedJson"],
    "DEFAULT_SCHEMA_CLASS": "experiments.api.http.schema.Schema",
    "EXCEPTION_HANDLER": "experiments.api.http.problems.handle",
    "URL_FORMAT_OVERRIDE": None,  # calls define `?format=` themselves
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "attnservice",
    "DESCRIPTION": "Attention experiments: submit, watch, compare.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
}
REST_KNOX = {
    "TOKEN_TTL": timedelta(hours=whole("ATTN_TOKEN_HOURS", 24 * 30, least=1)),
    "AUTO_REFRESH": False,
}
ATTN_METRICS_TOKEN = text("ATTN_METRICS_TOKEN")  # lets a scraper read /metrics; empty: staff only
UNFOLD = {"SITE_TITLE": "attnservice", "SITE_HEADER": "attnservice", "SITE_URL": "/"}

# --- The rest -------------------------------------------------------------------------------------
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
_LINES = "json" if flag("ATTN_LOG_JSON", False) else "line"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
        "json": {"()": "attnservice.logs.Json"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": _LINES}},
    "root": {"handlers": ["console"], "level": text("ATTN_LOG_LEVEL", "INFO")},
    "loggers": {"axes": {"level": "WARNING"}, "django.request": {"level": "ERROR"}},
}
