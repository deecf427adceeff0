"""The web process: `gunicorn attnservice.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "attnservice.settings")
application = get_wsgi_application()
