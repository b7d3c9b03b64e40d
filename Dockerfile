# syntax=docker/dockerfile:1
# CUDA (the default): docker build -t clr .
# CPU:                docker build -t clr --build-arg EXTRA_INDEX=<index of torch's CPU wheels> .
# By hashes:          make lock, then the same with --build-arg LOCK=requirements.txt
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG EXTRA_INDEX=
ARG LOCK=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/clr
WORKDIR /src
COPY pyproject.toml constraints.txt requirements*.txt README.md LICENSE ./
COPY clr clr
COPY service service
COPY worker worker
COPY migrations migrations
# With a lock nothing is installed whose hash it does not hold; what it holds must suffice for what follows.
RUN if [ -n "$LOCK" ]; then /opt/clr/bin/pip install --require-hashes -r "$LOCK" \
        ${EXTRA_INDEX:+--extra-index-url "$EXTRA_INDEX"}; fi \
    && /opt/clr/bin/pip install ${LOCK:+--no-index --no-build-isolation} \
        ${EXTRA_INDEX:+--extra-index-url "$EXTRA_INDEX"} -c constraints.txt '.[server,worker]'
RUN python -m venv /opt/sbom \
    && /opt/sbom/bin/pip install -c constraints.txt cyclonedx-bom \
    && /opt/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
        -o /opt/clr/sbom.json /opt/clr/bin/python

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 1000 clr \
    && install --directory --owner=clr --group=clr /var/lib/clr
COPY --from=build /opt/clr /opt/clr
ENV PATH=/opt/clr/bin:$PATH CLR_HOME=/var/lib/clr PYTHONUNBUFFERED=1
USER clr
WORKDIR /home/clr
VOLUME /var/lib/clr
EXPOSE 8000
ENTRYPOINT ["clr"]
CMD ["serve"]
