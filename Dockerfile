FROM node:24-bookworm-slim
# rocksdb-native's Linux build links against libatomic.
RUN apt-get update && apt-get install -y --no-install-recommends libatomic1 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY package.json package-lock.json ./
COPY processor/rocksdb-level/package.json processor/rocksdb-level/
RUN npm ci --omit=dev && npm cache clean --force
COPY . .
RUN mkdir /data && chown node:node /data
USER node
# RocksDB's threads would each grow a heap of their own.
ENV HOST=0.0.0.0 DATA_DIR=/data MALLOC_ARENA_MAX=2
VOLUME /data
# MQTT, API, query endpoint of a processor, health of an ingest process.
EXPOSE 1883 8080 7000 8081
# Node itself is process 1, so that SIGTERM reaches it. One image for all roles: ingest, processor, api, or up.
CMD ["node", "main.ts", "up"]
