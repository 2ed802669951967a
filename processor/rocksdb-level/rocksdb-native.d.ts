// rocksdb-native ships no types. native.ts describes the part that this package uses, so that the declarations emitted
// for users stand on their own.
declare module 'rocksdb-native' {
  const RocksDB: unknown
  export default RocksDB
}
