# Two images from one file: --target serve (the default) answers over HTTP, --target train exports, prepares and trains.
# They share the layer of torch and the other core packages, by far the largest, so the second costs only its extra.
#
# CPU torch unless told otherwise. TORCH names PyTorch's build and the folder of its own index; TORCH_INDEX replaces
# that index where it cannot be reached; empty means pip's own, but PyPI's torch for x86-64 is a CUDA build of GBs.
#   docker build --target train --build-arg TORCH=cu130 -t srgnn-train:cuda .
ARG PYTHON=python:3.11.14-slim-bookworm
ARG TORCH=cpu

FROM ${PYTHON} AS python
# Environments without pip: what is installed cannot be added to. The builder's pip fills them from outside.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# Requirements come before code: an edit in srgnn/ rebuilds none of the stages that download.
FROM python AS requirements
WORKDIR /src
COPY pyproject.toml ./
RUN python3 -c "import tomllib, pathlib as p; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    groups = {'core': project['dependencies'], **project['optional-dependencies']}; \
    [p.Path(name + '.txt').write_text('\n'.join(lines) + '\n') for name, lines in groups.items()]"

FROM python AS core
ARG TORCH
ARG TORCH_INDEX=https://download.pytorch.org/whl/${TORCH}
# A mirror of PyPI; empty means pip's own configuration.
ARG PIP_INDEX_URL=
WORKDIR /src
COPY constraints.txt ./
RUN python3 -m venv --without-pip /opt/core \
    && pip --python /opt/core/bin/python install --no-deps -c constraints.txt \
        ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY --from=requirements /src/core.txt ./
RUN pip --python /opt/core/bin/python install -c constraints.txt -r core.txt
# Headers and tests are for building against torch and for its developers.
RUN cd /opt/core/lib/python3.*/site-packages \
    && rm -rf torch/include torch/share torch/test torch/bin/*Test \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && /opt/core/bin/python -c "import torch, sys; cuda = torch.version.cuda; wanted = '$TORCH' != 'cpu'; sys.exit( \
        bool(cuda) != wanted and f'TORCH=$TORCH, but pip brought torch {torch.__version__} (CUDA: {cuda}): ' \
        'set TORCH_INDEX to an index that has the build you want')"

# An environment that sees core's packages: pip counts them as installed and adds only what is missing.
FROM core AS extra
RUN python3 -m venv --without-pip /opt/extra \
    && echo /opt/core/lib/python3.*/site-packages > "$(echo /opt/extra/lib/python3.*/site-packages)/core.pth"

FROM extra AS serve-packages
COPY --from=requirements /src/serve.txt /src/otel.txt ./
RUN pip --python /opt/extra/bin/python install -c constraints.txt -r serve.txt -r otel.txt

FROM extra AS train-packages
# serve as well: srgnn export-clicks runs in this image, which has pyarrow anyway, and talks to Redis.
COPY --from=requirements /src/train.txt /src/serve.txt /src/export.txt ./
RUN pip --python /opt/extra/bin/python install -c constraints.txt -r train.txt -r serve.txt -r export.txt \
    && cd /opt/extra/lib/python3.*/site-packages \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && rm -rf pyarrow/include pyarrow/src

FROM python AS code
ARG PIP_INDEX_URL=
RUN python3 -m venv --without-pip /opt/srgnn && cd /opt/srgnn/lib/python3.*/site-packages \
    && for part in core extra; do echo "$PWD" | sed "s,/opt/srgnn,/opt/$part," > "$part.pth"; done
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY srgnn srgnn
COPY training training
COPY service service
RUN pip --python /opt/srgnn/bin/python install --no-deps .

FROM python AS runtime
# A number, so that Kubernetes can see it is not root; a name, because torch asks for one.
RUN groupadd --gid 10001 srgnn \
    && useradd --uid 10001 --gid srgnn --no-create-home --home-dir /tmp --shell /usr/sbin/nologin srgnn \
    && install -d -o srgnn -g srgnn /artifacts /corpus /clicks
COPY --from=core /opt/core /opt/core
ENV PATH=/opt/srgnn/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="srgnn" \
      org.opencontainers.image.description="Session-based recommendations with a gated graph neural network" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Loops compiled for any processor of this kind (numba), and for those with AVX2 where the builder is one, so that a
# container has not to; 10 to 60 s otherwise at each start.
FROM runtime AS loops
ENV NUMBA_CPU_FEATURES="" NUMBA_CACHE_DIR=/tmp/loops
COPY --from=code /opt/srgnn /opt/srgnn
COPY --chmod=755 deploy/processor.sh /usr/local/bin/processor
RUN for name in generic $(processor); do NUMBA_CPU_NAME=$name python -m srgnn.precompile || exit; done

FROM runtime AS train
COPY --from=train-packages /opt/extra /opt/extra
COPY --from=code /opt/srgnn /opt/srgnn
COPY --from=loops /tmp/loops /opt/loops
ENV NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES="" NUMBA_CACHE_DIR=/tmp/loops
COPY --chmod=755 deploy/processor.sh /usr/local/bin/processor
COPY --chmod=755 deploy/model.sh /usr/local/bin/make-model
CMD ["srgnn", "--help"]

FROM runtime AS serve
COPY --from=serve-packages /opt/extra /opt/extra
COPY --from=code /opt/srgnn /opt/srgnn
COPY --from=loops /tmp/loops /opt/loops
ENV NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES="" NUMBA_CACHE_DIR=/tmp/loops
COPY --chmod=755 deploy/processor.sh /usr/local/bin/processor
COPY --chmod=755 deploy/answers.sh /usr/local/bin/answers
COPY --chmod=755 deploy/serve.sh /usr/local/bin/serve
ENV SRGNN_ARTIFACT=/artifacts SRGNN_HOST=0.0.0.0 SRGNN_PORT=8000
EXPOSE 8000
# The script becomes the server (exec): process 1 is what listens, and the signal reaches it.
STOPSIGNAL SIGTERM
CMD ["serve"]
# Not /readyz: a replica that finishes its work before it stops must not be taken for a broken one.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["answers", "8000", "/livez"]
