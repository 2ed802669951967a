import type { Written } from '../parser.ts'

/** Takes any text. `maxDepth`: of parentheses and NOTs within each other. */
export function parse(text: string, options: { readonly maxDepth: number }): Written
