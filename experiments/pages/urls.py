"""URLs of the pages. All but the sign-in require a signed-in user."""

from __future__ import annotations

from django.urls import path
from django.views.generic import RedirectView

from experiments.pages.http.address import checked, page

from . import experiments, home, projects, report, workers
from .http import session
from .new_experiment import views as new_experiment
from .runs import compare, forks, histograms, run, table

urlpatterns = [
    path("login/", checked(session.login), name="login"),
    path("logout/", checked(session.logout), name="logout"),
    path("favicon.ico", RedirectView.as_view(url="/static/attn/icon.svg")),
    path("", page(home.home), name="home"),
    path("experiments/", page(experiments.experiment_list), name="experiment-list"),
    path("experiments/new/", page(new_experiment.new), name="experiment-new"),
    path("experiments/new/check/", page(new_experiment.check), name="experiment-check"),
    path("experiments/new/editor/", page(new_experiment.editor), name="experiment-editor"),
    path("experiments/<int:pk>/", page(experiments.experiment_page), name="experiment"),
    path("experiments/<int:pk>/cancel/", page(experiments.experiment_cancel), name="experiment-cancel"),
    path("experiments/<int:pk>/report/", page(report.experiment_report), name="experiment-report"),
    path("experiments/<int:pk>/seeds/", page(report.experiment_seeds), name="experiment-seeds"),
    path("runs/", page(table.run_list), name="run-list"),
    path("runs/<int:pk>/", page(run.run_page), name="run"),
    path("runs/<int:pk>/live/", page(run.run_live), name="run-live"),
    path("runs/<int:pk>/panels/", page(run.run_panels), name="run-panels"),
    path("runs/<int:pk>/predictions/", page(run.run_predictions), name="run-predictions"),
    path("runs/<int:pk>/histograms/", page(histograms.run_histograms), name="run-histograms"),
    path("runs/<int:pk>/log/", page(run.run_log), name="run-log"),
    path("runs/<int:pk>/events/", page(run.run_events), name="run-events"),
    path("runs/<int:pk>/cancel/", page(run.run_cancel), name="run-cancel"),
    path("runs/<int:pk>/fork/", page(forks.run_fork), name="run-fork"),
    path("runs/<int:pk>/retry/", page(run.run_retry), name="run-retry"),
    path("runs/<int:pk>/delete/", page(run.run_delete), name="run-delete"),
    path("projects/", page(projects.project_list), name="project-list"),
    path("projects/<slug:name>/", page(projects.project_page), name="project"),
    path("compare/", page(compare.compare), name="compare"),
    path("workers/", page(workers.workers_page), name="workers"),
    path("workers/<int:pk>/drain/", page(workers.drain), name="worker-drain"),
]
