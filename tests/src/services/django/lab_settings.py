"""Settings as applications behind a proxy have them: HTTPS is what the proxy says it is."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
# Of the lab alone; it protects nothing.
SECRET_KEY = "of-the-lab-alone"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "lab_views"
WSGI_APPLICATION = "lab_wsgi.application"
INSTALLED_APPS = ["django.contrib.sessions"]
MIDDLEWARE = [
    "lab_views.Recorder",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
DATABASES = {}
SESSION_ENGINE = "django.contrib.sessions.backends.file"
SESSION_FILE_PATH = os.environ["LAB_FOLDER"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
DATA_UPLOAD_MAX_MEMORY_SIZE = None
USE_TZ = True
LOGGING_CONFIG = None
