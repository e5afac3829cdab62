"""Everything that knows Celery. `celery -A workers worker|beat|flower|inspect` finds the app here."""
