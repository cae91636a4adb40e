# A wheel of the app and its dependencies, in a virtual environment that a bound home folder cannot reach.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/app
# The dependencies first: a change of the code or of a text does not install them again.
COPY pyproject.toml /src/
COPY sodium_prep/__init__.py /src/sodium_prep/__init__.py
RUN touch /src/README.md /src/LICENSE \
 && /opt/app/bin/pip install "/src[siemens]" \
 && /opt/app/bin/pip uninstall --yes sodium-prep
COPY README.md LICENSE /src/
COPY sodium_prep /src/sodium_prep
COPY workflows /src/workflows
RUN /opt/app/bin/pip install --no-deps /src \
 && /opt/app/bin/pip uninstall --yes pip setuptools \
 && cd /opt/app/lib/python3.11/site-packages \
 && find networkx pandas scipy sklearn statsmodels -type d -name tests -prune -exec rm -rf {} + \
 && /opt/app/bin/python -m compileall -q /opt/app/lib

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="sodium_prep" \
      org.opencontainers.image.description="BIDS App for sodium MRI of the brain: regional total sodium concentration" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/app /opt/app
# Any user id, no home, a read-only root: all that is written goes to /out, /work and /tmp.
ENV PATH=/opt/app/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    MPLBACKEND=Agg \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NIPYPE_NO_ET=1 \
    NUMBA_DISABLE_JIT=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    MKL_NUM_THREADS=1
RUN mkdir -p /data /out /work && chmod 1777 /out /work
WORKDIR /work
ENTRYPOINT ["sodium-prep"]
