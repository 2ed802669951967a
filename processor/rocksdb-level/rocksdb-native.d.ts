// rocksdb-native ships no types. What this package uses of it is described in native.ts, so that the declarations
// emitted for users stand on their own.
declare module 'rocksdb-native' {
  const RocksDB: unknown
  export default RocksDB
}
