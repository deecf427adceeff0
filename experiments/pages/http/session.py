"""Sign-in and sign-out. After too many failures django-axes answers with 429.html instead."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView

from .address import Address, takes


class LoginAddress(Address):
    next: str | None = None


class Login(LoginView):
    template_name = "pages/login.html"
    redirect_authenticated_user = True


login = takes(LoginAddress)(Login.as_view())
logout = takes(LoginAddress)(LogoutView.as_view())
