import type { Machine } from '../machine/machine.ts'
import { NestvmError } from '../store/error.ts'
import { type Book, carryOut } from './apply.ts'
import { readText } from './files.ts'
import { type Journal, journalPath, readJournal, removeJournal } from './journal.ts'
import type { CommandStep, FileStep } from './plan.ts'

/** What takes back all that a journal tells. */
export interface UndoPlan {
  book: Book
  platform: string
  /** Files first, then commands, the last one first. */
  steps: readonly (FileStep | CommandStep)[]
  notes: readonly string[]
}

/** Made from a journal and the files as they are now. What somebody else has changed since is left alone, with a note. */
export async function planUndo(machine: Machine, book: Book, signal?: AbortSignal): Promise<UndoPlan> {
  const path = journalPath(book.dir, book.name)
  const journal = await readJournal(machine, path, signal)
  if (!journal)
    throw new NestvmError('NOTHING_TO_UNDO', `nestvm has enabled nothing that ${path} would tell of`, {
      hint: 'nestvm enable --undo --root DIR, --on MACHINE, or as the user who did it',
    })
  const steps: FileStep[] = []
  const notes: string[] = []
  for (const file of journal.files) {
    const before = file.backup === null ? undefined : await backupText(machine, file.backup, signal)
    const now = await readText(machine, file.path, signal)
    if (now === before) continue
    if (now === (file.after ?? undefined))
      steps.push({ kind: 'file', path: file.path, before: now, after: before, why: 'as it was before' })
    else
      notes.push(
        `${file.path} has been changed by somebody else since, and is left alone${file.backup === null ? '' : `; as it was before, it is in ${file.backup}`}`,
      )
  }
  return { book, platform: journal.platform, steps: [...steps, ...takingBack(journal)], notes }
}

/** Carries it out, and forgets the journal unless a file was left alone. */
export async function undo(machine: Machine, { book, steps, notes }: UndoPlan, signal?: AbortSignal): Promise<void> {
  for (const step of steps) await carryOut({ machine, signal }, step)
  if (notes.length === 0) await removeJournal(machine, book.dir, book.name, signal)
}

function takingBack({ commands }: Journal): CommandStep[] {
  return commands
    .toReversed()
    .flatMap(({ argv, undo }) =>
      undo.map((words) => ({ kind: 'command' as const, argv: words, undo: [], why: `takes back ${argv.join(' ')}` })),
    )
}

async function backupText(machine: Machine, path: string, signal?: AbortSignal): Promise<string> {
  const text = await readText(machine, path, signal)
  if (text === undefined) throw new NestvmError('BAD_RECORD', `the copy ${path} is gone`, { details: { path } })
  return text
}
