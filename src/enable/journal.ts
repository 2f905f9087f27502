import { createHash } from 'node:crypto'
import { join } from 'node:path'
import * as z from 'zod'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { readText, removeFile, writeText } from './files.ts'
import type { Platform } from './plan.ts'
import type { Seen } from './seen.ts'

const journalSchema = z.object({
  version: z.literal(1),
  platform: z.string(),
  /** When the first of what it tells was done. */
  begunAt: z.string(),
  files: z.array(
    z.object({
      path: z.string(),
      /** A copy of the file as it was; null where there was none. */
      backup: z.string().nullable(),
      /** What was written; null where it was removed. */
      after: z.string().nullable(),
    }),
  ),
  commands: z.array(z.object({ argv: z.array(z.string()), undo: z.array(z.array(z.string())) })),
})

/** What was done on a machine for one platform, and so what there is to take back. */
export type Journal = z.infer<typeof journalSchema>

/** Where the journals lie: in the root directory, or for a user who cannot write there among nestvm's own state. */
export function journalDir({ uid, stateDir }: Seen, root: string): string {
  return root !== '/' || uid === 0 ? join(root, 'var/lib/nestvm/enable') : join(stateDir, 'enable')
}

/** A scenario of ACRN has a journal of its own. */
export function journalName(platform: Platform, file?: string): string {
  return file === undefined ? platform : `${platform}-${createHash('sha256').update(file).digest('hex').slice(0, 12)}`
}

export const journalPath = (dir: string, name: string): string => join(dir, `${name}.json`)

/** Keeps the file names of the backups apart, and their paths legible. */
export const backupPath = (dir: string, name: string, path: string): string => join(dir, `${name}.before`, path)

/** Undefined where there is none; throws `BAD_RECORD` for a damaged one. */
export async function readJournal(machine: Machine, path: string, signal?: AbortSignal): Promise<Journal | undefined> {
  const text = await readText(machine, path, signal)
  if (text === undefined) return undefined
  const result = journalSchema.safeParse(parseJson(text))
  if (result.success) return result.data
  throw new NestvmError('BAD_RECORD', `${path} is damaged: ${z.prettifyError(result.error)}`, {
    hint: `the files as they were are beside it, in a directory *.before`,
    details: { path },
  })
}

export async function writeJournal(
  machine: Machine,
  path: string,
  journal: Journal,
  signal?: AbortSignal,
): Promise<void> {
  await writeText(machine, path, `${JSON.stringify(journal, null, 2)}\n`, signal)
}

/** With its backups. */
export async function removeJournal(machine: Machine, dir: string, name: string, signal?: AbortSignal): Promise<void> {
  await removeFile(machine, journalPath(dir, name), signal)
  await run(machine, ['rm', '-rf', '--', join(dir, `${name}.before`)], { timeoutMs: 60_000, signal })
}

/** The names of all journals in a directory. */
export async function listJournals(machine: Machine, dir: string, signal?: AbortSignal): Promise<string[]> {
  const script = 'cd -- "$1" 2>/dev/null || exit 0; for file in *.json; do [ -e "$file" ] && echo "$file"; done; true'
  const { stdout } = await run(machine, ['sh', '-c', script, 'sh', dir], { timeoutMs: 60_000, signal })
  return stdout.split('\n').flatMap((name) => (name.endsWith('.json') ? [name.slice(0, -'.json'.length)] : []))
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
