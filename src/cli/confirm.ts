import { createInterface } from 'node:readline/promises'
import { NestvmError } from '../store/error.ts'
import type { Session } from './session.ts'

/** Asks whether to do what was shown. Throws `NOT_CONFIRMED`. */
export async function confirm({ context }: Session, { yes, json }: { yes?: boolean; json?: boolean }): Promise<void> {
  if (yes) return
  const hint = '--yes does it without asking, --dry-run shows it'
  if (!process.stdin.isTTY || !process.stderr.isTTY || json)
    throw new NestvmError('NOT_CONFIRMED', 'nothing was done: nobody can be asked', { hint })
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await terminal.question('Do this? [y/N] ', { signal: context.signal }).finally(() => terminal.close())
  if (!/^y(es)?$/i.test(answer.trim())) throw new NestvmError('NOT_CONFIRMED', 'nothing was done', { hint })
}
