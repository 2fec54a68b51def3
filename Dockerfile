# One image for CPU and CUDA: the plain Linux wheels bring the CUDA libraries, the host its driver.
#
#   docker build -t audiovae .
#   docker run --rm -v "$PWD:/data" audiovae batch_transform samples/ --output-dir out
#   docker run --rm -v "$PWD:/data" audiovae audiovae encode in.wav out.avae
#   docker run --rm --gpus all -v "$PWD:/data" audiovae batch_transform samples/ --device cuda
#   docker run --rm --shm-size 4g audiovae ray start --head --block
#
# Files are written as user 1000; add `--user "$(id -u):$(id -g)"` if you are another.
ARG PYTHON_VERSION=3.12
FROM python:${PYTHON_VERSION}-slim

# tini passes signals on and reaps Ray's children; KubeRay's health probes call wget.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini wget \
    && rm -rf /var/lib/apt/lists/*

# Writable by any `--user`: matplotlib, numba and Ray keep their caches at home.
RUN useradd --create-home --uid 1000 audiovae \
    && chmod 1777 /home/audiovae \
    && install --directory --owner=audiovae /data

# The dependencies alone, 7 GB, in a layer that survives a change of the code.
WORKDIR /app
COPY pyproject.toml ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > /tmp/requirements.txt \
    && pip install --no-cache-dir --only-binary :all: -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt

# The code with its weights, read from the build context (BuildKit) so that no layer holds it twice;
# then one command on PATH for each of pipelines/.
RUN --mount=type=bind,target=/source,rw \
    pip install --no-cache-dir --no-deps /source \
    && for file in $(grep -l __main__ /source/pipelines/[a-z]*.py); do \
        name="$(basename "$file" .py)"; \
        printf '#!/bin/sh\nexec python -m pipelines.%s "$@"\n' "$name" > "/usr/local/bin/$name"; \
        chmod +x "/usr/local/bin/$name"; \
    done
COPY LICENSE LICENSE-FluidR3 ./
COPY configs configs/
COPY examples examples/

ENV HOME=/home/audiovae
USER audiovae
WORKDIR /data

# Opens a shipped clip with the installed package.
HEALTHCHECK --interval=5m --timeout=60s --start-period=60s \
    CMD ["audiovae", "info", "/app/examples/crow.mp3"]

# No command is fixed: `batch_transform`, `audiovae`, `ray`, `python` and `bash` all run as given.
ENTRYPOINT ["tini", "--"]
CMD ["batch_transform", "--help"]
