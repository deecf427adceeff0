"""Logging in. After too many failures django-axes answers with 429.html instead."""

from __future__ import annotations

from django.contrib.auth.views import LoginView


class Login(LoginView):
    template_name = "pages/login.html"
    redirect_authenticated_user = True
