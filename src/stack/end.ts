import type { Context } from './context.ts'
import { readExitStatus } from './output.ts'
import { changeRecord, descendants, type GuestRecord, listRecords, loadRecord } from './record.ts'
import { forget, isGone } from './stop.ts'

/**
 * Notes the end of a detached stack, whose outermost guest is given. All its levels keep their names until `rm`, and
 * the exit status of the command that they were started for. What else ran in them is gone.
 */
export async function noteEnd(context: Context, outermost: GuestRecord): Promise<void> {
  const exitStatus = await readExitStatus(context, outermost)
  const records = await listRecords()
  for (const guest of [outermost, ...descendants(outermost, records)]) {
    if (guest.stack === outermost.stack) await changeRecord(guest.id, () => ({ phase: 'exited', exitStatus }))
    else await forget(context, guest)
  }
}

/** The same record, or what it has become if its stack runs in a guest hypervisor and has ended meanwhile. */
export async function settle(context: Context, record: GuestRecord): Promise<GuestRecord> {
  const stack = (await listRecords()).filter((other) => other.stack === record.stack)
  const outermost = stack.find(({ id }) => id === record.stack)
  const over = stack.some(({ owner, command, phase }) => owner === undefined && command && phase === 'running')
  if (!outermost?.parent || !over || !(await isGone(context, outermost).catch(() => false))) return record
  await noteEnd(context, outermost)
  return (await loadRecord(record.id)) ?? record
}
