"""What Django's runserver serves: it reads the body, and says how long it was."""

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import re_path

settings.configure(
    DEBUG=False, SECRET_KEY="only-for-this-run", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, LOGGING_CONFIG=None
)


def answer(request):
    return HttpResponse(f"{len(request.body)}\n", content_type="text/plain")


urlpatterns = [re_path("", answer)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
