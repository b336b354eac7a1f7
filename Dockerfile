# syntax=docker/dockerfile:1
FROM python:3.11.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CACHE_DIR=/pip
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY tradeback ./tradeback
# The environment has no pip of its own: nothing installs anything in the running image.
RUN --mount=type=cache,target=/pip python -m venv --without-pip /opt/tradeback \
 && pip --python /opt/tradeback/bin/python install -c constraints.txt '.[influx,redis,nats,mysql]'
# Kernels for any CPU of this architecture: the cache must be good on the machine that runs the image. Not in
# /src: `python -m` would take the sources there, and a cache belongs to the files that it was made from.
WORKDIR /opt/tradeback
ENV NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES="" TRADEBACK_CACHE_DIR=/opt/tradeback/cache
RUN bin/python -m tradeback.warm

FROM python:3.11.13-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/tradeback --create-home tradeback \
 && mkdir /var/lib/tradeback/data && chown tradeback:tradeback /var/lib/tradeback/data
COPY --from=build --chown=tradeback:tradeback /opt/tradeback /opt/tradeback
ENV PATH=/opt/tradeback/bin:$PATH PYTHONUNBUFFERED=1 \
    NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES="" TRADEBACK_CACHE_DIR=/opt/tradeback/cache \
    SERVER_HOST=0.0.0.0 SERVER_PORT=8080 DATA_DIR=/var/lib/tradeback/data
USER tradeback
WORKDIR /var/lib/tradeback
VOLUME /var/lib/tradeback/data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"SERVER_PORT\"]}/api/v1/health/live', timeout=2)"]
ENTRYPOINT ["tradeback"]
CMD ["run"]
