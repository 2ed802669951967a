/** The one-way flow, as rules: who may import whom. `npm run check` applies them. */
module.exports = {
  forbidden: [
    {
      // A type may point back (an iterator's at its database's); what runs may not.
      name: 'no-cycle',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'processor-knows-no-edge',
      severity: 'error',
      from: { path: '^processor/' },
      to: { path: '^(ingest|api|simulators|test|main\\.ts)' },
    },
    {
      name: 'edges-apart',
      severity: 'error',
      from: { path: '^(ingest|api)/' },
      to: { path: '^(ingest|api|simulators|test|main\\.ts)', pathNot: '^$1/' },
    },
    {
      name: 'ingest-knows-the-log-port-only',
      severity: 'error',
      from: { path: '^ingest/' },
      to: { path: '^processor/', pathNot: '^processor/(contract/|log/log\\.ts)' },
    },
    {
      name: 'api-knows-the-contract-only',
      severity: 'error',
      from: { path: '^api/' },
      to: { path: '^processor/', pathNot: '^processor/contract/' },
    },
    {
      // How HTTP is spoken; what is asked and answered is known further up. Types of the application may be named.
      name: 'http-knows-no-question',
      severity: 'error',
      from: { path: '^api/http/' },
      to: { path: '^api/', pathNot: '^api/http/', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'reader-knows-no-route',
      severity: 'error',
      from: { path: '^api/reader/' },
      to: { path: '^api/', pathNot: '^api/(http|reader)/', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'tokens-know-no-question',
      severity: 'error',
      from: { path: '^api/auth/' },
      to: { path: '^api/(reader|devices|search|letters|changes)/' },
    },
    {
      name: 'questions-in-one-direction',
      severity: 'error',
      from: { path: '^api/(devices|search)/' },
      to: { path: '^api/(reader|letters|changes)/' },
    },
    {
      name: 'devices-know-no-search',
      severity: 'error',
      from: { path: '^api/devices/' },
      to: { path: '^api/search/' },
    },
    {
      name: 'letters-and-changes-apart',
      severity: 'error',
      from: { path: '^api/(letters|changes)/' },
      to: { path: '^api/(letters|changes|reader)/', pathNot: '^api/$1/' },
    },
    {
      name: 'contract-is-pure',
      severity: 'error',
      from: { path: '^processor/contract/' },
      to: { path: '^(processor|fs|net|http|child_process|worker_threads)', pathNot: '^processor/contract/' },
    },
    {
      // Beside the contract: how a wait ends, how a secret is read, what memory there is, and what RocksDB says.
      name: 'log-knows-no-processing',
      severity: 'error',
      from: { path: '^processor/log/' },
      to: {
        path: '^processor/',
        pathNot: '^processor/(contract/|log/|rocksdb-level/|memory\\.ts|pause\\.ts|secret-files\\.ts|store/failure\\.ts)',
      },
    },
    {
      name: 'adapters-apart',
      severity: 'error',
      from: { path: '^processor/log/(kafka|embedded)/' },
      to: { path: '^processor/log/(kafka|embedded)/', pathNot: '^processor/log/$1/' },
    },
    {
      name: 'index-knows-the-store',
      severity: 'error',
      from: { path: '^processor/index/' },
      to: {
        path: '^processor/',
        pathNot: '^processor/(contract/|store/|index/|precedence\\.ts|read-ahead\\.ts|scan\\.ts|turns\\.ts)',
      },
    },
    {
      name: 'query-knows-no-adapter',
      severity: 'error',
      from: { path: '^processor/query/' },
      to: {
        path: '^processor/',
        pathNot:
          '^processor/(contract/|rocksdb-level/|store/|index/|query/|log/(log|stretch)\\.ts|(memory|pause|role|scan|turns|yield-to-others)\\.ts)',
      },
    },
    {
      name: 'store-knows-the-log-port-only',
      severity: 'error',
      from: { path: '^processor/store/' },
      to: { path: '^processor/', pathNot: '^processor/(contract/|store/|rocksdb-level/|log/log\\.ts)' },
    },
    {
      name: 'rocksdb-level-stands-alone',
      severity: 'error',
      from: { path: '^processor/rocksdb-level/' },
      to: { path: '^(processor|ingest|api|simulators|test|main\\.ts)', pathNot: '^processor/rocksdb-level/' },
    },
    {
      name: 'nobody-imports-simulators',
      severity: 'error',
      from: { pathNot: '^(simulators/|test/|main\\.ts)' },
      to: { path: '^simulators/' },
    },
    { name: 'nobody-imports-tests', severity: 'error', from: { pathNot: '^test/' }, to: { path: '^test/' } },
    {
      // A drill reads as a foreign program would.
      name: 'kafkajs-in-its-adapter',
      severity: 'error',
      from: { pathNot: '^(processor/log/kafka/|simulators/drill/foreign|test/)' },
      to: { path: 'node_modules/kafkajs' },
    },
    { name: 'aedes-in-ingest', severity: 'error', from: { pathNot: '^(ingest/|test/)' }, to: { path: 'node_modules/aedes' } },
    { name: 'mqtt-in-simulators', severity: 'error', from: { pathNot: '^(simulators/|test/)' }, to: { path: 'node_modules/mqtt/' } },
    {
      name: 'rocksdb-native-in-its-package',
      severity: 'error',
      from: { pathNot: '^processor/rocksdb-level/' },
      to: { path: 'node_modules/rocksdb-native' },
    },
    { name: 'not-to-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)dist/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'], extensions: ['.ts', '.js', '.mjs', '.cjs', '.json', '.d.ts'] },
  },
}
