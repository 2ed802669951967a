/**
 * Who may import whom, room by room. `npm run check` applies these rules; ARCHITECTURE.md draws them.
 *
 *   processor/  contract <- runtime <- log, store <- search, query, partition <- processor.ts, open.ts
 *               contract <- status, search/language
 *   ingest/     identity <- connection <- mqtt <-> append, and of the processor: contract, runtime and the port of the log
 *   api/        http <- auth <- devices <- search <- reader, changes, dead-letters, and of the processor: what is pure
 */
const room = (name, from, to) => ({ name, severity: 'error', from: { path: from }, to })

module.exports = {
  forbidden: [
    {
      // Types may point back, inside a room; values may not.
      name: 'no-cycle',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    room('processor-knows-no-edge', '^processor/', { path: '^(ingest|api|simulators|test|main\\.ts)' }),
    room('edges-apart', '^(ingest|api)/', { path: '^(ingest|api|simulators|test|main\\.ts)', pathNot: '^$1/' }),
    room('ingest-knows-the-log-port', '^ingest/', {
      path: '^processor/',
      pathNot: '^processor/(contract/|runtime/|log/log\\.ts)',
    }),
    room('api-knows-what-is-pure', '^api/', {
      path: '^processor/',
      pathNot: '^processor/(contract/|runtime/|search/language/|search/wire\\.ts)',
    }),

    room('contract-is-pure', '^processor/contract/', {
      path: '^(processor|fs|net|http|child_process|worker_threads)',
      pathNot: '^processor/contract/',
    }),
    room('status-is-pure', '^processor/status/', {
      path: '^(processor|fs|net|http|child_process|worker_threads)',
      pathNot: '^processor/(contract|status)/',
    }),
    room('language-is-pure', '^processor/search/language/', {
      path: '^(processor|fs|net|http|child_process|worker_threads)',
      pathNot: '^processor/(contract|search/language)/',
    }),
    room('runtime-knows-no-device', '^processor/runtime/', {
      path: '^processor/',
      pathNot: '^processor/(contract|runtime)/',
    }),
    room('log-knows-no-processing', '^processor/log/', {
      path: '^processor/',
      pathNot: '^processor/(contract|runtime|log|rocksdb-level)/',
    }),
    room('placement-knows-no-adapter', '^processor/log/placement/', { path: '^processor/log/(kafka|embedded)/' }),
    room('adapters-apart', '^processor/log/(kafka|embedded)/', {
      path: '^processor/log/(kafka|embedded)/',
      pathNot: '^processor/log/$1/',
    }),
    room('protocol-knows-no-group', '^processor/log/kafka/protocol/', {
      path: '^processor/log/kafka/',
      pathNot: '^processor/log/kafka/protocol/',
    }),
    room('store-knows-bytes', '^processor/store/', {
      path: '^processor/',
      pathNot: '^processor/(contract/|runtime/|status/|search/language/|store/|rocksdb-level/|log/log\\.ts)',
    }),
    room('search-knows-the-store', '^processor/search/', {
      path: '^processor/',
      pathNot: '^processor/(contract/|runtime/|store/|search/|rocksdb-level/|log/log\\.ts)',
    }),
    room('partition-knows-no-reader', '^processor/partition/', { path: '^processor/(query|search/(?!language))' }),
    room('query-knows-no-adapter', '^processor/query/', { path: '^processor/log/', pathNot: '^processor/log/log\\.ts' }),
    room('rocksdb-level-stands-alone', '^processor/rocksdb-level/', {
      path: '^(processor|ingest|api|simulators|test|main\\.ts)',
      pathNot: '^processor/rocksdb-level/',
    }),

    room('connection-knows-no-session', '^ingest/connection/', {
      path: '^ingest/(mqtt|append)/',
      dependencyTypesNot: ['type-only'],
    }),
    room('identity-knows-no-connection', '^ingest/identity/', { path: '^ingest/(connection|mqtt|append)/' }),
    // The types of the application may be named.
    room('http-knows-no-question', '^api/http/', {
      path: '^api/',
      pathNot: '^api/http/',
      dependencyTypesNot: ['type-only'],
    }),
    room('reader-knows-no-route', '^api/reader/', {
      path: '^api/',
      pathNot: '^api/(http|reader)/',
      dependencyTypesNot: ['type-only'],
    }),
    room('tokens-know-no-question', '^api/auth/', { path: '^api/(reader|devices|search|dead-letters|changes)/' }),
    room('devices-know-no-search', '^api/devices/', { path: '^api/(search|reader|dead-letters|changes)/' }),
    room('search-knows-devices', '^api/search/', { path: '^api/(reader|dead-letters|changes)/' }),
    room('dead-letters-and-changes-apart', '^api/(dead-letters|changes)/', {
      path: '^api/(dead-letters|changes|reader)/',
      pathNot: '^api/$1/',
    }),

    room('nobody-imports-simulators', '^(ingest|processor|api)/', { path: '^simulators/' }),
    room('nobody-imports-tests', '^(ingest|processor|api|simulators|main\\.ts)', { path: '^test/' }),
    // A drill reads Kafka as a foreign program would.
    room('kafkajs-in-its-adapter', '^(?!processor/log/kafka/|simulators/drill/stage/|test/)', {
      path: 'node_modules/kafkajs',
    }),
    room('aedes-in-ingest', '^(?!ingest/|test/)', { path: 'node_modules/aedes' }),
    room('mqtt-in-simulators', '^(?!simulators/|test/)', { path: 'node_modules/mqtt/' }),
    room('rocksdb-native-in-its-package', '^(?!processor/rocksdb-level/)', { path: 'node_modules/rocksdb-native' }),
    { name: 'not-to-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)dist/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
      extensions: ['.ts', '.js', '.mjs', '.cjs', '.json', '.d.ts'],
    },
  },
}
