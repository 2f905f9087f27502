import { join } from 'node:path'
import type { Seen } from './seen.ts'

/** What can be turned on, and where: each has a file of its own. */
export const platforms = [
  ...['intel', 'amd', 's390x', 'arm64', 'permission'],
  ...['hyperv', 'aws', 'gcp', 'azure', 'vmware', 'virtualbox', 'xen', 'kvm', 'acrn'],
] as const
export type Platform = (typeof platforms)[number]

/** A file that gets another content. All paths are of the machine, its root directory included. */
export interface FileStep {
  kind: 'file'
  path: string
  /** Undefined where there is no such file. */
  before: string | undefined
  /** Undefined where it is to be removed. */
  after: string | undefined
  why: string
  /** What the difference is shown to, where that is another file. */
  compareWith?: { path: string; text: string }
}

export interface CommandStep {
  kind: 'command'
  argv: readonly string[]
  /** What takes it back, once the files are as before. */
  undo: readonly (readonly string[])[]
  /** What takes it back does no harm where it was not done, or half of it: it is in the journal before it begins. */
  undoAnyway?: boolean
  why: string
}

export type Step = FileStep | CommandStep

/**
 * When a plan that was carried out counts: `already` (there is nothing to do), `now`, `reload` (when the module is
 * loaded next), `reboot`, `login` (for the user's next one), `elsewhere` (it has to be done by other means).
 */
export type Effect = 'already' | 'now' | 'reload' | 'reboot' | 'login' | 'elsewhere'

/** What is to be done, made from what was seen alone. */
export interface Plan {
  platform: Platform
  /** A sentence for people: how things are, and what changes. */
  summary: string
  effect: Effect
  steps: readonly Step[]
  /** Sentences: what to know, and what nestvm does not do. */
  notes: readonly string[]
  /** A script or commands for another machine. */
  output?: string
}

/** What every platform's plan is made from. */
export interface Request {
  seen: Seen
  /** The root directory that files are looked for and written in. Only in `/` are there commands. */
  root: string
  /** Whom /dev/kvm is to be for. */
  user: string
  /** A virtual machine's name, where that has to be told. */
  vm?: string
}

/** The path of a file in the root directory. */
export const within = (root: string, path: string): string => join(root, path)

/** In another root directory nothing runs, so what to run there is said instead. */
export function commands(
  root: string,
  steps: readonly CommandStep[],
): { steps: readonly CommandStep[]; notes: string[] } {
  if (root === '/') return { steps, notes: [] }
  return {
    steps: [],
    notes: steps.map(({ argv, why }) => `to be run in the system of ${root}: ${argv.join(' ')} (${why})`),
  }
}
