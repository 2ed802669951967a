/** A drill of a few seconds, on a machine that is busy; its length comes after. */
export const SMALL_DRILL = '--processors 2 --partitions 4 --devices 60 --rate 300 --reads 40'.split(' ')
