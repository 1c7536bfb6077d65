# An edge in a container, or a collector: docs/operations/start.md says how they are run, and deploy/compose.yaml runs both
# beside an API.
#
#   docker build -t edgeproxy .
#   docker run --read-only -v "$PWD/edge.yaml:/etc/edgeproxy/edge.yaml:ro" -v edge-state:/var/lib/edgeproxy \
#       -p 8080:8080 -p 127.0.0.1:9090:9090 --stop-timeout 40 edgeproxy
#   docker run --read-only -v "$PWD/collector.yaml:/etc/edgeproxy/collector.yaml:ro" -v ledger:/var/lib/edgeproxy \
#       -p 9100:9100 --stop-timeout 40 --health-cmd 'edgeproxy probe --admin 127.0.0.1:9100' \
#       edgeproxy collector -c /etc/edgeproxy/collector.yaml
#
# The official Python images are built with PGO and LTO, which makes a request some 7 % cheaper than a plain build;
# `./scripts/bench` prints a line on the build that it runs on.
#
# The digest is what counts: nobody can put another image in its place. It has to be renewed by hand, for Debian's and
# Python's security releases: docker buildx imagetools inspect python:3.11-slim-bookworm
ARG PYTHON=python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b

# What the build runs on. It need not be what the image is for: wheels for that are unpacked, and nothing of them is run.
ARG BUILD_PYTHON=${PYTHON}

# BuildKit sets both platforms. Builders without it (Docker's classic one, buildah and podman of Debian 12) use the defaults: buildah
# accepts no `linux` alone, Docker no empty platform. On arm64 they need build arguments (docs/operations/start.md). The last stage
# names its platform as well: buildah 1.28 would take that of the stage before.
#
# This stage has the headers of the Python that the image runs, if that is an official image. No command is run in it.
FROM --platform=${TARGETPLATFORM:-linux/amd64} ${PYTHON} AS target

FROM --platform=${BUILDPLATFORM:-linux/amd64} ${BUILD_PYTHON} AS build
ARG TARGETARCH
# `edge` leaves out what only collectors need: an image that runs nothing but edges, beacons and probes.
ARG REQUIREMENTS=run
# `pure` leaves out the compiled modules (docs/start/compiled.md).
ARG BUILD=compiled
WORKDIR /src
# Wheels of others bring what debuggers read: a quarter of what is installed, and of no use to whom it serves. For another kind of
# processor there is a cross compiler. Debian's Python has its headers in a package, for each kind of processor.
RUN native=$(dpkg --print-architecture) && target=${TARGETARCH:-$native} \
    && { [ "$target" = "$native" ] || dpkg --add-architecture "$target"; } \
    && case "$target" in "$native") compiler="gcc libc6-dev" ;; arm64) compiler="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;; *) compiler="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;; esac \
    && apt-get -q update && apt-get -q install --yes --no-install-recommends binutils-multiarch $compiler
COPY --from=target /usr/local/include /target/usr/include
RUN minor=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])') && cd /target \
    && { [ -e "usr/include/python$minor" ] || { apt-get -q download "libpython$minor-dev:${TARGETARCH:-$(dpkg --print-architecture)}" \
    && dpkg --extract libpython*.deb . ; }; }
COPY requirements/build.txt requirements/compiled.txt requirements/${REQUIREMENTS}.txt requirements/
# Commands, headers and C sources of others stay out, as does pip. So does Pillow, 8 MB compressed: PDFs have no images.
RUN machine=$(case ${TARGETARCH:-$(dpkg --print-architecture)} in arm64) echo aarch64 ;; *) echo x86_64 ;; esac) \
    && python3 -m venv /opt/build && python3 -m venv --without-pip /opt/edgeproxy \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.txt \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/compiled.txt \
    && /opt/build/bin/pip install --no-cache-dir --no-compile --require-hashes --requirement requirements/${REQUIREMENTS}.txt \
        --only-binary=:all: $(printf -- "--platform manylinux%s_$machine " 2014 _2_17 _2_28 _2_34) \
        --target /opt/edgeproxy/lib/python3*/site-packages \
    && cd /opt/edgeproxy/lib/python3*/site-packages && rm -rf bin include PIL pillow* \
    && if [ -d fontTools ]; then find fontTools -name '*.c' -delete; fi
COPY pyproject.toml setup.py README.md LICENSE ./
COPY edgeproxy edgeproxy
# deploy/compose.demo.yaml serves it.
COPY stripe_sandbox stripe_sandbox
# A wheel for the processor of the image. Python has the names of that processor from the environment, as for any cross build.
RUN machine=$(case ${TARGETARCH:-$(dpkg --print-architecture)} in arm64) echo aarch64 ;; *) echo x86_64 ;; esac) \
    && python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])') \
    && export CC=$machine-linux-gnu-gcc LDSHARED="$machine-linux-gnu-gcc -shared" _PYTHON_HOST_PLATFORM=linux-$machine \
        CFLAGS="-I/target/usr/include/python$python -I/target/usr/include" \
        SETUPTOOLS_EXT_SUFFIX=.cpython-$(echo "$python" | tr -d .)-$machine-linux-gnu.so \
    && case "$BUILD" in compiled) export EDGEPROXY_COMPILED=1 ;; pure) ;; *) echo "BUILD is compiled or pure" >&2; exit 1 ;; esac \
    && /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . ./stripe_sandbox
# The sandbox has the collector's fonts, 2 MB compressed, which the image has once.
# Bytecode is made here, as nothing can be written later, and by content: two builds of the same sources have the same files, whose
# times say nothing. Bytecode is of a Python, not of a processor.
RUN machine=$(case ${TARGETARCH:-$(dpkg --print-architecture)} in arm64) echo aarch64 ;; *) echo x86_64 ;; esac) \
    && packages=$(echo /opt/edgeproxy/lib/python3*/site-packages) \
    && /opt/build/bin/pip --python /opt/edgeproxy/bin/python install --no-cache-dir --no-compile --no-deps --no-index \
        --only-binary=:all: --platform "linux_$machine" --target "$packages" /wheels/*.whl \
    && mv "$packages"/bin/* /opt/edgeproxy/bin/ && rmdir "$packages/bin" \
    && ln -sfr "$packages"/edgeproxy/collector/billing/credits/fonts/*.ttf "$packages/stripe_sandbox/fonts/" \
    && PYTHONHASHSEED=0 /opt/edgeproxy/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/edgeproxy/lib \
    && find /opt/edgeproxy -name '*.so*' -type f -exec strip --strip-unneeded {} + \
    && install -d /image/etc/edgeproxy && install -d -m 0700 /state/edgeproxy
# What is for another kind of processor does not run here.
RUN native=$(dpkg --print-architecture) \
    && { [ "${TARGETARCH:-$native}" != "$native" ] || /opt/edgeproxy/bin/edgeproxy --version | grep --fixed-strings "($BUILD)"; }

# httpbin, an API to put the edge in front of: what `upstream` of deploy/compose.yaml serves. Not for production.
FROM ${PYTHON} AS upstream
COPY requirements/demo.txt requirements/demo.txt
RUN python3 -m venv /opt/upstream \
    && /opt/upstream/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement requirements/demo.txt
ENV PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 9001
HEALTHCHECK --interval=2s --timeout=5s --retries=5 CMD ["/opt/upstream/bin/python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9001/status/204', timeout=3)"]
ENTRYPOINT ["/opt/upstream/bin/gunicorn", "--bind", "0.0.0.0:9001", "--worker-class", "gthread", "--threads", "16", \
    "--keep-alive", "75", "--no-control-socket", "--worker-tmp-dir", "/dev/shm", "httpbin:app"]

# Holds the addresses of an edge of deploy/compose.yaml while its container is replaced.
FROM ${PYTHON} AS address
USER 65532:65532
STOPSIGNAL SIGKILL
ENTRYPOINT ["sleep", "infinity"]

# The edge, and the collector with another command; the last stage, so that it is what `docker build` makes.
FROM --platform=${TARGETPLATFORM:-linux/amd64} ${PYTHON} AS edge
# Root needs nothing but these. Numbers, not names, so that Kubernetes can tell that this is not root. No command is run: an
# image for another kind of processor is made without one.
COPY --from=build /image /
COPY --from=build --chown=65532:65532 /state /var/lib
COPY --from=build /opt/edgeproxy /opt/edgeproxy
ENV PATH=/opt/edgeproxy/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# Relative paths of a configuration are relative to here: `state: var/edge`, the default, is in the volume, and so is
# `database: sqlite:///var/collector/ledger.db`.
WORKDIR /var/lib/edgeproxy
USER 65532:65532
VOLUME /var/lib/edgeproxy
EXPOSE 8080 9090 9100
STOPSIGNAL SIGTERM
# Asks for readiness, not for the configuration: a file that somebody broke does not make a serving edge unhealthy.
# Where `admin` is another port than 9090, say so here: docker run --health-cmd 'edgeproxy probe --admin 127.0.0.1:9190'
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["edgeproxy", "probe", "--admin", "127.0.0.1:9090"]
# No shell and no init in between: the supervisor is process 1, gets the signals itself and waits for its workers.
ENTRYPOINT ["edgeproxy"]
CMD ["edge", "-c", "/etc/edgeproxy/edge.yaml"]
