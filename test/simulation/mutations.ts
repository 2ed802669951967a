/** A way to break the product: `find` stands once in `file`, and becomes `replace`. */
export interface Mutation {
  readonly file: string
  readonly find: string
  readonly replace: string
}

/** What each of them breaks must be found: they test the simulation. */
export const MUTATIONS: Readonly<Record<string, Mutation>> = {
  'the fence is skipped': {
    file: 'processor/log/embedded/writer.ts',
    find: 'if (work.epoch !== position.epoch) {',
    replace: 'if (work.epoch < 0) {',
  },
  'the store is written before the commit': {
    file: 'processor/partition/commit.ts',
    find: 'const { changelogEnd } = await claim.commit(',
    replace: `await copy.store.commit(
        writes,
        { input: next, changelog: this.#changelogEnd + changelog.length, whole: true, since: clock.now() },
        0,
        [],
      )
      const { changelogEnd } = await claim.commit(`,
  },
  'the checkpoint is dropped now and then': {
    file: 'processor/store/level-store.ts',
    find: 'batch.put(this.#keys.meta,',
    replace: 'if (reached.changelog % 2 === 0) batch.put(this.#keys.meta,',
  },
  'the checkpoint is a write of its own': {
    file: 'processor/store/level-store.ts',
    find: 'batch.put(this.#keys.meta, ',
    replace: 'await this.#db.put(this.#keys.meta, ',
  },
  'an append is acknowledged before it is written': {
    file: 'processor/log/embedded/writer.ts',
    find: "this.#queue.push({ kind: 'append',",
    replace: "resolve(); this.#queue.push({ kind: 'append',",
  },
  'a later append is written first': {
    file: 'processor/log/embedded/writer.ts',
    find: "this.#queue.push({ kind: 'append',",
    replace: "this.#queue.unshift({ kind: 'append',",
  },
  'the input offset is committed later than the changelog': {
    file: 'processor/log/embedded/writer.ts',
    find: 'encodeNumbers(epoch, input, changelogEnd)',
    replace: 'encodeNumbers(epoch, (positions[index] as ClaimPosition).input, changelogEnd)',
  },
  'a restore stops before its end': {
    file: 'processor/partition/restore.ts',
    find: 'if (following.arrived && until !== undefined) return true',
    replace: 'if (until !== undefined) return true',
  },
  'a reader is shown what is not committed': {
    file: 'processor/partition/commit.ts',
    find: 'entry.batch > this.#stored',
    replace: 'entry.batch < 0',
  },
  'the text of a status outlives its change': {
    file: 'processor/partition/batch.ts',
    find: 'device.entry.json = undefined',
    replace: 'void 0',
  },
  'a cached status outlives the claim': {
    file: 'processor/store/status-cache.ts',
    find: 'if (node === undefined || node.owner !== owner) return undefined',
    replace: 'if (node === undefined) return undefined',
  },
  'the old entry stays in the index': {
    file: 'processor/store/index-entries.ts',
    find: 'if (from.state !== undefined) leave(',
    replace: 'if (from.odd) leave(',
  },
  'the index is a write of its own': {
    file: 'processor/store/level-store.ts',
    find: 'this.#index.addTo(batch, change)',
    replace: `const apart = this.#db.batch()
        this.#index.addTo(apart, change)
        await apart.write()`,
  },
}
