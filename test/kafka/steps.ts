/** Where `faulty-processor.ts` can end: the steps of taking a partition over, and of a commit. */
export const STEPS = [
  'fence sent',
  'holder fenced',
  'claim taken',
  'commit begun',
  'partitions added',
  'offsets added',
  'changelog produced',
  'offset in transaction',
  'end sent',
  'end answered',
  'log committed',
  'store write begun',
  'store written',
  'following',
  'standby promoted',
  'restoring',
] as const

export type Step = (typeof STEPS)[number]
