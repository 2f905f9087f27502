import { runOn } from '../engine/qemu/migration.ts'
import { isAlive, processIdentity } from '../store/process.ts'
import type { Context } from './context.ts'
import { openQmp } from './forward.ts'
import { changeRecord, type GuestRecord } from './record.ts'

/** Runs what stops a level 1 guest, which runs on afterwards: also where this process does not live to see to it. */
export async function whileStopped(context: Context, record: GuestRecord, work: () => Promise<void>): Promise<void> {
  await note(record, processIdentity(process.pid))
  try {
    await work()
  } finally {
    await goOn(context, record)
    await note(record, undefined)
  }
}

/** Lets a guest run on whose saver is dead. */
export async function wake(context: Context, record: GuestRecord): Promise<void> {
  if (!record.saver || isAlive(record.saver)) return
  await goOn(context, record)
  await note(record, undefined)
}

/** Whatever it was stopped for. */
export async function goOn(context: Context, record: GuestRecord): Promise<void> {
  await using qmp = await openQmp(context, record)
  await runOn(qmp)
}

async function note({ id }: GuestRecord, saver: GuestRecord['saver']): Promise<void> {
  await changeRecord(id, () => ({ saver }))
}
