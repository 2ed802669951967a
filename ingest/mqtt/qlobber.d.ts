declare module 'qlobber' {
  /** Topic filters; says only whether one of them matches. */
  export class QlobberTrue {
    constructor(options: {
      readonly wildcard_one: string
      readonly wildcard_some: string
      readonly separator: string
      readonly match_empty_levels: boolean
    })
    add(filter: string): this
    test(topic: string): boolean
  }
}
