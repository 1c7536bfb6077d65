# Scheduled jobs in a cluster (docs/operations/kubernetes.md): the image of the edge with the programs of PostgreSQL and AWS,
# and the packages for Parquet exports.
#
#   docker build -f deploy/jobs.Dockerfile --build-arg EDGEPROXY=registry.example.com/edgeproxy@sha256:… \
#       --build-arg POSTGRESQL=15 -t edgeproxy-jobs .
#
# POSTGRESQL is the version of the database; Debian's release must have it.
ARG EDGEPROXY
FROM ${EDGEPROXY}
ARG POSTGRESQL=15
USER root
COPY requirements/parquet.txt /opt/edgeproxy/requirements/
# PostgreSQL refuses to run as a user without a name. pip is removed after its use.
RUN apt-get -q update \
    && apt-get -q install --yes --no-install-recommends postgresql-${POSTGRESQL} awscli \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && useradd --uid 65532 --home-dir /tmp --no-create-home jobs \
    && python3 -m venv /opt/pip \
    && /opt/pip/bin/pip --python /opt/edgeproxy/bin/python install --no-cache-dir --no-compile --require-hashes \
        --requirement /opt/edgeproxy/requirements/parquet.txt \
    && rm -rf /opt/pip
COPY deploy/job deploy/restore /opt/edgeproxy/deploy/
USER 65532:65532
HEALTHCHECK NONE
ENTRYPOINT ["/opt/edgeproxy/deploy/job"]
CMD []
