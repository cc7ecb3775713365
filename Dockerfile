# syntax=docker/dockerfile:1
# Builds the controller with the plugins named in PLUGINS and runs it as an ordinary user.
#   docker build -t ha-controller .
#   docker run --network host -v /etc/ha-controller:/etc/ha-controller:ro -v ha-state:/var/lib/ha-controller ha-controller
ARG BASE=python:3.13-slim
FROM ${BASE} AS build
ARG PLUGINS="ipmi"
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY ha_controller ha_controller
COPY plugins plugins
RUN python -m venv /opt/ha-controller \
 && /opt/ha-controller/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
 && /opt/ha-controller/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && for plugin in ${PLUGINS}; do \
      /opt/ha-controller/bin/pip install --no-cache-dir --no-deps --no-build-isolation "./plugins/${plugin}" || exit 1; \
    done

FROM ${BASE}
LABEL org.opencontainers.image.title="ha-controller" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="High availability for OpenNebula"
COPY --from=build /opt/ha-controller /opt/ha-controller
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin ha-controller \
 && install -d -o ha-controller -m 0700 /var/lib/ha-controller \
 && install -d -o ha-controller -m 0750 /run/ha-controller
ENV PATH=/opt/ha-controller/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001
VOLUME /var/lib/ha-controller
STOPSIGNAL SIGTERM
# any answer of the controller is health: a cloud in trouble must not restart its controller
HEALTHCHECK --interval=30s --timeout=5s CMD ha-controller status >/dev/null; [ $? -ne 7 ]
ENTRYPOINT ["ha-controller"]
CMD ["serve"]
