FROM node:24-bookworm-slim
# rocksdb-native's Linux build links against libatomic.
RUN apt-get update && apt-get install -y --no-install-recommends libatomic1 libjemalloc2 && rm -rf /var/lib/apt/lists/* \
  && ln -s /usr/lib/*-linux-gnu/libjemalloc.so.2 /usr/lib/libjemalloc.so.2
# RocksDB's threads free what others allocated: jemalloc does that faster, and returns more of it, than the C library.
ENV LD_PRELOAD=/usr/lib/libjemalloc.so.2 MALLOC_CONF=narenas:4
WORKDIR /app
COPY package.json package-lock.json ./
COPY processor/rocksdb-level/package.json processor/rocksdb-level/
RUN npm ci --omit=dev && npm cache clean --force
COPY . .
RUN install -d -o node -g node /data node_modules/.cache
USER node
# Compiled once, and for this user, the code of a role loads with half the work, also where nothing can be written.
ENV NODE_COMPILE_CACHE=/app/node_modules/.cache/node
RUN node main.ts help && node -e "for (const file of ['processor/log/kafka/kafka-log', 'processor/log/embedded/embedded-log', 'processor/open', 'api/open', 'ingest/ingest']) import('./' + file + '.ts')"
ENV HOST=0.0.0.0 DATA_DIR=/data
VOLUME /data
# MQTT, API, query endpoint of a processor, health of an ingest process.
EXPOSE 1883 8080 7000 8081
# Node itself is process 1, so that SIGTERM reaches it. One image for all roles: ingest, processor, api, or up.
CMD ["node", "main.ts", "up"]
