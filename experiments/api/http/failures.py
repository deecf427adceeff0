"""A fault that no view handles: a problem under /api/, a page elsewhere. 503 where waiting or making room helps."""

from __future__ import annotations

import errno
import sqlite3
import sys
from http import HTTPStatus

import orjson
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from .problems import PROBLEM, Problem

RETRY_S = 5
_FULL = {errno.ENOSPC, errno.EDQUOT}
_SQLITE = {
    sqlite3.SQLITE_BUSY: "the database is locked by another writer; try again",
    sqlite3.SQLITE_FULL: "the disk of the database is full; the operator has to make room",
    sqlite3.SQLITE_READONLY: "the database cannot be written to; the operator has to check its permissions",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened; the operator has to check the data folder",
    sqlite3.SQLITE_IOERR: "the disk of the database fails; the operator has to check it",
}


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's `handler500`: called while the error is being handled, after it was logged."""
    reason = why_unavailable(sys.exc_info()[1])
    status = 503 if reason else 500
    if request.path.startswith("/api/"):
        detail = reason or "the service failed; the error is in its log"
        problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
        reply = HttpResponse(orjson.dumps(problem.model_dump()), status=status, content_type=PROBLEM)
    else:
        reply = render(request, f"{status}.html", {"reason": reason}, status=status)
    if reason:
        reply["Retry-After"] = str(RETRY_S)
    return reply


def why_unavailable(error: BaseException | None) -> str:
    """What keeps the service from answering now, and what helps; empty where it is a fault in the code."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return "the disk is full; the operator has to make room"
    if not isinstance(error, OperationalError | InterfaceError):
        return ""
    cause = error.__cause__
    if not isinstance(cause, sqlite3.Error):
        disk_full = getattr(cause, "sqlstate", None) == "53100"
        return _SQLITE[sqlite3.SQLITE_FULL] if disk_full else "the database does not answer; try again"
    return _SQLITE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF, "")
