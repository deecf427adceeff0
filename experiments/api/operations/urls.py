"""Addresses outside /api/v1/: health, metrics and the files of runs."""

from django.urls import path

from experiments.api.runs import files

from . import health

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    path("artifacts/<int:artifact_id>/", files.ArtifactFile.as_view(), name="artifact"),
]
