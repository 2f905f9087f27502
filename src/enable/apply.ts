import { isDeepStrictEqual } from 'node:util'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { readText, removeFile, writeText } from './files.ts'
import { backupPath, type Journal, journalPath, readJournal, writeJournal } from './journal.ts'
import type { CommandStep, FileStep, Plan } from './plan.ts'

/** Where a plan's journal is. */
export interface Book {
  dir: string
  name: string
}

interface Applying {
  machine: Machine
  signal?: AbortSignal
}

/** initramfs and GRUB tools take their time, more so on an emulated machine. */
const commandLimitMs = 10 * 60_000

/**
 * Carries a plan out. Each step is in the journal, and a copy of each file beside it, before it is done, so that what
 * was begun can be undone. Throws `CHANGED_MEANWHILE` when a file is not as the plan saw it, `NEEDS_ROOT`,
 * `WRITE_FAILED`, `COMMAND_FAILED`.
 */
export async function apply(on: Applying, book: Book, plan: Pick<Plan, 'steps'> & { platform: string }): Promise<void> {
  const path = journalPath(book.dir, book.name)
  let journal: Journal = (await readJournal(on.machine, path, on.signal)) ?? {
    ...{ version: 1, platform: plan.platform, begunAt: new Date().toISOString(), files: [], commands: [] },
  }
  const note = async (next: Journal) => {
    if (isDeepStrictEqual(next, journal)) return
    await writeJournal(on.machine, path, next, on.signal)
    journal = next
  }
  for (const step of plan.steps) {
    if (step.kind === 'file') {
      const backup = await keepBackup(on, book, journal, step)
      await note(withFile(journal, step, backup))
      await carryOut(on, step)
    } else {
      if (step.undoAnyway) await note(withCommand(journal, step))
      await carryOut(on, step)
      await note(withCommand(journal, step))
    }
  }
}

/** Does one step, without a journal. */
export async function carryOut({ machine, signal }: Applying, step: FileStep | CommandStep): Promise<void> {
  if (step.kind === 'command') {
    await run(machine, asRoot(step.argv), { timeoutMs: commandLimitMs, signal })
    return
  }
  const { path, before, after } = step
  if ((await readText(machine, path, signal)) !== before) {
    throw new NestvmError('CHANGED_MEANWHILE', `${path} has changed since it was looked at`, {
      hint: 'run the command again',
      details: { path },
    })
  }
  if (after === undefined) await removeFile(machine, path, signal)
  else await writeText(machine, path, after, signal)
}

/** What root runs lies in directories that not every session has in its PATH. */
const asRoot = (argv: readonly string[]) => ['sh', '-c', 'PATH=$PATH:/usr/sbin:/sbin; exec "$@"', 'sh', ...argv]

/** The oldest copy counts: what was there before nestvm did anything. */
async function keepBackup(
  { machine, signal }: Applying,
  { dir, name }: Book,
  journal: Journal,
  step: FileStep,
): Promise<string | null> {
  const known = journal.files.find(({ path }) => path === step.path)
  if (known) return known.backup
  if (step.before === undefined) return null
  const backup = backupPath(dir, name, step.path)
  await writeText(machine, backup, step.before, signal)
  return backup
}

function withFile(
  journal: Journal,
  { path, after = null }: Pick<FileStep, 'path'> & { after?: string | null },
  backup: string | null,
): Journal {
  return { ...journal, files: [...journal.files.filter((file) => file.path !== path), { path, backup, after }] }
}

/** Of equal commands the first one's undo leads back to how things were before nestvm. */
function withCommand(journal: Journal, { argv, undo }: CommandStep): Journal {
  if (journal.commands.some((known) => isDeepStrictEqual(known.argv, argv))) return journal
  return { ...journal, commands: [...journal.commands, { argv: [...argv], undo: undo.map((words) => [...words]) }] }
}
