import { fileURLToPath } from 'node:url'

/** The roles begin in a file of the folder `at`, which breaks them. */
export const entry = (file: string, at: string): string[] => ['--entry', fileURLToPath(new URL(file, at))]

/** A drill of a few seconds, on a machine that is busy; its length comes after. */
export const SMALL_DRILL = '--processors 2 --partitions 4 --devices 60 --rate 300 --reads 40'.split(' ')
