"""The calls under /api/v1/."""

from django.urls import path

from .experiments import experiments, presets, projects, reports
from .http import auth, not_found, schema
from .inspection import attention_maps, gradient_flow, linear_probes, questions
from .operations import drain, workers
from .runs import forks, outputs, runs
from .series import bands, export, series

urlpatterns = [
    path("auth/login/", auth.Login.as_view(), name="api-login"),
    path("auth/logout/", auth.Logout.as_view(), name="api-logout"),
    path("presets/", presets.PresetList.as_view(), name="api-presets"),
    path("presets/<str:name>/", presets.PresetDetail.as_view(), name="api-preset"),
    path("presets/<str:name>/verdict/", reports.PresetVerdict.as_view(), name="api-preset-verdict"),
    path("experiments/", experiments.ExperimentList.as_view(), name="api-experiments"),
    path("experiments/validate/", experiments.ExperimentValidate.as_view(), name="api-validate"),
    path("experiments/<int:experiment_id>/", experiments.ExperimentDetail.as_view(), name="api-experiment"),
    path(
        "experiments/<int:experiment_id>/cancel/", experiments.ExperimentCancel.as_view(), name="api-experiment-cancel"
    ),
    path("experiments/<int:experiment_id>/report/", reports.ExperimentReport.as_view(), name="api-experiment-report"),
    path("experiments/<int:experiment_id>/seeds/", reports.ExperimentSeeds.as_view(), name="api-experiment-seeds"),
    path("runs/", runs.RunList.as_view(), name="api-runs"),
    path("runs/<int:run_id>/", runs.RunDetail.as_view(), name="api-run"),
    path("runs/<int:run_id>/cancel/", runs.RunCancel.as_view(), name="api-run-cancel"),
    path("runs/<int:run_id>/retry/", runs.RunRetry.as_view(), name="api-run-retry"),
    path("runs/<int:run_id>/fork/", forks.RunFork.as_view(), name="api-run-fork"),
    path("runs/<int:run_id>/series/", series.RunSeries.as_view(), name="api-run-series"),
    path("runs/<int:run_id>/export/", export.RunExport.as_view(), name="api-run-export"),
    path("runs/<int:run_id>/predictions/", outputs.RunPredictions.as_view(), name="api-run-predictions"),
    path("runs/<int:run_id>/logs/", outputs.RunLogs.as_view(), name="api-run-logs"),
    path("runs/<int:run_id>/events/", outputs.RunEvents.as_view(), name="api-run-events"),
    path("runs/<int:run_id>/artifacts/", outputs.RunArtifacts.as_view(), name="api-run-artifacts"),
    path("runs/<int:run_id>/attention/", attention_maps.RunAttention.as_view(), name="api-run-attention"),
    path("runs/<int:run_id>/flow/", gradient_flow.RunFlow.as_view(), name="api-run-flow"),
    path("runs/<int:run_id>/probes/", linear_probes.RunProbes.as_view(), name="api-run-probes"),
    path("runs/<int:run_id>/questions/", questions.RunQuestions.as_view(), name="api-run-questions"),
    path("questions/<int:question_id>/", questions.QuestionDetail.as_view(), name="api-question"),
    path("projects/", projects.ProjectList.as_view(), name="api-projects"),
    path("projects/<str:name>/", projects.ProjectDetail.as_view(), name="api-project"),
    path("series/", series.SeriesPoints.as_view(), name="api-series"),
    path("series/groups/", bands.SeriesBands.as_view(), name="api-series-groups"),
    path("series/grid/", series.SeriesGrid.as_view(), name="api-series-grid"),
    path("workers/<int:worker_id>/drain/", drain.WorkerDrain.as_view(), name="api-worker-drain"),
    path("workers/<int:worker_id>/undrain/", drain.WorkerUndrain.as_view(), name="api-worker-undrain"),
    path("workers/", workers.WorkerList.as_view(), name="api-workers"),
    path("queue/", workers.QueueList.as_view(), name="api-queue"),
    path("schema/", schema.Document.as_view(), name="api-schema"),
    path("docs/", schema.Docs.as_view(), name="api-docs"),
    path("<path:rest>", not_found.NotFound.as_view()),
]
