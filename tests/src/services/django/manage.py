"""The development server's way in."""

import os
import sys

from django.core.management import execute_from_command_line

os.environ["DJANGO_SETTINGS_MODULE"] = "lab_settings"
execute_from_command_line(sys.argv)
