"""A model of transformers in the form and in REST."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client

from experiments.models import Experiment, Project

pytestmark = pytest.mark.django_db
CONFIG = {"model_type": "gpt2", "n_embd": 16}


@pytest.fixture
def signed_in(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("a", "a@b.c", "p"))
    Project.objects.get_or_create(name="default")
    return client


def test_a_configuration_typed_into_the_form_is_kept_and_shown_again(signed_in: Client) -> None:
    form = {
        "source": "form",
        "name": "tiny gpt",
        "project": "default",
        "seeds": "0",
        "priority": "0",
        "spec.task": "hf",
        "spec.data.dataset": "text",
        "spec.model.config": json.dumps(CONFIG),
        "spec.model.path": "",
    }
    assert signed_in.post("/experiments/new/", form).status_code == 302
    made = Experiment.objects.get()
    assert made.spec["model"] == {"config": CONFIG, "path": None, "frozen": []}
    again = signed_in.get(f"/experiments/new/?from={made.pk}").content.decode()
    assert "{&quot;model_type&quot;: &quot;gpt2&quot;, &quot;n_embd&quot;: 16}" in again


def test_a_matrix_varies_the_configuration_and_its_size_is_left_to_the_library(signed_in: Client) -> None:
    spec = {"task": "hf", "data": {"dataset": "text"}, "model": {"config": CONFIG}}
    body = {"name": "sizes", "spec": spec, "matrix": {"model.config.n_embd": [16, 32]}}
    answer = signed_in.post("/api/v1/experiments/validate/", json.dumps(body), content_type="application/json")
    assert answer.status_code == 200
    assert answer.json()["count"] == 2
    assert answer.json()["parameters"] is None
