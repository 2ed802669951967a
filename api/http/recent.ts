/** Puts an entry last in `map`, as the one that was used last; of more than `most` the one used longest ago is forgotten. */
export function keepRecent<K, V>(map: Map<K, V>, key: K, value: V, most: number): void {
  map.delete(key)
  map.set(key, value)
  if (map.size > most) map.delete(map.keys().next().value as K)
}
