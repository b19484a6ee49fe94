# The server as an image; docs/install.md ("In a container") says how to use it.
#
#   docker build -t pushpin .
FROM rust:1-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package pushpin \
    && mkdir -p /image/usr/bin /image/usr/lib/pushpin /image/etc/pushpin/runner/certs \
    && cd target/release \
    && install --strip pushpin pushpin-connmgr pushpin-proxy pushpin-handler pushpin-publish \
        /image/usr/bin \
    && ln -s pushpin-connmgr /image/usr/bin/pushpin-condure \
    && cd /source \
    && install tools/package/docker-entrypoint.sh /image/usr/bin/docker-entrypoint.sh \
    && install -m 644 etc/internal.conf /image/usr/lib/pushpin/ \
    && install -m 644 etc/routes /image/etc/pushpin/ \
    && install -m 644 etc/runner/certs/README /image/etc/pushpin/runner/certs/ \
    && tools/package/packaged-conf etc/pushpin.conf >/image/etc/pushpin/pushpin.conf \
    && CONFIG_DIR=/image/etc/pushpin tools/package/docker-entrypoint.sh true

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1001 --gid 0 --no-create-home --home-dir /run/pushpin \
        --shell /usr/sbin/nologin pushpin
COPY --from=build /image/usr /usr
COPY --from=build /image/etc/pushpin /etc/pushpin
# whoever it runs as: its files can be changed by group 0, its sockets are in a folder for all
RUN mkdir -p /var/log/pushpin /run/pushpin \
    && chown -R 1001:0 /etc/pushpin /var/log/pushpin /run/pushpin \
    && chmod -R g=u /etc/pushpin \
    && chmod 1777 /var/log/pushpin /run/pushpin
ENV LANG=C.UTF-8
USER 1001
# clients, publishing by ZeroMQ PULL, by HTTP, by ZeroMQ SUB, commands
EXPOSE 7999 5560 5561 5562 5563
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["pushpin", "--merge-output"]
