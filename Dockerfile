# One image for worker, beat and Flower: what it does is its command. See docker-compose.yml and deploy/kubernetes/.
ARG PYTHON=3.13-slim

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
COPY requirements/runtime.lock requirements/traces.lock ./
# LOCK=traces: with what PERSONA_TRACES needs, too.
ARG LOCK=runtime
# Wheels only, each with the hash that the lock file names: nothing is compiled, and nothing else is fetched.
RUN /venv/bin/pip install --quiet --require-hashes --no-deps --only-binary :all: -r ${LOCK}.lock \
 && /venv/bin/pip uninstall --quiet --yes pip
# The sources as they are, not as a package: building one would fetch a build backend that no hash holds.
COPY persona_worker.py /app/
COPY pipeline /app/pipeline
COPY workers /app/workers
COPY --chmod=755 <<'END' /venv/bin/persona
#!/venv/bin/python
import sys

from persona_worker import main

sys.exit(main())
END
# What a package would say of itself: how a program without a worker finds the way to the nodes, and what Celery's program loads.
COPY --chmod=644 <<'END' /app/persona_worker.dist-info/entry_points.txt
[persona.announcers]
broker = workers.queue.broadcast:announcer_of

[celery.commands]
persona = persona_worker:celery_command
END
COPY --chmod=644 <<'END' /app/persona_worker.dist-info/METADATA
Metadata-Version: 2.4
Name: persona-worker
Version: 0.1.0
END
RUN /venv/bin/python -m compileall -q /app

FROM python:${PYTHON}
COPY --from=build /venv /venv
COPY --from=build /app /app
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
# By number, so that Kubernetes can see that it is not root. Nothing is written outside /tmp.
USER 10001:10001
CMD ["celery", "-A", "workers", "worker", "--pool=prefork", "--hostname=persona@%h", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
