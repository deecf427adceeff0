"""Where each address leads: pages, REST, admin, health."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("api/v1/", include("experiments.api.urls")),
    path("admin/", admin.site.urls),
    path("", include("experiments.api.operations.urls")),
    path("", include("experiments.pages.urls")),
]

handler500 = "experiments.api.http.failures.server_error"
