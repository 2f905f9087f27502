import { createTwoFilesPatch } from 'diff'
import type { FileStep } from './plan.ts'

/** A unified diff of what a step does to its file. */
export function stepDiff({ path, before, after, compareWith }: Omit<FileStep, 'kind' | 'why'>): string {
  const from = compareWith ?? { path: before === undefined ? '/dev/null' : path, text: before ?? '' }
  const to = after === undefined ? '/dev/null' : path
  const patch = createTwoFilesPatch(from.path, to, from.text, after ?? '', undefined, undefined, { context: 3 })
  return patch.slice(patch.indexOf('--- '))
}
