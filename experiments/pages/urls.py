"""Addresses of the pages. All but the log-in need one."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views.generic import RedirectView

from . import (
    compare,
    experiments,
    forks,
    histograms,
    home,
    machines,
    new_experiment,
    projects,
    report,
    run,
    runs,
    session,
)

urlpatterns = [
    path("login/", session.Login.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("favicon.ico", RedirectView.as_view(url="/static/attn/icon.svg")),
    path("", login_required(home.home), name="home"),
    path("experiments/", login_required(experiments.experiment_list), name="experiment-list"),
    path("experiments/new/", login_required(new_experiment.new), name="experiment-new"),
    path("experiments/new/check/", login_required(new_experiment.check), name="experiment-check"),
    path("experiments/new/editor/", login_required(new_experiment.editor), name="experiment-editor"),
    path("experiments/<int:pk>/", login_required(experiments.experiment_page), name="experiment"),
    path("experiments/<int:pk>/cancel/", login_required(experiments.experiment_cancel), name="experiment-cancel"),
    path("experiments/<int:pk>/report/", login_required(report.experiment_report), name="experiment-report"),
    path("experiments/<int:pk>/seeds/", login_required(report.experiment_seeds), name="experiment-seeds"),
    path("runs/", login_required(runs.run_list), name="run-list"),
    path("runs/<int:pk>/", login_required(run.run_page), name="run"),
    path("runs/<int:pk>/live/", login_required(run.run_live), name="run-live"),
    path("runs/<int:pk>/panels/", login_required(run.run_panels), name="run-panels"),
    path("runs/<int:pk>/predictions/", login_required(run.run_predictions), name="run-predictions"),
    path("runs/<int:pk>/histograms/", login_required(histograms.run_histograms), name="run-histograms"),
    path("runs/<int:pk>/log/", login_required(run.run_log), name="run-log"),
    path("runs/<int:pk>/events/", login_required(run.run_events), name="run-events"),
    path("runs/<int:pk>/cancel/", login_required(run.run_cancel), name="run-cancel"),
    path("runs/<int:pk>/fork/", login_required(forks.run_fork), name="run-fork"),
    path("runs/<int:pk>/retry/", login_required(run.run_retry), name="run-retry"),
    path("runs/<int:pk>/delete/", login_required(run.run_delete), name="run-delete"),
    path("projects/", login_required(projects.project_list), name="project-list"),
    path("projects/<slug:name>/", login_required(projects.project_page), name="project"),
    path("compare/", login_required(compare.compare), name="compare"),
    path("workers/", login_required(machines.workers_page), name="workers"),
    path("workers/<int:pk>/drain/", login_required(machines.drain), name="worker-drain"),
]
