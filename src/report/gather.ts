import { randomBytes } from 'node:crypto'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import type { Item } from './items.ts'
import { gatherScript } from './script.ts'

/** What one item printed. */
export interface Gathered {
  file: string
  /** Empty where there is nothing. */
  text: string
  /** Why there is nothing, or what is there in its stead. */
  why?: string
}

/** Runs all items by one command on a machine. Throws `REPORT_INCOMPLETE`, and what `run` throws. */
export async function gather(
  machine: Machine,
  items: readonly Item[],
  limits: { timeoutMs: number; signal: AbortSignal },
): Promise<Gathered[]> {
  const mark = randomBytes(12).toString('hex')
  const argv = ['sh', '-c', gatherScript(items), 'sh', mark]
  const { stdout } = await run(machine, argv, { ...limits, maxOutput: 64 << 20, allowFailure: true })
  return parseGathered(stdout, mark, items, machine.name)
}

/** What the script wrote, for the items that were asked for: a machine is not trusted to name files. */
export function parseGathered(output: string, mark: string, items: readonly Item[], machine: string): Gathered[] {
  const sections = new Map(
    output
      .split(`\n${mark} begin `)
      .slice(1)
      .map((part): [string, string] => {
        const end = part.indexOf('\n')
        return [part.slice(0, end), part.slice(end + 1)]
      }),
  )
  if (!sections.has('end')) {
    throw new NestvmError('REPORT_INCOMPLETE', `${machine} did not tell all that was asked`, { details: { machine } })
  }
  const arch = sections.get('arch')?.trim() ?? ''
  const there = items.filter((item) => item.arch === undefined || item.arch.test(arch))
  return there.map(({ file }) => {
    const [text = '', why = ''] = (sections.get(file) ?? '').split(`\n${mark} why `)
    const because = why.trim() || (text.trim() ? undefined : 'it printed nothing')
    return { file, text: text.trim() ? `${text.trimEnd()}\n` : '', why: because }
  })
}
