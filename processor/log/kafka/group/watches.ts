/** What of a member tells with whom it may die. */
export interface Watched {
  readonly memberId: string
  readonly instance: string
  readonly host: string
  readonly zone?: string | undefined
}

/**
 * Watches of all members together, each an id in the one record that Kafka keeps of the group: up to 39 members watch
 * everyone, 100 members 15 others each.
 */
const MAX_WATCHES = 1536
/** Others whom a member watches at least, where there are so many. */
const MIN_WATCHED = 8

/** So many others each of `members` watches, and is watched by. */
export function watchedOf(members: number): number {
  return Math.min(members - 1, Math.max(MIN_WATCHED, Math.floor(MAX_WATCHES / members)))
}

/**
 * Whom each of the members watches. Members of one zone, and of one host in it, stand beside each other in a ring, and
 * those who watch one of them are spread evenly over all of it: of members beside each other that die at once, each is
 * watched by one that lives, unless fewer live than one in `watchedOf` + 1. Pure, and the same in any order of `members`.
 */
export function watches<T extends Watched>(members: readonly T[]): Map<T, T[]> {
  const ring = [...members].sort(byNearness)
  const count = watchedOf(ring.length)
  const steps = Array.from({ length: count }, (_, i) => Math.round(((i + 1) * ring.length) / (count + 1)))
  return new Map(ring.map((member, at) => [member, steps.map((step) => ring[(at + step) % ring.length] as T)]))
}

function byNearness(a: Watched, b: Watched): number {
  const [left, right] = [placeOf(a), placeOf(b)]
  const i = left.findIndex((part, at) => part !== right[at])
  return i < 0 ? 0 : (left[i] as string) < (right[i] as string) ? -1 : 1
}

function placeOf({ zone = '', host, instance, memberId }: Watched): string[] {
  return [zone, host, instance, memberId]
}
