# syntax=docker/dockerfile:1
# The controller and the plugins that PLUGINS names (empty: every one), as an ordinary user, on a root that may be read-only.
#   docker build --build-arg PLUGINS="ipmi redfish messages" --tag ha-controller:0.1.0 .
# How it is run: packaging/container/compose.yaml and docs/container.md.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ARG PLUGINS="ipmi messages"
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY packaging/build-wheels packaging/sbom.py packaging/
COPY ha_controller ha_controller
COPY plugins plugins
# our wheels first, with the locked flit_core and nothing else
RUN python3 -m venv /tools \
 && sed -n '/^flit-core==/,/^[a-z]/{/^flit-core==/p;/^ /p}' requirements.lock > /flit.lock \
 && /tools/bin/pip install --no-cache-dir --require-hashes -r /flit.lock \
 && PYTHON=/tools/bin/python packaging/build-wheels /wheels ${PLUGINS}
# then the locked packages from the index, and ours from the folder only
RUN python3 -m venv --without-pip /opt/ha-controller \
 && /tools/bin/pip --python /opt/ha-controller/bin/python install --no-cache-dir --require-hashes -r requirements.lock \
 && /tools/bin/pip --python /opt/ha-controller/bin/python install --no-cache-dir --no-index --no-deps /wheels/*.whl \
 && /tools/bin/pip --python /opt/ha-controller/bin/python check \
 && find /opt/ha-controller -name direct_url.json -delete \
 && /opt/ha-controller/bin/python packaging/sbom.py > /opt/ha-controller/sbom.cdx.json
COPY packaging/container/healthcheck.py /opt/ha-controller/healthcheck.py

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="ha-controller" \
      org.opencontainers.image.description="High availability for OpenNebula hosts" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/ha-controller /opt/ha-controller
RUN groupadd --gid 10001 ha-controller \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ha-controller \
 && install -d -o ha-controller -g ha-controller -m 0700 /var/lib/ha-controller \
 && install -d -o ha-controller -g ha-controller -m 0750 /run/ha-controller \
 && install -d -o ha-controller -g ha-controller -m 0750 /etc/ha-controller /etc/ha-controller/secrets
ENV PATH=/opt/ha-controller/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /var/lib/ha-controller
STOPSIGNAL SIGTERM
# whether rounds of decisions end, not whether the cloud is well: a cloud in trouble must not restart its controller
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["/opt/ha-controller/bin/python", "/opt/ha-controller/healthcheck.py"]
ENTRYPOINT ["ha-controller"]
CMD ["serve"]
