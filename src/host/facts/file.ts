import { readFile } from 'node:fs/promises'
import * as z from 'zod'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'
import { type Facts, factsSchema } from './schema.ts'

/** A document that `nestvm doctor --facts-only` or a person has written; `-` is standard input. Throws `BAD_FACTS`. */
export async function readFacts(path: string): Promise<Facts> {
  const refuse = (why: string, cause: unknown) =>
    new NestvmError('BAD_FACTS', `${path} holds no facts about a machine: ${why}`, {
      hint: 'nestvm doctor --facts-only > FILE writes them',
      ...{ details: { path }, cause, exitStatus: 2 },
    })
  let content: unknown
  try {
    // PowerShell begins a file with a byte order mark.
    content = JSON.parse((await readFile(path === '-' ? '/dev/stdin' : path, 'utf8')).replace(/^\uFEFF/, ''))
  } catch (error) {
    throw refuse(errorCode(error) ?? 'it is no JSON', error)
  }
  const result = factsSchema.safeParse(content)
  if (result.success) return result.data
  throw refuse(z.prettifyError(result.error), result.error)
}
