# Production: docker build .
# With the interactive docs: docker build --build-arg REQUIREMENTS=docs .
# With what keeps uploads in a bucket: docker build --build-arg REQUIREMENTS=s3 .
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS packages
ARG REQUIREMENTS=runtime
RUN python -m venv --without-pip /opt/venv
COPY requirements/${REQUIREMENTS}.txt /tmp/requirements.txt
# The lock is complete, so nothing is resolved; only wheels are installed, so nothing is built.
RUN --mount=type=cache,target=/var/.cache/pip \
    pip --disable-pip-version-check --cache-dir=/var/.cache/pip --python /opt/venv/bin/python install \
        --no-deps --only-binary=:all: --require-hashes --requirement /tmp/requirements.txt \
 && find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} +
RUN printf '#!/bin/sh\nexec python -m app "$@"\n' > /opt/venv/bin/app && chmod 755 /opt/venv/bin/app

FROM packages AS code
WORKDIR /srv
COPY alembic.ini gunicorn.conf.py ./
COPY migrations migrations
COPY plinth plinth
COPY app app
RUN python -m compileall -q .

FROM python:${PYTHON_VERSION}-slim
# Nothing is installed at run time, so neither the app nor an intruder can.
RUN python -c 'import pip, shutil; shutil.rmtree(pip.__path__[0])' \
 && rm -rf /usr/bin/pip* /usr/local/bin/pip* "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')/ensurepip" \
 && groupadd --gid 10001 service \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin service
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/srv \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    APP_ENV=production \
    HOST=0.0.0.0 \
    PORT=8000 \
    JOB_STATUS_FOLDER=/dev/shm/worker
WORKDIR /srv
COPY --from=packages /opt/venv /opt/venv
COPY --chmod=755 docker/entrypoint.sh docker/healthcheck.py /usr/local/bin/
COPY --from=code /srv /srv
# A new volume that is mounted there takes over its owner.
RUN install --directory --owner=10001 --group=10001 /var/lib/uploads
USER 10001:10001
EXPOSE 8000
# Liveness, not readiness: an orchestrator replaces unhealthy containers, which does not fix a database.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --start-interval=1s CMD ["healthcheck.py", "/health/live"]
ENTRYPOINT ["entrypoint.sh"]
CMD ["serve"]

ARG VERSION=0.0.0
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="Plinth" \
      org.opencontainers.image.description="A production-ready FastAPI service." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
